#!/usr/bin/env python3
"""A new head on a frozen backbone, and on one that is trained, beside PyTorch.

usage: tools/compare_fine_tuning.py HALFSTEP [--record]        needs torch, numpy, onnx

The network of models/shapes/shapes.py with the weights of shapes.onnx gets a head of three classes, in PyTorch and by --resize_head; PyTorch's takes
the weights that ours begins with. Ten steps of SGD with momentum in fp32 on corners.npz in its order: losses must agree to 2e-5. A batch norm whose statistics
are frozen is one in evaluation mode. --record writes tests/references/fine_tuning.json, to which the test Transfer holds ours."""
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHAPES = ROOT / "models/shapes"
COMMON = ["--resize_head", "3", "--scale", "0.00392157", "--precision", "fp32", "--shuffle", "false", "--batch", "12", "--max_steps", "10", "--epochs", "2",
          "--momentum", "0.9", "--device", "cpu", "--seed", "5"]
RUNS = {"head_alone": ["--freeze", "*", "--train", "head.*", "--learning_rate", "0.05"],
        "all": ["--learning_rate", "0.01"],
        "statistics_move": ["--freeze", "features.*.weight,features.*.bias", "--learning_rate", "0.05"]}


def network():
    net = nn.Sequential()
    net.add_module("features", nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
                                             nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()))
    net.add_module("head", nn.Linear(16 * 9, 3))
    return net


def halfstep(executable, arguments, out):
    command = [executable, "train", SHAPES / "shapes.onnx", "--data", SHAPES / "corners.npz", "--out", out, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    rows = [json.loads(line) for line in open(out / "metrics.jsonl")]
    return [row["loss"] for row in rows if row["kind"] == "step"]


def head_of(executable, arguments, out):
    """The weights that a run begins with: those after a step of rate 0."""
    still = [a for a in arguments]
    still[still.index("--learning_rate") + 1] = "0"
    still[still.index("--max_steps") + 1] = "1"
    halfstep(executable, still, out)
    model = onnx.load(out / "shapes.trained.onnx")
    return {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in model.graph.initializer}


def pytorch(name, start):
    net = network()
    file = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in onnx.load(SHAPES / "shapes.onnx").graph.initializer}
    state = net.state_dict()
    for key in state:
        if not key.endswith("num_batches_tracked"):
            state[key] = start[key] if key.startswith("head.") else file[key]
    net.load_state_dict(state)
    net.train()
    if name == "head_alone":
        net.features.eval()
    if name != "all":
        net.features.requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=float(RUNS[name][RUNS[name].index("--learning_rate") + 1]), momentum=0.9)
    data = np.load(SHAPES / "corners.npz")
    images, labels = torch.from_numpy(data["images"].astype(np.float32)) * 0.00392157, torch.from_numpy(data["labels"])
    losses = []
    for step in range(10):
        at = step * 12 % len(labels)
        loss = nn.functional.cross_entropy(net(images[at:at + 12]), labels[at:at + 12])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def main():
    executable, record = sys.argv[1], "--record" in sys.argv[2:]
    recorded, failed = {"runs": {}}, False
    with tempfile.TemporaryDirectory() as name:
        for run, arguments in RUNS.items():
            everything = [*COMMON, *arguments]
            ours = halfstep(executable, everything, pathlib.Path(name) / run)
            theirs = pytorch(run, head_of(executable, everything, pathlib.Path(name) / (run + ".start")))
            apart = max(abs(a - b) / b for a, b in zip(ours, theirs))
            failed |= not apart <= 2e-5 or len(ours) != 10
            print(f"{run}: {theirs[0]:.6f} to {theirs[-1]:.6f}, at most {apart:.1e} apart")
            recorded["runs"][run] = {"arguments": everything, "losses": theirs}
    if record:
        (ROOT / "tests/references/fine_tuning.json").write_text(json.dumps(recorded, indent=1) + "\n")
    sys.exit(failed)


if __name__ == "__main__":
    main()
