"""A small classifier of the repository, separable data for it, and steps that are closed after each test."""

from pathlib import Path

import numpy as np
import pytest

import halfstep

ROOT = Path(__file__).resolve().parents[2]
MLP = ROOT / "models" / "mlp.onnx"
BATCH = 16


def samples(count):
    """x f32[count,1,28,28] and labels i64[count]: two bright rows of pixels for each class."""
    labels = np.arange(count, dtype=np.int64) % 10
    x = 0.1 * np.random.default_rng(7).standard_normal((count, 1, 28, 28)).astype(np.float32)
    for row in (0, 1):
        x[np.arange(count), 0, labels * 2 + row] += 3
    return x, labels


@pytest.fixture(scope="session")
def directory(tmp_path_factory):
    out = tmp_path_factory.mktemp("steps") / "mlp"
    with halfstep.compile(MLP, out, batch=BATCH, precision="fp16", momentum=0.9, learning_rate=0.05, device="cpu",
                          threads=1):
        return out


@pytest.fixture
def step(directory):
    with halfstep.load(directory, threads=1) as loaded:
        yield loaded


@pytest.fixture
def batch():
    return samples(BATCH)
