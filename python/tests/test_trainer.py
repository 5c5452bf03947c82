"""The training loop and its callbacks."""

import numpy as np
import pytest
from conftest import BATCH, MLP, samples

import halfstep


def batches(count, as_dict=False):
    x, labels = samples(BATCH * count)
    pairs = [(x[i:i + BATCH], labels[i:i + BATCH]) for i in range(0, BATCH * count, BATCH)]
    return [{"images": a, "labels": b} for a, b in pairs] if as_dict else pairs


class Log(halfstep.Callback):
    def __init__(self, stop_at=None):
        self.told, self.stop_at = [], stop_at

    def on_epoch_begin(self, trainer, epoch):
        self.told.append(("begin", epoch))

    def on_step(self, trainer, finished):
        self.told.append(("step", finished.step))
        trainer.stop = finished.step == self.stop_at

    def on_epoch_end(self, trainer, epoch, metrics):
        self.told.append(("end", epoch, metrics["loss"]))


def test_it_trains_and_tells(step):
    log = Log()
    history = halfstep.Trainer(step).fit(batches(4), epochs=3, callbacks=[log], evaluation=batches(1))
    assert [t[:2] for t in log.told] == [
        t for e in range(3) for t in [("begin", e), *(("step", 4 * e + i + 1) for i in range(4)), ("end", e)]]
    assert history[-1]["loss"] < history[0]["loss"] and history[-1]["evaluation_accuracy"] == 1


def test_mappings_and_sequences_are_the_same(directory):
    flat = []
    for as_dict in (False, True):
        with halfstep.load(directory, threads=1) as step:
            halfstep.Trainer(step).fit(batches(3, as_dict))
            flat.append(step.flat_parameters())
    np.testing.assert_array_equal(*flat)


def test_a_callback_stops_it(step):
    trainer = halfstep.Trainer(step, [Log(stop_at=2)])
    assert len(trainer.fit(batches(4), epochs=3)) == 1
    assert step.step_count == 2


def test_epochs_count_on_and_unfreeze(tmp_path):
    with halfstep.compile(MLP, batch=BATCH, threads=1, device="cpu", unfreeze=["*=2"]) as step:
        trainer, start = halfstep.Trainer(step), step.flat_parameters()
        trainer.fit(batches(2))
        assert step.epoch_count == 1
        np.testing.assert_array_equal(step.flat_parameters(), start)
        step.save(tmp_path)
        trainer.fit(batches(2))
        trained = step.flat_parameters()
        assert step.epoch_count == 2 and np.any(trained != start)
        step.restore(tmp_path)
        assert step.epoch_count == 1
        trainer.fit(batches(2))
        np.testing.assert_array_equal(step.flat_parameters(), trained)


def test_a_schedule_sets_each_rate(step):
    rates = []
    halfstep.Trainer(step).fit(batches(3), epochs=2, schedule=lambda s: rates.append(s) or 0.01 / (s + 1))
    assert rates == list(range(6)) and step.learning_rate == pytest.approx(0.01 / 6)


def test_evaluation_counts_every_sample_once(step):
    x, labels = samples(BATCH + 5)
    whole = halfstep.Trainer(step).evaluate([(x[:BATCH], labels[:BATCH]), (x[BATCH:], labels[BATCH:])])
    rows = [step.evaluate(images=x[:BATCH], labels=labels[:BATCH])["row_loss"],
            step.evaluate(images=x[5:], labels=labels[5:])["row_loss"][-5:]]
    assert whole["loss"] == pytest.approx(float(np.concatenate(rows).mean()), rel=1e-6)


def test_evaluation_measures_what_recipes_name(tmp_path):
    with halfstep.compile(MLP, tmp_path / "step", batch=BATCH, measures=["f1", "auc"], device="cpu", threads=1) as step:
        x, labels = samples(BATCH + 5)
        data = [(x[:BATCH], labels[:BATCH]), (x[BATCH:], labels[BATCH:])]
        trainer = halfstep.Trainer(step)
        trainer.fit(data[:1], epochs=20)
        measured = trainer.evaluate(data, measures="f1,auc,top2")
        assert list(measured) == ["loss", "accuracy", "f1", "auc", "top2"]
        assert measured["loss"] == pytest.approx(trainer.evaluate(data)["loss"], rel=1e-6)
        assert 0 < measured["f1"] <= 1 and 0.5 < measured["auc"] <= 1 and measured["top2"] >= measured["accuracy"]
        with pytest.raises(halfstep.Error, match="no measure 'f2', did you mean 'f1'"):
            trainer.evaluate(data, measures=["f2"])
        with pytest.raises(halfstep.Error, match="no sample that counts"):
            trainer.evaluate([], measures="f1")


def test_a_row_counts_by_the_labels_that_count():
    sums = halfstep._trainer._Sums()  # of a row with half of its labels ignored, and of a whole one
    sums.add({"loss": np.array([0.5, 2.0]), "counted": np.array([0.5, 1.0]), "correct": np.array([0.5, 0.0])})
    assert sums.metrics("") == {"loss": pytest.approx(2.5 / 1.5), "accuracy": pytest.approx(0.5 / 1.5)}


def test_labels_that_weigh_as_their_classes():
    sums = halfstep._trainer._Sums()
    sums.add({"loss": np.array([1.0, 4.0]), "weighed": np.array([2.0, 0.5]), "correct": np.array([1.0, 0.0])})
    assert sums.metrics("") == {"loss": pytest.approx(5 / 2.5), "accuracy": pytest.approx(0.5)}


def test_lists_of_a_loss():
    losses = [{"output": "a", "class_weights": [1, 2.5]}, {"output": "b", "kind": "mse"}]
    assert halfstep._options.pairs({"losses": losses}) == [("losses", "output=a,class_weights=1:2.5;output=b,kind=mse")]


def test_losses_that_hold_separators_are_refused(tmp_path):
    for losses, problem in (([{"output": "cls,weight=0.25"}], "holds ',' or ';'"), ([{}], "loss 1: it is empty")):
        with pytest.raises(halfstep.Error, match=problem):
            halfstep.compile(MLP, tmp_path / "step", batch=BATCH, losses=losses, device="cpu")


def test_several_losses(tmp_path):
    losses = [{"name": "a"}, {"name": "b", "weight": 0.25, "labels": "others", "label_smoothing": 0.5}]
    with halfstep.compile(MLP, tmp_path / "step", batch=BATCH, losses=losses, device="cpu", threads=1) as step:
        assert step.loss_weights == {"a": 1, "b": 0.25}
        x, labels = samples(BATCH + 5)
        others = labels[::-1].copy()
        step.train_step(images=x[:BATCH], labels=labels[:BATCH], others=others[:BATCH])
        assert step.losses.keys() == {"a", "b"}
        assert step.loss == pytest.approx(step.losses["a"] + 0.25 * step.losses["b"], rel=1e-6)
        metrics = halfstep.Trainer(step).evaluate([(x[:BATCH], labels[:BATCH], others[:BATCH]),
                                                   (x[BATCH:], labels[BATCH:], others[BATCH:])])
        assert metrics["loss"] == pytest.approx(metrics["loss.a"] + 0.25 * metrics["loss.b"], rel=1e-6)
        assert 0 <= metrics["accuracy.b"] <= 1


def test_data_that_does_not_fit(step):
    trainer = halfstep.Trainer(step)
    with pytest.raises(halfstep.Error, match="a batch of 3 arrays, the step takes 2: images, labels"):
        trainer.fit([(1, 2, 3)])
    with pytest.raises(halfstep.Error, match="gave no batch"):
        trainer.fit([])
    once = iter(batches(1))
    with pytest.raises(halfstep.Error, match="gave no batch") as told:
        trainer.fit(once, epochs=2)
    assert "read again" in told.value.hint
    x, labels = samples(5)
    with pytest.raises(halfstep.Error, match=r"is f32\[5,1,28,28\], expected f32\[16,1,28,28\]"):
        trainer.fit([(x, labels)])
