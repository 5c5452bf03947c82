#!/usr/bin/env python3
"""Writes shapes.onnx, shapes.npz and corners.npz beside it: the small model and data of docs/first_model.md and docs/fine_tuning.md.

usage: models/shapes/shapes.py        needs numpy, and torch for the model; --data writes the data alone"""
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).parent
SIDE = 12


def draw(kind, g):
    """A bright shape of a kind at a random place on a dark, noisy ground: u8 [1, 12, 12]."""
    image = g.integers(0, 60, (SIDE, SIDE))
    size, ink = int(g.integers(4, 8)), int(g.integers(150, 256))
    y, x = g.integers(0, SIDE - size + 1, 2)
    end = size - 1
    for i in range(size):
        points = {
            "row": [(end // 2, i)], "column": [(i, end // 2)], "cross": [(end // 2, i), (i, end // 2)],
            "square": [(0, i), (end, i), (i, 0), (i, end)], "diagonal": [(i, i)],
            "upper left": [(0, i), (i, 0)], "lower right": [(end, i), (i, end)], "saltire": [(i, i), (i, end - i)],
        }[kind]
        for row, column in points:
            image[y + row, x + column] = ink
    return image[None].astype(np.uint8)


def data(kinds, each, seed):
    g = np.random.default_rng(seed)
    labels = g.permutation(np.repeat(np.arange(len(kinds)), each)).astype(np.int64)
    return {"images": np.stack([draw(kinds[k], g) for k in labels]), "labels": labels}


def write_model():
    import torch
    from torch import nn

    torch.manual_seed(0)
    net = nn.Sequential()
    net.add_module("features", nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
                                             nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()))
    net.add_module("head", nn.Linear(16 * 9, 5))
    torch.onnx.export(net, (torch.randn(2, 1, SIDE, SIDE),), HERE / "shapes.onnx", dynamo=False, opset_version=17, do_constant_folding=False,
                      training=torch.onnx.TrainingMode.TRAINING, input_names=["images"], output_names=["scores"],
                      dynamic_axes={"images": {0: "batch"}, "scores": {0: "batch"}})


if __name__ == "__main__":
    five = ["row", "column", "cross", "square", "diagonal"]
    three = ["upper left", "lower right", "saltire"]
    np.savez_compressed(HERE / "shapes.npz", **data(five, 80, 0))
    np.savez_compressed(HERE / "shapes_test.npz", **data(five, 40, 1))
    np.savez_compressed(HERE / "corners.npz", **data(three, 24, 2))
    np.savez_compressed(HERE / "corners_test.npz", **data(three, 40, 3))
    (HERE / "corners.txt").write_text("".join(name + "\n" for name in three))
    (HERE / "shapes.txt").write_text("".join(name + "\n" for name in five))
    if sys.argv[1:] != ["--data"]:
        write_model()
