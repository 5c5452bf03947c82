"""A compiled step on its device."""

from __future__ import annotations

import os
from numbers import Integral
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Mapping, NamedTuple, Optional, Union

import numpy as np

from . import _native
from ._errors import Error
from ._options import pairs

Path = Union[str, "os.PathLike[str]"]
Array = Any  # NumPy's, or anything with __dlpack__

_NUMPY = {"f16": "float16", "f32": "float32", "f64": "float64", "u8": "uint8", "i8": "int8", "i32": "int32",
          "i64": "int64", "bool": "bool"}


class Value(NamedTuple):
    """What a step takes or gives."""

    name: str
    dtype: str  # "f32", "i64"
    shape: tuple[int, ...]


class Finished(NamedTuple):
    """An optimizer step that the device has finished."""

    step: int
    loss: float
    loss_scale: float
    skipped: bool  # gradients were not finite: the weights stayed


def _numbers_of(state: Mapping[str, Any], where: str, problems: list[str]) -> tuple[float, float, float, int, int]:
    """The five of a ``torch.amp.GradScaler``'s state; what is wrong with them goes to ``problems``."""
    keys = ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")
    found = [f"'{key}' is missing" for key in keys if key not in state]
    found += [f"unknown '{key}'" for key in state if key not in keys]
    found += [
        f"'{key}': a whole number expected, found {state[key]!r}"
        for key in ("growth_interval", "_growth_tracker")
        if key in state and (isinstance(state[key], bool) or not isinstance(state[key], Integral))
    ]
    problems += [f"{where}: {problem}" for problem in found]
    if found:
        return 0.0, 0.0, 0.0, 0, 0
    scale, growth, backoff, interval, tracker = (state[key] for key in keys)
    return float(scale), float(growth), float(backoff), int(interval), int(tracker)


class Step:
    """A compiled training step with its weights. One thread uses it at a time; the GIL is released meanwhile.

    Arrays are NumPy's or any with ``__dlpack__`` (a PyTorch tensor on the CPU or on the step's GPU); they are read where
    they lie and must be contiguous, of the types and shapes of ``inputs``.
    """

    def __init__(self, directory: Path, **options: Any) -> None:
        """Loads what ``compile`` wrote. Options: device, threads, seed, tf32, autotune, device_index."""
        self._native = _native.Step(os.fspath(directory), pairs(options))
        self._directory: Optional[TemporaryDirectory[str]] = None
        #: what the compiler had to say
        self.remarks: list[str] = []
        #: the CUDA stream (its handle, a number) on which GPU arrays are written; 0: PyTorch's current one for its
        #: tensors, else the default stream
        self.stream = 0
        self._outputs: dict[str, list[Value]] = {}

    @property
    def inputs(self) -> list[Value]:
        """Of ``train_step`` and ``evaluate``: the model's inputs, then labels where the loss takes them."""
        return [Value(*value) for value in self._native.values("train", False)]

    def outputs(self, program: str = "evaluate") -> list[Value]:
        """Of ``evaluate`` or ``predict``."""
        if program not in self._outputs:
            self._outputs[program] = [Value(*value) for value in self._native.values(program, True)]
        return self._outputs[program]

    @property
    def batch(self) -> int:
        return self.inputs[0].shape[0]

    @property
    def device(self) -> str:
        """"cpu" or "cuda:0"."""
        kind, index = self._native.device()
        return "cpu" if kind == 1 else f"cuda:{index}"

    def train_step(self, **arrays: Array) -> None:
        """Forward, backward, optimizer, on one batch given by the inputs' names. Does not wait for a GPU."""
        self._native.train(arrays, self.stream)

    def train_batch(self, batch: Mapping[str, Array]) -> None:
        """As ``train_step``, for names that are no Python ones."""
        self._native.train(dict(batch), self.stream)

    @property
    def loss(self) -> float:
        """Of the last step; waits for it."""
        return self._native.loss()

    @property
    def losses(self) -> dict[str, float]:
        """Where the step has several: each by its name, as ``loss``, which is their weighted sum."""
        return dict(self._native.losses())

    @property
    def loss_weights(self) -> dict[str, float]:
        """Of several losses, by name."""
        return dict(self._native.loss_weights())

    @property
    def loss_scale(self) -> float:
        return self._native.loss_scale()

    def grad_scaler_state(self) -> dict[str, Any]:
        """Of the loss scale, as ``torch.amp.GradScaler.state_dict()``: its ``load_state_dict`` takes it. Where losses have a
        scale each (recipe key ``loss_scales``), one such state for each, by the loss's name."""
        states = self._native.grad_scalers()
        if not states:
            raise Error("the step has no dynamic loss scale: compile it in fp16, or with loss_scale dynamic")
        return states[""] if "" in states else states

    def load_grad_scaler_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from a ``torch.amp.GradScaler.state_dict()``, or one for each loss by its name. Its factors and interval
        must be those that the step was compiled with."""
        named = bool(state) and all(isinstance(value, Mapping) for value in state.values())
        problems: list[str] = []
        states = [(loss, *_numbers_of(one, f"grad scaler, loss '{loss}'" if loss else "grad scaler", problems))
                  for loss, one in (state if named else {"": state}).items()]
        if problems:
            raise Error("\n".join(problems))
        self._native.set_grad_scalers(states)

    @property
    def skipped(self) -> bool:
        return self._native.skipped()

    def finished(self) -> list[Finished]:
        """The steps that finished since the last call, without waiting."""
        steps = []
        while (told := self._native.next_finished()) is not None:
            steps.append(Finished(*told))
        return steps

    @property
    def step_count(self) -> int:
        return self._native.step_count()

    @property
    def learning_rate(self) -> float:
        return self._native.learning_rate()

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self._native.set_learning_rate(rate)

    def evaluate(self, arrays: Optional[Mapping[str, Array]] = None, /, *, out: Optional[Mapping[str, Array]] = None,
                 **named: Array) -> dict[str, Array]:
        """Runs the model for inference with its loss: "row_loss" and, with classes, "row_correct", by sample; the
        model's own as "outputs/NAME". ``out`` takes what it names, in memory of yours."""
        return self._run("evaluate", dict(arrays or {}, **named), out)

    def predict(self, arrays: Optional[Mapping[str, Array]] = None, /, *, out: Optional[Mapping[str, Array]] = None,
                **named: Array) -> dict[str, Array]:
        """The model's outputs under their names, for one batch."""
        return self._run("predict", dict(arrays or {}, **named), out)

    def begin_measures(self, names: str = "") -> None:
        """Measures over batches, as recipes name them ("f1,auc"; empty: the recipe's): ``measure_batch`` adds to them,
        ``measures`` tells them."""
        self._native.begin_measures(names)

    def measure_batch(self, batch: Mapping[str, Array], rows: int = 0) -> None:
        """Evaluates a batch, whose first ``rows`` samples count (0: all)."""
        self._native.measure(dict(batch), rows, self.stream)

    @property
    def measures(self) -> dict[str, float]:
        """So far: "loss", with classes "accuracy", then the measures; NaN where one is not defined."""
        return dict(self._native.measures())

    def _run(self, program: str, arrays: dict[str, Array], out: Optional[Mapping[str, Array]]) -> dict[str, Array]:
        if out is None:
            out = {v.name: np.empty(v.shape, _NUMPY[v.dtype]) for v in self.outputs(program)}
        results = dict(out)
        self._native.run(program == "predict", arrays, results, self.stream)
        return results

    def parameters(self) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
        """A copy of every weight, by its name in the ONNX file: views of one flat array."""
        flat = self.flat_parameters()
        return {name: flat[offset:offset + count].reshape(shape)
                for name, shape, offset, count, _ in self._native.parameters()}

    @property
    def trainable(self) -> list[str]:
        """The weights that the optimizer changes."""
        return [name for name, _, _, _, trainable in self._native.parameters() if trainable]

    def set_parameters(self, values: Mapping[str, Array]) -> None:
        """Writes the weights named; the others, the optimizer's state and the loss scale stay."""
        flat = self.flat_parameters()
        problems = []
        known = {row[0]: row for row in self._native.parameters()}
        for name, value in values.items():
            if name not in known:
                problems.append(f"no parameter '{name}'; there are {', '.join(sorted(known))}")
                continue
            _, shape, offset, count, _ = known[name]
            array = np.asarray(value, np.float32)
            if array.shape != shape:
                problems.append(f"parameter '{name}' has the shape {array.shape}, expected {shape}")
            else:
                flat[offset:offset + count] = array.ravel()
        if problems:
            raise Error("\n".join(problems))
        self.set_flat_parameters(flat)

    def flat_parameters(self, out: Optional[Array] = None) -> np.ndarray[Any, np.dtype[np.float32]]:
        """All weights in one array of float32, the trainable ones first."""
        if out is None:
            out = np.empty(sum(row[3] for row in self._native.parameters()), np.float32)
        self._native.read_parameters(out)
        flat: np.ndarray[Any, np.dtype[np.float32]] = out
        return flat

    def set_flat_parameters(self, values: Array) -> None:
        self._native.write_parameters(values)

    def save(self, directory: Path, keep: int = 3) -> None:
        """Writes a checkpoint into ``directory`` and keeps the newest ``keep``."""
        self._native.save(os.fspath(directory), keep)

    def restore(self, path: Path) -> None:
        """From a checkpoint, or from the newest of a directory."""
        self._native.restore(os.fspath(path))

    @property
    def epoch_count(self) -> int:
        """Whole epochs so far, as ``set_epochs`` or a restored checkpoint said."""
        return self._native.epoch_count()

    def set_epochs(self, epochs: int, samples: int) -> None:
        """So many epochs of so many samples are done: for ``unfreeze``, and before ``save`` for
        ``halfstep train --resume``. ``Trainer.fit`` says it after each epoch."""
        self._native.set_epochs(epochs, samples)

    def export(self, path: Path, model: Optional[Path] = None) -> None:
        """Writes the trained weights into a copy of the ONNX file, which now lies at ``model`` if it was moved."""
        self._native.export(os.fspath(path), None if model is None else os.fspath(model))

    def close(self) -> None:
        """Gives the device's memory back."""
        self._native.close()
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    @property
    def closed(self) -> bool:
        return self._native.closed

    def __enter__(self) -> Step:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()
