"""A training loop over batches, with callbacks."""

from __future__ import annotations

from typing import Any, Callable, Iterable, Mapping, Optional, Sequence, Union

import numpy as np

from ._errors import Error
from ._step import Array, Finished, Step

Batch = Union[Mapping[str, Array], Sequence[Array]]


class Callback:
    """What a trainer calls; each does nothing. Setting ``trainer.stop`` ends training after the present batch."""

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None: ...

    def on_step(self, trainer: Trainer, finished: Finished) -> None:
        """Of each optimizer step when its loss is there: on a GPU some batches later."""

    def on_epoch_end(self, trainer: Trainer, epoch: int, metrics: dict[str, float]) -> None: ...


class _Sums:
    """Of one loss over the labels that count, in samples, by their weights."""

    def __init__(self) -> None:
        self.loss = self.weighed = self.counted = 0.0
        self.correct: Optional[float] = None

    def add(self, rows: Mapping[str, Array]) -> None:
        self.loss += float(rows["loss"].sum())
        counted = float(rows["counted"].sum()) if "counted" in rows else len(rows["loss"])
        self.counted += counted
        self.weighed += float(rows["weighed"].sum()) if "weighed" in rows else counted
        if "correct" in rows:
            self.correct = (self.correct or 0.0) + float(rows["correct"].sum())

    def metrics(self, suffix: str) -> dict[str, float]:
        metrics = {"loss" + suffix: self.loss / self.weighed}
        if self.correct is not None:
            metrics["accuracy" + suffix] = self.correct / self.counted
        return metrics


class Trainer:
    """Trains a step on batches: mappings by the inputs' names, or sequences in the order of ``step.inputs`` (what a
    PyTorch DataLoader gives). Every batch has the size the step was compiled for: drop the last one (``drop_last=True``)
    or leave it to ``evaluate``, which fills it up."""

    def __init__(self, step: Step, callbacks: Iterable[Callback] = ()) -> None:
        self.step = step
        self.callbacks = list(callbacks)
        self.stop = False

    def fit(self, data: Iterable[Batch], epochs: int = 1, callbacks: Iterable[Callback] = (), *,
            evaluation: Optional[Iterable[Batch]] = None,
            schedule: Optional[Callable[[int], float]] = None) -> list[dict[str, float]]:
        """Goes over ``data`` ``epochs`` times; the metrics of each. ``schedule`` gives the rate of each step by its
        number. ``evaluation`` adds what ``evaluate`` gives."""
        all_callbacks = [*self.callbacks, *callbacks]
        history = []
        self.stop = False
        self.step.finished()  # of steps before
        for epoch in range(epochs):
            for callback in all_callbacks:
                callback.on_epoch_begin(self, epoch)
            losses: list[Finished] = []
            batches = 0
            for batch in data:
                if schedule is not None:
                    self.step.learning_rate = schedule(self.step.step_count)
                self.step.train_batch(self.named(batch))
                batches += 1
                self._tell(losses, all_callbacks)
                if self.stop:
                    break
            if batches == 0:
                raise Error(f"epoch {epoch}: the data gave no batch: give a list or a loader, which can be read again",
                            hint="give a list or a loader, which can be read again")
            self.step.loss  # waits
            if not self.stop:
                self.step.set_epochs(self.step.epoch_count + 1, batches * self.step.batch)
            self._tell(losses, all_callbacks)
            taken = [f.loss for f in losses if not f.skipped]
            metrics = {"loss": float(np.mean(taken)) if taken else float("nan"),
                       "skipped": float(sum(f.skipped for f in losses))}
            if evaluation is not None:
                metrics.update({"evaluation_" + k: v for k, v in self.evaluate(evaluation).items()})
            history.append(metrics)
            for callback in all_callbacks:
                callback.on_epoch_end(self, epoch, metrics)
            if self.stop:
                break
        return history

    def evaluate(self, data: Iterable[Batch], measures: Union[str, Sequence[str]] = ()) -> dict[str, float]:
        """Mean "loss" and, with classes, "accuracy" over all samples; a short batch is filled up with its last sample,
        which does not count again. Of several losses "loss" is the weighted sum, beside "loss.NAME" and
        "accuracy.NAME". ``measures`` names more, as recipes do: "f1,auc"."""
        if measures:
            self.step.begin_measures(measures if isinstance(measures, str) else ",".join(measures))
            samples = 0
            for batch in data:
                rows, arrays = self._filled(self.named(batch))
                self.step.measure_batch(arrays, rows)
                samples += rows
            if samples == 0:
                raise Error("the data has no sample that counts")
            return self.step.measures
        weights = self.step.loss_weights
        suffixes = [f".{i}" for i in range(len(weights))] or [""]
        sums = [_Sums() for _ in suffixes]
        wanted = [v for v in self.step.outputs() if v.name.startswith("row_")]
        for batch in data:
            rows, arrays = self._filled(self.named(batch))
            results = self.step.evaluate(arrays, out={v.name: np.empty(v.shape, np.float32) for v in wanted})
            for each, suffix in zip(sums, suffixes):
                each.add({name: results[f"row_{name}{suffix}"][:rows] for name in ("loss", "correct", "counted", "weighed")
                          if f"row_{name}{suffix}" in results})
        if any(each.weighed == 0 for each in sums):
            raise Error("the data has no sample that counts")
        if not weights:
            return sums[0].metrics("")
        metrics = {"loss": sum(weight * each.loss / each.weighed for weight, each in zip(weights.values(), sums))}
        for name, each in zip(weights, sums):
            metrics.update(each.metrics("." + name))
        return metrics

    def named(self, batch: Batch) -> Mapping[str, Array]:
        if isinstance(batch, Mapping):
            return batch
        names = [value.name for value in self.step.inputs]
        if len(batch) != len(names):
            raise Error(f"a batch of {len(batch)} arrays, the step takes {len(names)}: {', '.join(names)}")
        return dict(zip(names, batch))

    def _filled(self, batch: Mapping[str, Array]) -> tuple[int, Mapping[str, Array]]:
        size = self.step.batch
        rows = min((len(a) for a in batch.values() if len(getattr(a, "shape", ())) > 0), default=size)
        if rows >= size or rows == 0:
            return size, batch
        filled = {}
        for name, array in batch.items():
            host: Any = array.cpu().numpy() if hasattr(array, "cpu") else np.asarray(array)
            filled[name] = np.concatenate([host, np.repeat(host[-1:], size - rows, 0)])
        return rows, filled

    def _tell(self, losses: list[Finished], callbacks: Iterable[Callback]) -> None:
        for finished in self.step.finished():
            losses.append(finished)
            for callback in callbacks:
                callback.on_step(self, finished)
