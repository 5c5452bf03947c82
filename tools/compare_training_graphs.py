#!/usr/bin/env python3
"""Runs exported training graphs in ONNX Runtime, beside our own runs of the same steps.

usage: tools/compare_training_graphs.py HALFSTEP [NAME ...] [--precision fp32,fp16,bf16] [--table FILE] [--keep DIR]
       tools/compare_training_graphs.py HALFSTEP --losses [--precision fp32]
       tools/compare_training_graphs.py --op-graphs DIR
       NAME: a file of models/families without .onnx (lenet, mlp and resnet18 too); default: one form of each family
needs numpy, onnx, onnxruntime

For each model and precision `halfstep export --training-graph` writes the step, which must pass onnx.checker with full
strict shape inference. Ten steps on one batch, dropout as in the file: `halfstep train` on the CPU, and ONNX Runtime on
the CPU, which gets its own outputs NAME_out back as NAME. Compared are the losses, and every state at the end:
  loss      largest |ours - theirs| / |ours| over the steps
  weights   |ours - theirs| / |ours| of all weights and running statistics as one vector
  moved     |ours - theirs| / |ours - initial|: the same against how far the steps went
--losses: the same of mlp with each loss and the keys that change its formula; and in fp32, where --training-operators says
the loss, the one that ONNX Runtime computes by the operators in that file is the first of our run, or the row does not agree.
DIR holds what frontend_test wrote with HALFSTEP_OP_GRAPHS=DIR: graphs of a single op of the IR, and what it computes.

A row that is beyond its limit also tells how far ONNX Runtime's losses are from its own when every weight is moved by its
last bit: where that is as far, ten steps of the model amplify rounding. A row agrees if loss and weights are within 1e-5 (fp32), 2^-11 (fp16) and 2^-8 (bf16): half a unit in the last place of 1.
"""

import argparse
import ctypes
import json
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib

import numpy as np
import onnx
import onnxruntime

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIMITS = {"fp32": 1e-5, "fp16": 2.0 ** -11, "bf16": 2.0 ** -8}
STEPS, SEED = 10, 7
FORMS = ["raw", "dynamo", "ts17", "dynamo23"]


# By what they are compared with.
LOSSES = {
    "labels": ["softmax_cross_entropy", "softmax_cross_entropy --class_weights 1,2,1,0.5,1,1,3,1,1,1", "softmax_cross_entropy --label_smoothing 0.1",
               "softmax_cross_entropy --focal_gamma 2", "nll", "nll --class_weights 1,2,1,0.5,1,1,3,1,1,1"],
    "yes_or_no": ["bce_with_logits", "bce_with_logits --pos_weight 3", "bce_with_logits --pos_weight 1,2,3,4,5,6,7,8,9,10", "bce_with_logits --class_weights 0.5",
                  "bce_with_logits --focal_gamma 2 --focal_alpha 0.25", "bce_with_logits --ignore_index 0"],
    "targets": ["mean_squared_error", "l1", "huber", "huber --delta 0.3", "smooth_l1", "smooth_l1 --beta 0.4", "smooth_l1 --beta 0"],
    "probabilities": ["kl_div"],
    "log_probabilities": ["kl_div --log_target true"],
}


def labels_of(kind, shape, classes=10):
    """What losses of `kind` take beside an output of `shape`."""
    random = np.random.default_rng(3)
    if kind == "labels":
        return {"labels": (3 * np.arange(shape[0])) % classes}
    if kind == "yes_or_no":
        return {"labels": random.integers(0, 2, shape).astype(np.float32)}
    probabilities = random.dirichlet(np.ones(classes), shape[0]).astype(np.float32)
    return {"targets": {"targets": random.uniform(-1, 1, shape).astype(np.float32), "probabilities": probabilities, "log_probabilities": np.log(probabilities)}[kind]}


def models(names):
    """(name, file, reference): of the families one form each, and the reference models."""
    families = ROOT / "models/families"
    if not names:
        for reference in sorted(families.glob("*.json")):
            names.append(next(f"{reference.stem}.{form}" for form in FORMS
                              if (families / f"{reference.stem}.{form}.onnx").exists()))
        names += ["mlp", "lenet", "resnet18"]
    for name in names:
        if name in ("mlp", "lenet", "resnet18"):
            file = ROOT / f"models/exports/{name}.ts17.onnx"
            yield name, file, None
        else:
            yield name, families / f"{name}.onnx", json.loads((families / f"{name.split('.')[0]}.json").read_text())


def reference_of(name):
    shape, batch = {"mlp": ([1, 28, 28], 8), "lenet": ([1, 28, 28], 8), "resnet18": ([3, 64, 64], 4)}[name]
    return {"inputs": {"": {"shape": [batch, *shape]}}, "sgd": {"lr": 0.01, "momentum": 0.9},
            "labels": {"ignored": -100, "values": [(3 * i) % 10 for i in range(batch)], "shape": [batch]}}


def batch_of(reference, file):
    """What the step is fed: floats from [-1, 1), ids below their bound, and the recorded labels."""
    only = [i.name for i in onnx.load(file, load_external_data=False).graph.input][0]
    arrays = {}
    for name, spec in reference["inputs"].items():
        name = name or only
        random = np.random.default_rng(zlib.crc32(name.encode()))
        arrays[name] = (random.integers(0, spec["bound"], spec["shape"]) if "bound" in spec
                        else random.uniform(-1, 1, spec["shape"]).astype(np.float32))
    arrays["labels"] = np.array(reference["labels"]["values"], np.int64).reshape(reference["labels"]["shape"])
    return arrays


def read_safetensors(path):
    data = path.read_bytes()
    size, = struct.unpack("<Q", data[:8])
    types = {"F32": np.float32, "I32": np.int32, "I64": np.int64, "BOOL": np.bool_, "F64": np.float64}
    tensors = {}
    for name, entry in json.loads(data[8:8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        tensors[name] = np.frombuffer(data[8 + size + begin:8 + size + end],
                                      types[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def run(command):
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(result.stderr.strip().splitlines()[-1])
    return result


def ours(halfstep, recipe, directory):
    run([halfstep, "train", *recipe, "--epochs", STEPS, "--out", directory / "run", "--shuffle", "false",
         "--learning_rate", LEARNING_RATE[0], "--device", "cpu", "--threads", 2])
    rows = [json.loads(line) for line in (directory / "run/metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "step"]
    newest = sorted((directory / "run/checkpoints").glob("step-*"))[-1]
    return losses, read_safetensors(newest / "weights.safetensors"), read_safetensors(newest / "slots.safetensors")


LEARNING_RATE = [0.01]


onnxruntime.set_default_logger_severity(3)  # states are inputs with defaults, which it warns of


def theirs(file, arrays, moved=1.0):
    model = onnx.load(file)
    initial = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    inputs = {i.name for i in model.graph.input}
    outputs = [o.name for o in model.graph.output]
    states = {name: value * np.float32(moved) if value.dtype == np.float32 and "/" not in name and "loss_scale" not in name
              else value for name, value in initial.items() if f"{name}_out" in outputs}
    feed = {name: value for name, value in arrays.items() if name in inputs}
    losses = []
    for step in range(STEPS):
        told = {"step.learning_rate": np.array(LEARNING_RATE[0], np.float32), "step.iteration": np.array(step, np.int32),
                "step.seed": np.array(SEED, np.int64)}
        values = dict(zip(outputs, session.run(None, {**feed, **states,
                                                      **{k: v for k, v in told.items() if k in inputs}})))
        losses.append(float(values["loss"]))
        states = {name: values[f"{name}_out"] for name in states}
    return losses, initial, states


def distance(a, b):
    return float(np.sqrt(sum(np.sum((np.float64(x) - y) ** 2) for x, y in zip(a, b))))


def loss_by_operators(halfstep, recipe, arrays, directory):
    """Of the first batch, by the loss in the algorithm of the model's TrainingInfoProto; None: it is refused there."""
    file = directory / "operators.onnx"
    written = subprocess.run([str(c) for c in (halfstep, "export", *recipe, "--training-operators", "-o", file)], capture_output=True, text=True)
    if written.returncode:
        if "training operators do not say it" not in written.stderr:
            raise RuntimeError(written.stderr.strip().splitlines()[-1])
        return None
    model = onnx.load(file)
    graph, algorithm = model.graph, model.training_info[0].algorithm
    gradient = next(n for n in algorithm.node if n.op_type == "Gradient")
    loss = next(a.s.decode() for a in gradient.attribute if a.name == "y")
    before = list(algorithm.node)[:list(algorithm.node).index(gradient)]
    graph.node.extend(before)
    graph.initializer.extend(algorithm.initializer)
    graph.input.extend(algorithm.input)
    del graph.output[:], model.training_info[:]
    graph.output.append(onnx.helper.make_tensor_value_info(loss, onnx.TensorProto.FLOAT, []))
    for opset in [o for o in model.opset_import if o.domain == "ai.onnx.preview.training"]:
        model.opset_import.remove(opset)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return float(session.run(None, {i.name: arrays[i.name] for i in session.get_inputs()})[0])


def compare(halfstep, name, file, reference, precision, directory, loss=None, labels=None):
    reference = reference or reference_of(name)
    arrays = dict(batch_of(reference, file), **(labels or {}))
    if labels and "labels" not in labels:
        del arrays["labels"]
    LEARNING_RATE[0] = reference["sgd"]["lr"]
    np.savez(directory / "batch.npz", **arrays)
    shapes = ["--shape", ";".join(f"{key}=" * bool(key) + ",".join(map(str, spec["shape"]))
                                  for key, spec in reference["inputs"].items())]
    recipe = [file, "--data", directory / "batch.npz", *shapes, "--momentum", reference["sgd"]["momentum"], "--seed", SEED,
              "--precision", precision, "--init", "absent", *(["--loss", *loss.split()] if loss else ["--ignore_index", reference["labels"]["ignored"]])]
    graph = directory / "step.onnx"
    run([halfstep, "export", *recipe, "--learning_rate", LEARNING_RATE[0], "--training-graph", "-o", graph])
    onnx.checker.check_model(str(graph), full_check=True)
    onnx.shape_inference.infer_shapes(onnx.load(graph), check_type=True, strict_mode=True, data_prop=True)
    our_losses, weights, slots = ours(halfstep, recipe, directory)
    their_losses, initial, states = theirs(graph, arrays)
    if len(our_losses) != STEPS:
        raise RuntimeError(f"{len(our_losses)} steps of ours")
    if missing := sorted(set(weights) - set(initial)) + sorted(set(states) - set(weights) - set(slots)):
        raise RuntimeError(f"states differ: {missing[:3]}")
    moving = [n for n in weights if n in states]
    of = lambda tensors: [np.float64(tensors[n]) for n in moving]
    zero = [0.0] * len(moving)
    apart = distance(of(weights), of(states))
    row = {"model": f"{name}, {loss}" if loss else name, "precision": precision, "nodes": len(onnx.load(graph).graph.node),
           "first": our_losses[0], "last": our_losses[-1],
           "loss": max(abs(a - b) / abs(a) for a, b in zip(our_losses, their_losses)),
           "weights": apart / distance(of(weights), zero),
           "moved": apart / max(distance(of(weights), of(initial)), 1e-30)}
    row["agrees"] = bool(row["loss"] <= LIMITS[precision] and row["weights"] <= LIMITS[precision])
    if loss and precision == "fp32" and (by_operators := loss_by_operators(halfstep, recipe, arrays, directory)) is not None:
        row["operators"] = abs(by_operators - our_losses[0]) / abs(our_losses[0])
        row["agrees"] &= row["operators"] <= LIMITS["fp32"]
    if not row["agrees"]:
        again, _, _ = theirs(graph, arrays, 1 + 2.0 ** -23)
        row["spread"] = max(abs(a - b) / abs(a) for a, b in zip(their_losses, again))
    return row


def table_of(rows):
    lines = ["| model | precision | ONNX nodes | first loss | tenth | loss apart | weights apart | of the way moved | |",
             "|---|---|---|---|---|---|---|---|---|"]
    for r in rows:
        if "error" in r:
            lines.append(f"| {r['model']} | {r['precision']} | {r['error']} ||||||||")
            continue
        lines.append(f"| {r['model']} | {r['precision']} | {r['nodes']} | {r['first']:.5f} | {r['last']:.5f} | "
                     f"{r['loss']:.1e} | {r['weights']:.1e} | {r['moved']:.1e} | "
                     + (f"agrees, and so does the loss by operators ({r['operators']:.0e}) |" if r["agrees"] and "operators" in r else
                        "agrees |" if r["agrees"] else f"beyond the limit; from itself {r['spread']:.1e} |"))
    return "\n".join(lines)


def ort_value(tensor):
    """NumPy has no bfloat16 that ONNX Runtime takes: the bits with their type."""
    if tensor.data_type == onnx.TensorProto.BFLOAT16:
        bits = np.frombuffer(tensor.raw_data, np.uint16).reshape(tensor.dims)
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, onnx.TensorProto.BFLOAT16)
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.array(onnx.numpy_helper.to_array(tensor), order="C"))


def numpy_value(result, like):
    if like.data_type != onnx.TensorProto.BFLOAT16:
        return result.numpy()
    bits = np.frombuffer((ctypes.c_uint16 * int(np.prod(like.dims))).from_address(result.data_ptr()), np.uint16)
    return (bits.astype(np.uint32) << 16).view(np.float32).reshape(like.dims)


def run_op_graphs(directory):
    """Each graph of one op in ONNX Runtime, against the interpreter's values."""
    limits = {"f32": 2e-6, "f16": 2e-3, "bf16": 1.6e-2}
    count, failures = 0, []
    for path in sorted(pathlib.Path(directory).glob("*.onnx")):
        tensors = {t.name: t for t in onnx.load(path.with_suffix(".values")).graph.initializer}
        value = lambda t: onnx.numpy_helper.to_array(t)
        try:
            onnx.checker.check_model(str(path), full_check=True)
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            feed = {i.name: ort_value(tensors["in/" + i.name]) for i in session.get_inputs()}
            names = [o.name for o in session.get_outputs()]
            found = session.run_with_ort_values(names, feed)
            for name, result in zip(names, found):
                expected, got = np.float64(value(tensors["out/" + name])), np.float64(numpy_value(result, tensors["out/" + name]))
                scale = max(1.0, np.max(np.abs(expected[np.isfinite(expected)]), initial=0))
                finite = np.isfinite(expected)
                apart = np.max(np.abs(got - expected)[finite], initial=0) / scale
                if got.shape != expected.shape or apart > limits[path.stem.split(".")[2]] or \
                        not np.array_equal(got[~finite], expected[~finite], equal_nan=True):
                    raise RuntimeError(f"apart by {apart:.1e}")
        except Exception as error:
            failures.append(f"{path.stem}: {str(error).splitlines()[0][:200]}")
        count += 1
    print(f"{count} graphs, {len(failures)} differ", *failures, sep="\n")
    return 1 if failures or not count else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("halfstep", nargs="?")
    parser.add_argument("--op-graphs")
    parser.add_argument("--losses", action="store_true")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--precision", default="fp32,fp16,bf16")
    parser.add_argument("--table")
    parser.add_argument("--keep")
    options = parser.parse_args()
    if options.op_graphs:
        return run_op_graphs(options.op_graphs)
    if not options.halfstep:
        parser.error("the executable is missing")
    halfstep = pathlib.Path(options.halfstep).resolve()
    rows = []
    wanted = [(name, file, reference, None, None) for name, file, reference in models(["mlp"] if options.losses else options.names)]
    if options.losses:
        # At the file's own batch, which its operators are of.
        of_file = dict(reference_of("mlp"), inputs={"": {"shape": [2, 1, 28, 28]}})
        wanted = [("mlp", ROOT / "models/mlp.onnx", of_file, loss, labels_of(kind, (2, 10))) for kind, losses in LOSSES.items() for loss in losses]
    for name, file, reference, loss, labels in wanted:
        for precision in options.precision.split(","):
            directory = pathlib.Path(tempfile.mkdtemp(dir=options.keep))
            try:
                rows.append(compare(halfstep, name, file, reference, precision, directory, loss, labels))
            except Exception as error:
                rows.append({"model": f"{name}, {loss}" if loss else name, "precision": precision, "error": str(error).splitlines()[0][:200]})
            finally:
                if not options.keep:
                    shutil.rmtree(directory)
            print(table_of(rows[-1:]).splitlines()[-1], flush=True)
    if options.table:
        pathlib.Path(options.table).write_text(table_of(rows) + "\n")
    return 0 if all(row.get("agrees") for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
