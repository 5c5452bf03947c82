#!/usr/bin/env python3
"""Outputs of `halfstep predict` beside ONNX Runtime's, file by file and in every format.

usage: compare_predictions.py HALFSTEP [MODEL.onnx ...]
Without models: those of models/ that take images or features.
"""

import csv
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime

MODELS = ["lenet.onnx", "mlp.onnx", "families/mobilenet_v2.dynamo.onnx", "families/vit.raw.onnx"]
SAMPLES, BATCH = 11, 4  # the last batch is not full


def read(path):
    if path.suffix == ".npz":
        return dict(np.load(path))
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.suffix == ".jsonl" else list(csv.DictReader(path.open()))
    if path.suffix == ".jsonl":
        return {name: np.array([row[name] for row in rows]) for name in rows[0] if name != "sample"}
    names = [name for name in rows[0] if name != "sample"]
    return {"": np.array([[float(row[name]) for name in names] for row in rows])}


def main():
    halfstep, *models = sys.argv[1:]
    root = pathlib.Path(__file__).parent.parent / "models"
    worst = {}
    for model in models or [root / name for name in MODELS if (root / name).exists()]:
        # Initializers may stand among a file's inputs.
        graph = onnx.load(model, load_external_data=False).graph
        if any(node.op_type.startswith("Random") or node.op_type == "Bernoulli" for node in graph.node):
            print(f"{pathlib.Path(model).name}: not compared: it draws random numbers, which predict leaves out")
            continue
        weights = {i.name for i in graph.initializer}
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        random, inputs = np.random.default_rng(7), {}
        for value in session.get_inputs():
            if value.name not in weights:
                inputs[value.name] = random.normal(size=(SAMPLES, *value.shape[1:])).astype(np.float32)
        fixed = session.get_inputs()[0].shape[0]
        size = fixed if isinstance(fixed, int) else SAMPLES
        filled = {name: np.concatenate([a, np.repeat(a[-1:], -len(a) % size, 0)]) for name, a in inputs.items()}
        parts = [session.run(None, {name: a[i:i + size] for name, a in filled.items()}) for i in range(0, SAMPLES, size)]
        expected = {o.name: np.concatenate(p)[:SAMPLES] for o, p in zip(session.get_outputs(), zip(*parts))}
        with tempfile.TemporaryDirectory() as name:
            directory = pathlib.Path(name)
            np.savez(directory / "data.npz", **inputs)
            for ending in (".npz", ".jsonl", ".csv"):
                path = directory / ("p" + ending)
                subprocess.run([halfstep, "predict", model, "--data", directory / "data.npz", "--batch", str(BATCH), "--precision", "fp32", "--device", "cpu", "-o", path],
                               check=True, stderr=subprocess.DEVNULL)
                found = read(path)
                if ending == ".csv":
                    found = {next(iter(expected)): found[""].reshape(next(iter(expected.values())).shape)} if len(expected) == 1 else expected
                if found.keys() != expected.keys():
                    sys.exit(f"{model}: outputs {sorted(found)}, ONNX Runtime has {sorted(expected)}")
                for output, values in expected.items():
                    difference = float(np.abs(found[output] - values).max() / max(1e-6, np.abs(values).max()))
                    worst[pathlib.Path(model).name] = max(worst.get(pathlib.Path(model).name, 0), difference)
    if not worst:
        sys.exit("no model was compared")
    for model, difference in worst.items():
        print(f"{model}: {difference:.1e} of the largest value")
    if max(worst.values()) > 2e-5:
        sys.exit("outputs differ")


main()
