#!/usr/bin/env python3
"""Random ONNX models, exported in mixed precision, in ONNX Runtime beside the same models in fp32.

usage: tools/compare_random_mixed.py HALFSTEP [--count 300] [--first 0] [--precision fp16|bf16|both] [--jobs 2] [--keep DIR]
needs numpy, onnx, onnxruntime

A seed makes a model of 3 to 25 operators out of some seventy kinds (contractions, norms, reductions, pointwise, movements,
windows, recurrences, branches), with shared weights, constants as nodes, and inner values as outputs. Each is written by
`halfstep export --precision`, every other one under a policy with rules of single slots (an operand or the result of a node, in the low
type or fp32), which the written file must show; it must pass onnx.checker with full and strict shape inference, keep its inputs and outputs, and
compute what fp32 does but for its roundings (of bf16, which ONNX Runtime's CPU has no kernels for, by nodes in fp32 whose results
are rounded):

How far apart rounding may bring an output depends on the model. It is taken from the model itself, before the mixed one runs:
the mixed model is computed in fp32 with every value that it rounds multiplied by 1 + r, |r| <= u (2^-11; bf16: 2^-8), and moved by
less than half of the least subnormal, eight times: r of each element for itself, and one r for all elements of a tensor. An output
agrees if its distance (L2) to fp32 is at most 4 times the largest of these eight, or 1e-5 of its size, which sums in another order take.
"""
import argparse
import json
import multiprocessing
import os
import pathlib
import subprocess
import sys
import tempfile
import traceback

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from random_models import movements, random_model

UNIT = {"fp16": 2.0 ** -11, "bf16": 2.0 ** -8}
HALF_LEAST = {"fp16": 2.0 ** -25, "bf16": 2.0 ** -134}
LOW = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
FACTOR, RUNS, SUMS = 4.0, 8, 1e-5
LARGEST = 1e4  # values beyond are not made: what overflows is no matter of rounding


def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def outputs(model, feed):
    running = session(model)
    names = [output.name for output in running.get_outputs()]
    return dict(zip(names, running.run(None, feed)))


def feed_of(model, generator):
    feed = {}
    for entry in model.graph.input:
        shape = [d.dim_value for d in entry.type.tensor_type.shape.dim]
        kind = entry.type.tensor_type.elem_type
        feed[entry.name] = (generator.standard_normal(shape).astype(np.float32) if kind == TensorProto.FLOAT else
                            generator.integers(0, 3, shape) if kind == TensorProto.INT64 else np.asarray(generator.random(shape) < 0.5))
    return feed


def well_sized(model, feed):
    """The model up to its first value that is not finite or large; None if little is left."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    known = {o.name for o in probed.graph.output}
    types = {v.name: v for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
    for node in probed.graph.node:
        for name in node.output:
            if name and name not in known and name in types:
                probed.graph.output.append(types[name])
    values = outputs(probed, feed)
    bad = {name for name, value in values.items() if value.dtype == np.float32 and not (np.abs(value) < LARGEST).all()}
    for i, node in enumerate(model.graph.node):
        if bad & set(node.output):
            kept = list(model.graph.node)[:i]
            made = {name for n in kept for name in n.output}
            read = {name for n in kept for name in n.input}
            cut = onnx.ModelProto()
            cut.CopyFrom(model)
            del cut.graph.node[:], cut.graph.output[:]
            cut.graph.node.extend(kept)
            declared = {name: v for name, v in {**types, **{o.name: o for o in model.graph.output}}.items() if v.type.tensor_type.HasField("shape")}
            last = [n for n in made if n not in read and n in declared and declared[n].type.tensor_type.elem_type == TensorProto.FLOAT]
            cut.graph.output.extend(declared[name] for name in sorted(last))
            return cut if len(kept) >= 3 and last else None
    return model


def rounded_values(mixed, low, inferred):
    """The values of the mixed model that it rounds: what casts to the low type, and computes in it."""
    elements = {v.name: v.type.tensor_type for v in [*inferred.graph.value_info, *inferred.graph.output]}
    result = []
    for node in mixed.graph.node:
        for name in node.output:
            kind = elements.get(name)
            if kind is not None and kind.elem_type == low and node.op_type not in movements:
                is_known = all(d.HasField("dim_value") for d in kind.shape.dim)
                result.append((name, [d.dim_value for d in kind.shape.dim] if is_known else []))  # one r for all
    return result


def appended_in_fp32(graph, nodes, low, renamed, prefix):
    """Appends the nodes, computing in fp32: casts to the low type go there, results in `renamed` get the prefix. Gives
    the name of each of these behind its node, for what makes it of the other."""
    for node in nodes:
        if node.op_type == "Cast":
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == low:
                    attribute.i = TensorProto.FLOAT
        found = [name for name in node.output if name in renamed]
        for i, name in enumerate(node.output):
            if name in renamed:
                node.output[i] = prefix + name
        graph.node.append(node)
        yield from found


def perturbed(mixed, plain, precision, inferred):
    """The mixed model in fp32, whose inputs `times.x` and `plus.x` disturb each value x that it rounds; and their shapes."""
    low = LOW[precision]
    shapes = dict(rounded_values(mixed, low, inferred))
    model = onnx.ModelProto()
    model.CopyFrom(mixed)
    graph = model.graph
    del graph.value_info[:]
    exact = {t.name: t for t in plain.graph.initializer}
    exact.update({n.output[0]: n.attribute[0].t for n in plain.graph.node if n.op_type == "Constant"})
    suffix = "_" + {"fp16": "f16", "bf16": "bf16"}[precision]
    weights, raw = {}, []
    for tensor in graph.initializer:
        if tensor.data_type == low:
            base = next(tensor.name[:i] for i in range(len(tensor.name) - 1, 0, -1) if tensor.name[:i] in exact and tensor.name[i:].startswith(suffix))
            values = numpy_helper.to_array(exact[base])
            weights[tensor.name] = list(values.shape)
            raw.append((tensor.name, values))
    kept = [t for t in graph.initializer if t.data_type != low]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(values, "raw." + name) for name, values in raw)
    nodes = list(graph.node)
    del graph.node[:]

    def disturb(name):
        graph.node.extend([helper.make_node("Mul", ["raw." + name, "times." + name], ["scaled." + name]),
                           helper.make_node("Add", ["scaled." + name, "plus." + name], [name])])

    for name in weights:
        disturb(name)
    for name in appended_in_fp32(graph, nodes, low, shapes, "raw."):
        disturb(name)
    every = {**shapes, **weights}
    for name, shape in every.items():
        graph.input.extend(helper.make_tensor_value_info(kind + name, TensorProto.FLOAT, shape) for kind in ("times.", "plus."))
    return model, every


def in_fp32(mixed, inferred):
    """A mixed model of bf16 for an engine without it: its nodes compute in fp32 and their results are rounded to bf16."""
    low = LOW["bf16"]
    rounded = {name for name, _ in rounded_values(mixed, low, inferred)}
    model = onnx.ModelProto()
    model.CopyFrom(mixed)
    graph = model.graph
    nodes = list(graph.node)
    del graph.node[:], graph.value_info[:]
    for tensor in graph.initializer:
        if tensor.data_type == low:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for name in appended_in_fp32(graph, nodes, low, rounded, "wide."):
        # Veltkamp's splitting: the first 8 bits of 24, without a type that ONNX Runtime has no kernels for.
        graph.node.extend([helper.make_node("Mul", ["wide." + name, "splitter"], ["far." + name]),
                           helper.make_node("Sub", ["far." + name, "wide." + name], ["rest." + name]),
                           helper.make_node("Sub", ["far." + name, "rest." + name], [name])])
    graph.initializer.append(numpy_helper.from_array(np.asarray(2.0 ** 16 + 1, np.float32), "splitter"))
    return model


def allowed(mixed, plain, precision, inferred, feed, exact, generator):
    model, shapes = perturbed(mixed, plain, precision, inferred)
    running = session(model)
    names = [output.name for output in running.get_outputs()]
    most = {name: 0.0 for name in names}
    for k in range(RUNS):
        noise = {}
        for name, shape in shapes.items():
            draws = [generator.uniform(-1, 1, shape if k % 2 == 0 else ()) for _ in range(2)]
            noise["times." + name] = np.broadcast_to(1 + UNIT[precision] * draws[0], shape).astype(np.float32)
            noise["plus." + name] = np.broadcast_to(HALF_LEAST[precision] * draws[1], shape).astype(np.float32)
        for name, value in zip(names, running.run(None, {**feed, **noise})):
            most[name] = max(most[name], float(np.linalg.norm(np.asarray(value, np.float64) - exact[name])))
    return {name: max(FACTOR * most[name], SUMS * float(np.linalg.norm(exact[name])) + 1e-7) for name in names}


def signature(model):
    return [(e.name, e.type.tensor_type.elem_type, [d.dim_value for d in e.type.tensor_type.shape.dim]) for e in [*model.graph.input, *model.graph.output]]


def slot_rules(model, generator):
    """Rules of single slots: (node, "result" or operand, low or fp32) of nodes that read or give floating values."""
    candidates = [n for n in model.graph.node if n.name and n.op_type not in ("Constant", "If", "Loop", "Scan")]
    rules = []
    for node in candidates:
        if generator.random() < 0.3:
            slot = "result" if generator.random() < 0.4 else str(int(generator.integers(len(node.input))))
            rules.append((node.name, slot, ["low", "fp32"][int(generator.integers(2))]))
    return rules


def policy_text(rules):
    return "version = 1\n" + "".join(f'[[rule]]\nnode = "{n}"\ntensor = "{s}"\nprecision = "{p}"\n' for n, s, p in rules)


def export_with(halfstep, plain, mixed, precision, rules):
    """Exports; rules of what is no slot of autocast's (integers, what was folded away or is unused) are left out of them."""
    while True:
        policy = pathlib.Path(str(mixed) + ".toml")
        policy.write_text(policy_text(rules))
        done = subprocess.run([halfstep, "export", plain, "--precision", precision, "--policy", policy, "-o", mixed, "--json"], capture_output=True, text=True)
        bad = {int(line.split(".toml:")[1].split(":")[0]) for line in done.stderr.splitlines() + done.stdout.splitlines() if "is no slot of what it matches" in line}
        unused = [line.split("'")[1] for line in done.stderr.splitlines() + done.stdout.splitlines() if "matches no node of the model" in line]
        kept = [rule for i, rule in enumerate(rules) if 2 + 4 * i not in bad and rule[0] not in unused]
        if done.returncode == 0 or len(kept) == len(rules):
            policy.unlink()
            return done, rules
        rules = kept


def check_slots(mixed, inferred, precision, rules):
    """What the file must show of each rule, by types alone. The number that it shows."""
    low, types = LOW[precision], {}
    for v in [*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input]:
        types[v.name] = v.type.tensor_type.elem_type
    for t in mixed.graph.initializer:
        types[t.name] = t.data_type
    makers = {name: n for n in mixed.graph.node for name in n.output}
    readers = {}
    for n in mixed.graph.node:
        for name in n.input:
            readers.setdefault(name, []).append(n)
    shown = 0
    for name, slot, kind in rules:
        node = next((n for n in mixed.graph.node if n.name == name), None)
        if node is None:
            continue
        reason = {p.key: p.value for p in node.metadata_props}.get("halfstep.reason", "")
        wanted = {"fp16": "f16", "bf16": "bf16"}[precision] if kind == "low" else "f32"
        if f"{'result' if slot == 'result' else 'operand ' + slot} {wanted}" not in reason:
            continue  # another rule decided, of this node or of one that was merged with it
        value = node.output[0] if slot == "result" else node.input[int(slot)]
        if value in makers and makers[value].op_type in ("If", "Loop", "Scan"):
            continue  # whose results have no known type, and are read as they are
        is_low = types.get(value) == low
        if slot == "result":
            after = [n for n in readers.get(value, []) if n.op_type == "Cast"]
            is_low = is_low or bool(after) and len(after) == len(readers[value]) and all(types.get(n.output[0]) == low for n in after)
        elif value in makers and makers[value].op_type == "Cast":
            is_low = is_low or types.get(makers[value].input[0]) == low
        if slot == "result" and kind == "fp32" and types.get(value) == low or kind == "low" and not is_low:
            raise RuntimeError(f"rule {name} {slot} {kind} is not in the file: {reason}")
        shown += 1
    return shown


def examine(halfstep, seed, precision, directory):
    """The number of low nodes and casts, the nearest to its bound that an output came; a text: why there is no such model."""
    generator = np.random.default_rng(seed)
    model = random_model(generator)
    onnx.checker.check_model(model, full_check=True)
    feed = feed_of(model, generator)
    model = well_sized(model, feed)
    if model is None:
        return "too large"
    try:
        exact = {name: np.asarray(value, np.float64) for name, value in outputs(model, feed).items()}
    except Exception:
        return "no fp32"
    plain_path, mixed_path = directory / f"{seed}.onnx", directory / f"{seed}.{precision}.onnx"
    onnx.save(model, plain_path)
    rules = slot_rules(model, np.random.default_rng([seed, 1])) if seed // 2 % 2 else []
    done, rules = export_with(halfstep, plain_path, mixed_path, precision, rules)
    if done.returncode:
        raise RuntimeError("export: " + (done.stderr or done.stdout).strip()[-400:])
    said = json.loads(done.stdout)
    mixed = onnx.load(mixed_path)
    onnx.checker.check_model(mixed, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(mixed, check_type=True, strict_mode=True, data_prop=True)
    if signature(mixed) != signature(model):
        raise RuntimeError(f"inputs and outputs are {signature(mixed)}, were {signature(model)}")
    shown = check_slots(mixed, inferred, precision, rules)
    bounds = allowed(mixed, model, precision, inferred, feed, exact, generator)
    nearest = 0.0
    runnable = mixed if precision == "fp16" else in_fp32(mixed, inferred)  # ONNX Runtime's CPU has no kernels for bf16
    for name, value in outputs(runnable, feed).items():
        distance = float(np.linalg.norm(np.asarray(value, np.float64) - exact[name]))
        if not distance <= bounds[name]:
            raise RuntimeError(f"output '{name}' is {distance:.3g} apart from fp32, {bounds[name]:.3g} allowed; its size {np.linalg.norm(exact[name]):.3g}")
        nearest = max(nearest, distance / bounds[name])
    plain_path.unlink(), mixed_path.unlink()
    return said["low_nodes"], said["casts"], nearest, shown


def work(task):
    halfstep, seed, precision, directory = task
    try:
        return seed, precision, examine(halfstep, seed, precision, pathlib.Path(directory)), None
    except Exception as error:
        return seed, precision, None, f"{type(error).__name__}: {error}" if os.environ.get("TRACE") is None else traceback.format_exc()


def main():
    parser = argparse.ArgumentParser(usage="%(prog)s HALFSTEP [--count 300] [--first 0] [--precision fp16|bf16|both] [--jobs 2] [--keep DIR]")
    parser.add_argument("halfstep")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--precision", choices=["fp16", "bf16", "both"], default="both", help="both: by turns")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=pathlib.Path, help="where models that fail are kept")
    arguments = parser.parse_args()
    turns = ["fp16", "bf16"] if arguments.precision == "both" else [arguments.precision]
    with tempfile.TemporaryDirectory() as name:
        directory = arguments.keep or pathlib.Path(name)
        directory.mkdir(parents=True, exist_ok=True)
        tasks = [(arguments.halfstep, seed, turns[seed % len(turns)], str(directory)) for seed in range(arguments.first, arguments.first + arguments.count)]
        agree, failed, low, casts, nearest, slots = 0, 0, 0, 0, 0.0, 0
        left_out = {"too large": 0, "no fp32": 0}
        with multiprocessing.Pool(arguments.jobs) as pool:
            for seed, precision, found, problem in pool.imap_unordered(work, tasks, chunksize=8):
                if problem:
                    failed += 1
                    print(f"seed {seed} {precision}: {problem}", flush=True)
                elif isinstance(found, str):
                    left_out[found] += 1
                else:
                    agree, low, casts, nearest, slots = agree + 1, low + found[0], casts + found[1], max(nearest, found[2]), slots + found[3]
    print(f"compare_random_mixed: {agree} of {agree + failed} models agree ({left_out['too large']} seeds gave values beyond {LARGEST:g} too soon, "
          f"{left_out['no fp32']} models that ONNX Runtime refuses in fp32); {low} low nodes, {casts} casts, {slots} rules of single slots; the nearest to its bound is at {100 * nearest:.0f}%")
    sys.exit(1 if failed or agree == 0 else 0)


if __name__ == "__main__":
    main()
