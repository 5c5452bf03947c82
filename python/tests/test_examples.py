"""The examples that the README shows, and the types of the package."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import MLP, ROOT, samples

EXAMPLES = ROOT / "python" / "examples"


@pytest.mark.parametrize("name", ["train_numpy.py", "train_torch.py"])
def test_an_example_trains(name, tmp_path):
    x, labels = samples(256)
    np.savez(tmp_path / "data.npz", x=x, labels=labels)
    environment = dict(os.environ)
    try:
        import torch  # noqa: F401
    except ImportError:  # the few names that the example uses
        environment["PYTHONPATH"] = str(Path(__file__).parent / "without_torch")
    command = [sys.executable, EXAMPLES / name, MLP, tmp_path / "data.npz", tmp_path / "out.onnx"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    losses = [float(line.split()[-1]) for line in ended.stdout.splitlines() if line.startswith("epoch")]
    assert len(losses) == 5 and losses[-1] < losses[0] / 2
    assert (tmp_path / "out.onnx").exists()


def test_the_package_is_typed(tmp_path):
    mypy = pytest.importorskip("mypy.api")
    use = tmp_path / "use.py"
    use.write_text("import halfstep\nstep: halfstep.Step = halfstep.load('x')\nstep.learning_rate = 'fast'\n")
    told, _, _ = mypy.run(["--strict", "--cache-dir", str(tmp_path), str(use)])
    assert "use.py:3: error: Incompatible types" in told and told.count("error:") == 1, told
    told, _, code = mypy.run(["--strict", "--cache-dir", str(tmp_path), "-p", "halfstep"])
    assert code == 0, told
