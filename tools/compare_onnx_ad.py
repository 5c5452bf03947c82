#!/usr/bin/env python3
"""Compares gradients with those that the package onnx-ad derives: every model its own tests differentiate.

usage: tools/compare_onnx_ad.py HALFSTEP [--tests DIR] [--table FILE] [--keep DIR]
needs onnx-ad, onnx, onnxruntime and numpy; without --tests the package's source is downloaded with pip for its tests.

Its tests are run; a model that they differentiate in reverse and evaluate is a case, with its operands. The loss is the
sum of all outputs, each times fixed random numbers; onnx-ad's vector-Jacobian product for these numbers (ONNX Runtime
computes it, in double where it can) is what `halfstep gradients` must give for every floating-point operand, which the
file has as a weight. A case agrees if the largest deviation is within 1e-4 of the largest element and 1e-6.
"""

import argparse
import collections
import importlib
import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import unittest

import numpy as np
import onnx
import onnx_ad
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

onnxruntime.set_default_logger_severity(4)
RELATIVE, ABSOLUTE = 1e-4, 1e-6
FLOATING = (TensorProto.FLOAT, TensorProto.DOUBLE)

reverse = onnx_ad.reverse
Session = onnxruntime.InferenceSession


def download(directory):
    package = f"onnx-ad=={onnx_ad.__version__}"
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "onnx-ad", "-d", directory,
                    package], check=True)
    archive = next(pathlib.Path(directory).glob("onnx_ad-*.tar.gz"))
    with tarfile.open(archive) as tar:
        tar.extractall(directory, filter="data")
    return pathlib.Path(directory) / archive.name.removesuffix(".tar.gz") / "tests"


def collect(tests):
    """(name of the test, model, operands) of everything that is differentiated in reverse and evaluated."""
    sources, cases, current = {}, {}, [""]

    def recorded_reverse(model, *args, **options):
        derivative = reverse(model, *args, **options)
        sources[derivative.SerializeToString()] = onnx.ModelProto.FromString(model.SerializeToString())
        return derivative

    class RecordedSession(Session):
        def __init__(self, model, *args, **options):
            self.source = sources.get(model)
            super().__init__(model, *args, **options)

        def run(self, names, feeds, *args):
            if self.source is not None:
                names_in = {i.name for i in self.source.graph.input}
                operands = {k: np.asarray(v) for k, v in feeds.items() if k in names_in}
                key = self.source.SerializeToString() + b"".join(k.encode() + operands[k].tobytes() for k in sorted(operands))
                cases.setdefault(key, (current[0], self.source, operands))
            return super().run(names, feeds, *args)

    class Result(unittest.TestResult):
        def startTest(self, test):
            current[0] = test.id()
            super().startTest(test)

    onnx_ad.reverse, onnxruntime.InferenceSession = recorded_reverse, RecordedSession
    sys.path.insert(0, str(tests))
    result = Result()
    for file in sorted(tests.glob("test_*.py")):
        unittest.defaultTestLoader.loadTestsFromModule(importlib.import_module(file.stem)).run(result)
    onnx_ad.reverse, onnxruntime.InferenceSession = reverse, Session
    broken = len(result.failures) + len(result.errors)
    print(f"{result.testsRun} tests of onnx-ad {onnx_ad.__version__}: {broken} fail here, {len(result.skipped)} skipped",
          file=sys.stderr)
    return list(cases.values())


def expected(model, operands, random):
    """The numbers that outputs are multiplied by, and the gradients by operand."""
    derivative = reverse(model, layout="onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    session = Session(derivative.SerializeToString(), options, providers=["CPUExecutionProvider"])
    primal = Session(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    types = {o.name: o.type.tensor_type.elem_type for o in model.graph.output}
    values = dict(zip([o.name for o in primal.get_outputs()], primal.run(None, operands)))
    factors = {}
    names = {i.name for i in session.get_inputs()}
    for name, value in values.items():
        if types[name] in FLOATING and "adj_" + name in names:
            factors[name] = random.uniform(0.5, 1.5, value.shape).astype(value.dtype)
    seeds = {"adj_" + name: factor[..., None] for name, factor in factors.items()}
    results = dict(zip([o.name for o in session.get_outputs()], session.run(None, {**operands, **seeds})))
    gradients = {k[4:]: v[..., 0] for k, v in results.items() if k.startswith("adj_") and k[4:] in operands}
    return factors, gradients


def as_training_file(model, operands, factors, trained):
    """The model with its operands as weights and one output, the loss; an input that only gives the batch."""
    m = onnx.ModelProto.FromString(model.SerializeToString())
    graph = m.graph
    given = {t.name for t in graph.initializer}
    del graph.input[:]
    for name, value in operands.items():
        if name not in given:
            graph.initializer.append(numpy_helper.from_array(value, name))
    graph.input.append(helper.make_tensor_value_info("batch_", TensorProto.FLOAT, [1, 1]))
    sums = []
    for name, factor in factors.items():
        graph.initializer.append(numpy_helper.from_array(factor, f"factor_{name}"))
        graph.node.append(helper.make_node("Mul", [name, f"factor_{name}"], [f"product_{name}"], name=f"product_{name}"))
        graph.node.append(helper.make_node("Cast", [f"product_{name}"], [f"single_{name}"], to=TensorProto.FLOAT,
                                           name=f"single_{name}"))
        graph.node.append(helper.make_node("ReduceSum", [f"single_{name}"], [f"sum_{name}"], keepdims=0, name=f"sum_{name}"))
        sums.append(f"sum_{name}")
    graph.node.append(helper.make_node("ReduceSum", ["batch_"], ["sum_batch_"], keepdims=0, name="sum_batch_"))
    graph.node.append(helper.make_node("Sum", [*sums, "sum_batch_"], ["loss_"], name="loss_"))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("loss_", TensorProto.FLOAT, []))
    frozen = {i for n in graph.node if n.op_type == "BatchNormalization" for i in n.input[3:5]}
    options = [o for name in trained if name not in frozen for o in ("--train", name)]
    return m, options + [o for name in sorted(frozen) for o in ("--freeze", name)]


def read_safetensors(path):
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    kinds = {"F32": np.float32, "F64": np.float64}
    return {name: np.frombuffer(raw[8 + size + t["data_offsets"][0]:8 + size + t["data_offsets"][1]],
                                kinds[t["dtype"]]).reshape(t["shape"])
            for name, t in json.loads(raw[8:8 + size]).items() if name != "__metadata__" and t["dtype"] in kinds}


def outcome(binary, model, operands, random, folder):
    """("agrees" | "differs" | "refused" | "not comparable", what)"""
    try:
        factors, want = expected(model, operands, random)
    except Exception as error:  # onnx-ad or ONNX Runtime cannot
        return "not comparable", str(error).splitlines()[0][:160]
    floating = [k for k, v in operands.items() if v.dtype.kind == "f"]
    file, options = as_training_file(model, operands, factors, floating)
    onnx.save(file, folder / "model.onnx")
    np.savez(folder / "batch.npz", batch_=np.zeros((1, 1), np.float32))
    (folder / "options.txt").write_text(" ".join(options))
    np.savez(folder / "want.npz", **want)
    target = folder / "got.safetensors"
    command = [binary, "gradients", folder / "model.onnx", "--data", folder / "batch.npz", "--batch", "1", "--loss", "from_graph",
               "--precision", "fp32", "--device", "cpu", "-o", target, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        return "refused", " ".join((done.stderr or done.stdout).split()).removeprefix("halfstep: ")[:300]
    got = {k.removeprefix("gradients/"): v for k, v in read_safetensors(target).items() if k.startswith("gradients/")}
    wrong = []
    for name, value in want.items():
        if f"--freeze {name}" in " ".join(options):
            continue
        if name not in got:
            wrong.append(f"no gradient of {name}") if np.any(value) else None
            continue
        a, e = got[name].astype(np.float64).reshape(-1), value.astype(np.float64).reshape(-1)
        limit = RELATIVE * np.abs(e).max(initial=0) + ABSOLUTE
        if a.size != e.size or not np.all(np.isfinite(a) == np.isfinite(e)) or not np.all(np.abs(a - e)[np.isfinite(e)] <= limit):
            wrong.append(f"{name}: {np.abs(a - e).max() if a.size == e.size else 'size'} of {np.abs(e).max(initial=0):.3g}")
    return ("differs", "; ".join(wrong)) if wrong else ("agrees", "")


def operators(graph):
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from operators(attribute.g)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("halfstep")
    parser.add_argument("--tests", type=pathlib.Path, help="the folder tests of onnx-ad's source")
    parser.add_argument("--table", type=pathlib.Path, help="the file for the tables (Markdown); default: standard output")
    parser.add_argument("--keep", type=pathlib.Path, help="a folder for the files of cases that do not agree")
    args = parser.parse_args()
    binary = str(pathlib.Path(args.halfstep).resolve())
    with tempfile.TemporaryDirectory() as directory:
        tests = args.tests or download(directory)
        cases = collect(tests)
        random = np.random.default_rng(1)
        results = []
        for i, (test, model, operands) in enumerate(cases):
            folder = (args.keep or pathlib.Path(directory) / "cases") / f"{i:04d}"
            folder.mkdir(parents=True, exist_ok=True)
            kind, what = outcome(binary, model, operands, random, folder)
            results.append((test, sorted(set(operators(model.graph))), kind, what))
            if kind != "agrees":
                print(f"{i:04d} {test.split('.', 1)[1]}: {kind} {what}", file=sys.stderr)
    kinds = ["agrees", "differs", "refused", "not comparable"]
    words = ["agree", "differ", "refused", "not comparable"]
    lines = [f"onnx-ad {onnx_ad.__version__}, onnx {onnx.__version__}, ONNX Runtime {onnxruntime.__version__}: {len(results)} cases; " +
             ", ".join(f"{sum(kind == k for _, _, kind, _ in results)} {word}" for k, word in zip(kinds, words)) + ".", ""]
    lines += ["| operator | cases | agree | differ | refused | not comparable |", "|---|---|---|---|---|---|"]
    rows = collections.defaultdict(collections.Counter)
    for _, ops, kind, _ in results:
        for op in ops:
            rows[op][kind] += 1
    lines += [f"| {op} | {sum(c.values())} | " + " | ".join(str(c[k]) if c[k] else "" for k in kinds) + " |"
              for op, c in sorted(rows.items())]
    lines += ["", "| not equal | |", "|---|---|"]
    lines += [f"| {test.split('.', 1)[1]} | {kind}: {what.replace('|', ',')} |" for test, _, kind, what in results if kind != "agrees"]
    text = "\n".join(lines) + "\n"
    args.table.write_text(text) if args.table else print(text)
    sys.exit(any(kind == "differs" for _, _, kind, _ in results))


if __name__ == "__main__":
    main()
