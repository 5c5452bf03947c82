"""check, inspect, compile, load, and the errors they raise."""

import os
import subprocess
import sys

import pytest
from conftest import BATCH, MLP, ROOT

import halfstep


def test_a_good_model_has_no_problems():
    assert halfstep.check(MLP, batch=BATCH) == []


def test_every_problem_is_told(tmp_path):
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(halfstep.Error, match="text.onnx") as told:
        halfstep.check(tmp_path / "text.onnx")
    assert told.value.code == "error"
    with pytest.raises(halfstep.Error) as told:
        halfstep.check(MLP, batchs=8, precision="fp17")
    assert "'batch'" in str(told.value) and "fp17" in str(told.value)
    assert "did you mean 'batch'?" in told.value.hint


def test_an_error_names_the_node(tmp_path):
    with pytest.raises(halfstep.Error) as told:
        halfstep.compile(ROOT / "python" / "tests" / "wrong_sizes.onnx", tmp_path / "step")
    assert (told.value.code, told.value.node) == ("error", "fc one"), str(told.value)
    assert not (tmp_path / "step").exists()


def test_inspect_gives_rows():
    rows = halfstep.inspect(MLP, batch=BATCH, precision="bf16")
    products = [row for row in rows if row["op"] == "Gemm"]
    assert len(products) == 3
    assert all(row["operand"] == "bf16" and row["accumulator"] == "f32" for row in products)
    assert all(set(row) == {"node", "op", "operand", "accumulator", "result", "reason"} for row in rows)


def test_compile_without_a_directory_leaves_none():
    step = halfstep.compile(MLP, batch=BATCH, device="cpu", optimizer="adam", momentum=0.9)
    assert any("momentum has no effect" in remark for remark in step.remarks)
    kept = step._directory.name
    assert os.path.isdir(kept)
    step.close()
    assert not os.path.exists(kept) and step.closed


def test_load_refuses_what_is_no_step(tmp_path, directory):
    with pytest.raises(halfstep.Error, match="cannot load compiled step"):
        halfstep.load(tmp_path)
    with pytest.raises(halfstep.Error, match="no option 'thread' .* did you mean 'threads'"):
        halfstep.load(directory, thread=1)
    with pytest.raises(halfstep.Error, match="was compiled for cpu, cuda is asked for") as told:
        halfstep.load(directory, device="cuda")
    assert told.value.hint


def test_cuda_without_cuda_is_an_error(tmp_path):
    """Without a driver compiling for it works where the architecture is named; loading does not."""
    code = ("import sys, halfstep\n"
            "try:\n"
            f"    halfstep.compile({str(MLP)!r}, {str(tmp_path / 'cuda')!r}, batch=16, device='cuda')\n"
            "except halfstep.Error as e:\n"
            "    print(e.code, e)\n"
            "    sys.exit(3)\n")
    ended = subprocess.run([sys.executable, "-c", code], env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
                           capture_output=True, text=True, check=False)
    assert ended.returncode == 3, ended
    assert ended.stdout.startswith("error device 'cuda': "), ended.stdout


def test_the_version_is_the_library_s():
    assert halfstep.__version__ == halfstep._native.version()
