"""Halfstep: compiles ONNX models for training in automatic mixed precision, and trains them.

Options are the keys of recipes and of the command line (``halfstep train --help``), as Python values::

    step = halfstep.compile("model.onnx", batch=64, precision="fp16", momentum=0.9)
"""

from __future__ import annotations

import os
from tempfile import TemporaryDirectory
from typing import Any, Optional

from . import _native
from ._errors import Error
from ._options import OF_LOADING, pairs
from ._step import Array, Finished, Path, Step, Value
from ._trainer import Batch, Callback, Trainer

__version__ = _native.version()
__all__ = ["Array", "Batch", "Callback", "Error", "Finished", "Path", "Step", "Trainer", "Value", "check", "compile",
           "inspect", "load"]


def check(model: Path, **options: Any) -> list[str]:
    """Everything that keeps a model (an ONNX file or a recipe) from training; empty: nothing does."""
    return _native.check_model(os.fspath(model), pairs(options))


def inspect(model: Path, **options: Any) -> list[dict[str, str]]:
    """The precision of every node: rows with node, op, operand, accumulator, result ("f16") and reason."""
    return _native.inspect_model(os.fspath(model), pairs(options))


def compile(model: Path, out: Optional[Path] = None, **options: Any) -> Step:
    """Compiles the training step into the directory ``out`` and loads it; None: into one that lives as long as the
    step. ``keep_outputs`` is True unless you say otherwise: ``predict`` needs it. threads, autotune, tf32 and
    device_index are those of ``load``."""
    options.setdefault("keep_outputs", True)
    loading = {key: options.pop(key) for key in OF_LOADING if key in options}
    temporary = TemporaryDirectory(prefix="halfstep-") if out is None else None
    directory = os.path.join(temporary.name, "step") if temporary is not None else os.fspath(out or "")
    try:
        remarks = _native.compile_model(os.fspath(model), pairs(options), directory)
        step = Step(directory, **loading)
    except BaseException:
        if temporary is not None:
            temporary.cleanup()
        raise
    step.remarks = remarks
    step._directory = temporary
    return step


def load(directory: Path, **options: Any) -> Step:
    """Loads a directory that ``compile`` or ``halfstep compile`` wrote. It holds native code: load none that you would
    not run. Options: device, threads, seed, tf32, autotune, device_index."""
    return Step(directory, **options)
