#!/usr/bin/env python3
"""TensorBoard reads the event files of a run: scalars, histograms of the weights, the recipe.

usage: tensorboard_test.py HALFSTEP MODEL
Exits with 77 where Python has no tensorboard.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError:
    sys.exit(77)


def expect(holds, what):
    if not holds:
        sys.exit("failed: " + what)


def main():
    halfstep, model = sys.argv[1:]
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        np.savez(directory / "d.npz", images=random.random((64, 1, 28, 28), dtype=np.float32), labels=random.integers(0, 10, 64))
        run = directory / "run"
        subprocess.run([halfstep, "train", model, "--data", directory / "d.npz", "--test_data", directory / "d.npz", "--batch", "16", "--epochs", "2", "--measures", "f1",
                        "--tensorboard", "true", "--device", "cpu", "--out", run, "--json"], check=True, stdout=subprocess.DEVNULL)
        events = EventAccumulator(str(run / "tensorboard"), size_guidance={"histograms": 0, "scalars": 0, "tensors": 0})
        events.Reload()
        tags = events.Tags()
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        steps = [line for line in lines if line["kind"] == "step"]
        losses = events.Scalars("train/loss")
        expect([e.step for e in losses] == [line["step"] for line in steps], "a scalar for each step")
        expect(np.allclose([e.value for e in losses], [line["loss"] for line in steps], rtol=1e-6), "losses are those of metrics.jsonl")
        epochs = [line for line in lines if line["kind"] == "epoch"]
        expect(np.allclose([e.value for e in events.Scalars("test/f1")], [line["test_f1"] for line in epochs], rtol=1e-6), "measures of each epoch")
        weights = [tag for tag in tags["tensors"] + tags["histograms"] if tag.startswith("weights/")]
        expect(len(weights) == 8, f"a histogram for each of LeNet's weights, not {weights}")
        histogram = events.Histograms(weights[0])[-1].histogram_value if tags["histograms"] else None
        expect(histogram is None or abs(sum(histogram.bucket) - histogram.num) < 1e-9, "all values are counted")
        text = events.Tensors("recipe")[0].tensor_proto.string_val[0].decode()
        expect("epochs = 2" in text, "the recipe is there as text")
    print("TensorBoard reads", len(losses), "steps,", len(weights), "histograms and the recipe")


main()
