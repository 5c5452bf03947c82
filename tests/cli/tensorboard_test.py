#!/usr/bin/env python3
"""The event files of a run, as TensorBoard reads them where Python has it, and by the format's rules otherwise: scalars, histograms of weights and of gradients, the recipe.

usage: tensorboard_test.py HALFSTEP MODEL [DEVICE]; DEVICE: cpu, cuda
Exits with 77 where Python has no numpy.
"""

import json
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
from types import SimpleNamespace

try:
    import numpy as np
except ImportError:
    sys.exit(77)
try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError:
    EventAccumulator = None

BATCH = 16
DEVICE = sys.argv[3] if len(sys.argv) > 3 else "cpu"


def expect(holds, what):
    if not holds:
        sys.exit("failed: " + what)


def fields(message):
    """Of a protobuf message: [(field, value)], bytes for what has a length."""
    place, found = 0, []

    def varint():
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place, value, shift = place + 1, value | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                return value

    while place < len(message):
        tag = varint()
        if tag & 7 == 0:
            found.append((tag >> 3, varint()))
            continue
        size = {1: 8, 5: 4}.get(tag & 7) or varint()
        found.append((tag >> 3, message[place:place + size]))
        place += size
    return found


def of(message, field):
    return next((value for number, value in fields(message) if number == field), None)


class Events:
    """What EventAccumulator tells, from the records of event.proto and summary.proto."""

    def __init__(self, directory):
        self.scalars, self.histograms, self.texts = {}, {}, {}
        for path in sorted(directory.iterdir()):
            data = path.read_bytes()
            while data:
                (size,) = struct.unpack("<Q", data[:8])
                self.take(data[12:12 + size])
                data = data[16 + size:]

    def take(self, event):
        step, summary, session = of(event, 2), of(event, 5), of(event, 7)
        if session is not None and of(session, 1) == 1:  # it starts again here
            for kind in self.scalars, self.histograms:
                for tag, values in kind.items():
                    kind[tag] = [v for v in values if (v[0] if isinstance(v, tuple) else v.step) < step]
        for value in [v for number, v in fields(summary or b"") if number == 1]:
            tag = of(value, 1).decode()
            if (scalar := of(value, 2)) is not None:
                self.scalars.setdefault(tag, []).append((step, struct.unpack("<f", scalar)[0]))
            if (histogram := of(value, 5)) is not None:
                parts = [struct.unpack("<d", of(histogram, n))[0] for n in (1, 2, 3, 4)]
                self.histograms.setdefault(tag, []).append(SimpleNamespace(step=step, min=parts[0], max=parts[1], num=parts[2], sum=parts[3]))
            if (tensor := of(value, 8)) is not None:
                self.texts[tag] = of(tensor, 8).decode()


def agrees_with_tensorboard(directory, own):
    events = EventAccumulator(str(directory), size_guidance={"histograms": 0, "scalars": 0, "tensors": 0})
    events.Reload()
    for tag, values in own.scalars.items():
        expect([(e.step, np.float32(e.value)) for e in events.Scalars(tag)] == [(s, np.float32(v)) for s, v in values], f"TensorBoard reads the scalars {tag}")
    tags = set(events.Tags()["tensors"]) | set(events.Tags()["histograms"])
    expect(set(own.histograms) <= tags, "TensorBoard reads every histogram")
    for tag in own.histograms if events.Tags()["histograms"] else ():
        value = events.Histograms(tag)[-1].histogram_value
        expect(value.num == own.histograms[tag][-1].num == sum(value.bucket), f"all values of {tag} are counted")
    expect(own.texts["recipe"] in [t.tensor_proto.string_val[0].decode() for t in events.Tensors("recipe")], "and the recipe")


def tensors_of(path):
    """Of a safetensors file, those in f32."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8:8 + size]), data[8 + size:]
    return {name: np.frombuffer(body[slice(*entry["data_offsets"])], np.float32) for name, entry in header.items() if name != "__metadata__" and entry["dtype"] == "F32"}


def train(halfstep, model, directory, name, *more):
    run = directory / name
    subprocess.run([halfstep, "train", model, "--data", directory / "d.npz", "--test_data", directory / "d.npz", "--batch", str(BATCH), "--measures", "f1", "--tensorboard", "true",
                    "--device", DEVICE, "--shuffle", "false", "--out", run, "--json", *more], check=True, stdout=subprocess.DEVNULL)
    return run


def main():
    halfstep, model = sys.argv[1:3]
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        images, labels = random.random((64, 1, 28, 28), dtype=np.float32), random.integers(0, 10, 64)
        np.savez(directory / "d.npz", images=images, labels=labels)
        run = train(halfstep, model, directory, "run", "--epochs", "2")
        events = Events(run / "tensorboard")
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        steps, epochs = ([line for line in lines if line["kind"] == kind] for kind in ("step", "epoch"))
        losses = events.scalars["train/loss"]
        expect([step for step, _ in losses] == [line["step"] for line in steps], "a scalar for each step")
        expect(np.allclose([v for _, v in losses], [line["loss"] for line in steps], rtol=1e-6), "losses are those of metrics.jsonl")
        expect(np.allclose([v for _, v in events.scalars["test/f1"]], [line["test_f1"] for line in epochs], rtol=1e-6), "measures of each epoch")
        weights = [tag for tag in events.histograms if tag.startswith("weights/")]
        expect(len(weights) == 8 == len(events.histograms), f"a histogram for each of LeNet's weights and nothing else, not {list(events.histograms)}")
        expect("epochs = 2" in events.texts["recipe"], "the recipe is there as text")

        # Gradients of the last batch by the weights after it, as `gradients` tells them of the checkpoint; of batches of one step each by itself.
        np.savez(directory / "last.npz", images=images[-BATCH:], labels=labels[-BATCH:])
        plain = [line["loss"] for line in steps]
        for more in (), ("--accumulation", "2"):
            run = train(halfstep, model, directory, "gradients" + "".join(more), "--epochs", "2", "--tensorboard_gradients", "true", *more)
            taken = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            expect(more or np.allclose([line["loss"] for line in taken if line["kind"] == "step"], plain, rtol=0 if DEVICE == "cpu" else 1e-4, atol=0), "training does not notice")
            subprocess.run([halfstep, "gradients", model, "--checkpoint", run / "checkpoints", "--data", directory / "last.npz", "--batch", str(BATCH), "--device", DEVICE, "-o", directory / "g.safetensors"],
                           check=True, stdout=subprocess.DEVNULL)
            events = Events(run / "tensorboard")
            told = {name.removeprefix("gradients/"): values for name, values in tensors_of(directory / "g.safetensors").items() if name.startswith("gradients/")}
            found = {tag.removeprefix("gradients/"): values for tag, values in events.histograms.items() if tag.startswith("gradients/")}
            expect(set(found) == set(told) and len(found) == 8, f"a histogram of each gradient, not {sorted(found)}")
            for tag, values in found.items():
                spread = told[tag][np.arange(min(told[tag].size, 1 << 18)) * told[tag].size // min(told[tag].size, 1 << 18)]  # as tensorboard.h says
                expect(len(values) == 2 and values[-1].num == spread.size, f"{tag}: one each epoch, of all values or evenly spread ones")
                expect(np.allclose([values[-1].min, values[-1].max], [spread.min(), spread.max()], rtol=2e-2, atol=1e-5), f"{tag}: {values[-1]} are the gradients {spread.min()} to {spread.max()}")
            norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in told.values()))
            expect(np.isclose(events.scalars["epoch/gradient_norm"][-1][1], norm, rtol=1e-2), "and the norm of all")
            if EventAccumulator:
                agrees_with_tensorboard(run / "tensorboard", events)
        # A run that went on to its end, and goes on again from before.
        run = train(halfstep, model, directory, "whole", "--epochs", "2", "--checkpoint_every", "2", "--keep", "0")
        shutil.rmtree(run / "checkpoints" / "step-000000008")
        before = Events(run / "tensorboard").scalars["train/loss"]
        train(halfstep, model, directory, "whole", "--epochs", "2", "--resume", run / "checkpoints")
        events = Events(run / "tensorboard")
        expect(events.scalars["train/loss"] == before and len(list((run / "tensorboard").iterdir())) == 2, "each step is shown once")
        if EventAccumulator:
            agrees_with_tensorboard(run / "tensorboard", events)
    print("TensorBoard reads" if EventAccumulator else "without TensorBoard:", len(losses), "steps,", len(weights), "histograms of weights, the gradients and the recipe")


main()
