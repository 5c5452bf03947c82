#!/usr/bin/env python3
"""Models that `halfstep export --precision` wrote, in ONNX Runtime, beside the same models in fp32.

usage: tools/compare_mixed.py HALFSTEP [MODEL.onnx ...] [--precision fp16] [--table FILE]
needs numpy, onnx, onnxruntime; default: one form of each family in models/families, lenet, mlp and gpt2_tiny

Each file must pass onnx.checker with full and strict shape inference. On random inputs of one batch:
  mixed   |mixed - fp32| / |fp32| of all outputs, both in ONNX Runtime (fp32: `export --precision fp32`)
A row agrees if `mixed` is within 2^-11 (fp16; bf16: 2^-8) times the square root of the number of low nodes: that many roundings,
each of half a unit in the last place, that are independent of each other.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime

ROOT = pathlib.Path(__file__).resolve().parent.parent
UNIT = {"fp16": 2.0 ** -11, "bf16": 2.0 ** -8}
FORMS = ["ts17", "dynamo", "raw"]


def models():
    families = ROOT / "models/families"
    for name in sorted({path.name.split(".")[0] for path in families.glob("*.onnx")}):
        yield next(families / f"{name}.{form}.onnx" for form in FORMS if (families / f"{name}.{form}.onnx").exists())
    yield from (ROOT / f"models/{name}.onnx" for name in ("lenet", "mlp", "gpt2_tiny"))


def export(halfstep, model, precision, out):
    done = subprocess.run([halfstep, "export", model, "--precision", precision, "-o", out, "--json"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr or done.stdout).strip()[-300:])
    return json.loads(done.stdout)


def outputs(path, feed):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [np.asarray(value, np.float64) for value in session.run(None, feed)]


def draw(path):
    generator = np.random.default_rng(0)
    feed = {}
    for entry in onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).get_inputs():
        shape = [size if isinstance(size, int) else 2 for size in entry.shape]
        if "float" in entry.type:
            feed[entry.name] = generator.standard_normal(shape).astype(np.float32)
        elif "int" in entry.type:
            feed[entry.name] = generator.integers(0, 10, shape).astype(np.int64 if "64" in entry.type else np.int32)
        else:
            feed[entry.name] = np.ones(shape, bool)
    return feed


def row(halfstep, model, precision, directory):
    plain, mixed = directory / "fp32.onnx", directory / "mixed.onnx"
    export(halfstep, model, "fp32", plain)
    said = export(halfstep, model, precision, mixed)
    checked = onnx.load(mixed)
    onnx.checker.check_model(checked, full_check=True)
    onnx.shape_inference.infer_shapes(checked, check_type=True, strict_mode=True, data_prop=True)
    feed = draw(plain)
    exact, found = outputs(plain, feed), outputs(mixed, feed)
    size = np.sqrt(sum(np.square(value).sum() for value in exact))
    distance = np.sqrt(sum(np.square(a - b).sum() for a, b in zip(exact, found))) / max(size, 1e-30)
    return said, distance, UNIT[precision] * max(1, said["low_nodes"]) ** 0.5


def main():
    parser = argparse.ArgumentParser(usage="%(prog)s HALFSTEP [MODEL.onnx ...] [--precision fp16] [--table FILE]")
    parser.add_argument("halfstep")
    parser.add_argument("models", nargs="*", type=pathlib.Path)
    parser.add_argument("--precision", choices=sorted(UNIT), default="fp16")
    parser.add_argument("--table", type=pathlib.Path)
    arguments = parser.parse_args()
    onnxruntime.set_default_logger_severity(4)
    lines = ["| model | low nodes | casts | weights | distance to fp32 | allowed |", "|---|---|---|---|---|---|"]
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        for model in arguments.models or models():
            try:
                said, distance, allowed = row(arguments.halfstep, model, arguments.precision, pathlib.Path(name))
                verdict = "" if distance <= allowed else " **differs**"
                share = said["weight_bytes"] / max(1, said["weight_bytes_fp32"])
                lines.append(f"| {model.stem} | {said['low_nodes']} | {said['casts']} | {share:.2f} | {distance:.1e}{verdict} | {allowed:.1e} |")
            except Exception as error:  # the other rows still count
                verdict = "failed"
                lines.append(f"| {model.stem} | failed: {str(error)[:200]!r} |")
            failed += bool(verdict)
            print(lines[-1], flush=True)
    if arguments.table:
        arguments.table.write_text("\n".join(lines) + "\n")
    print(f"compare_mixed: {len(lines) - 2 - failed} of {len(lines) - 2} agree")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
