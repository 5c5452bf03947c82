"""A step's state: training, rates, parameters, checkpoints, exports, threads."""

import threading
import time

import numpy as np
import pytest
from conftest import BATCH, MLP, samples

import halfstep


def train(step, count=3):
    x, labels = samples(BATCH * count)
    for i in range(count):
        step.train_step(images=x[i * BATCH:][:BATCH], labels=labels[i * BATCH:][:BATCH])


def test_it_says_what_it_takes(step):
    assert step.inputs == [("images", "f32", (BATCH, 1, 28, 28)), ("labels", "i64", (BATCH,))]
    assert {value.name for value in step.outputs()} >= {"row_loss", "row_correct"}
    assert step.outputs("predict")[0].shape == (BATCH, 10)
    assert (step.batch, step.device) == (BATCH, "cpu")


def test_training_lowers_the_loss(step, batch):
    x, labels = batch
    with pytest.raises(halfstep.Error, match="there is no loss yet") as told:
        step.loss
    assert told.value.hint == "call train_step first"
    step.train_step(images=x, labels=labels)
    first = step.loss
    for _ in range(20):
        step.train_batch({"images": x, "labels": labels})
    assert step.loss < first / 2
    told = step.finished()
    assert [f.step for f in told] == list(range(1, 22)) and step.finished() == []
    assert told[0].loss == first and told[-1].loss == step.loss
    assert step.step_count == 21 and not step.skipped and step.loss_scale >= 1
    assert step.evaluate(images=x, labels=labels)["row_correct"].mean() == 1


def test_the_loss_scale_is_that_of_a_grad_scaler(step):
    assert step.grad_scaler_state() == {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5,
                                        "growth_interval": 2000, "_growth_tracker": 0}
    step.load_grad_scaler_state(dict(step.grad_scaler_state(), scale=1024.0, _growth_tracker=1999))
    train(step, 1)
    assert step.loss_scale == 1024
    assert step.grad_scaler_state()["scale"] == 2048 and step.grad_scaler_state()["_growth_tracker"] == 0
    with pytest.raises(halfstep.Error, match="'growth_interval' is 50, the step was compiled with 2000"):
        step.load_grad_scaler_state(dict(step.grad_scaler_state(), growth_interval=50))
    with pytest.raises(halfstep.Error, match="(?s)'scale' is missing.*unknown 'step'"):
        step.load_grad_scaler_state({"step": 1})
    for tracker in (3.9, "2000", True):
        with pytest.raises(halfstep.Error, match="'_growth_tracker': a whole number expected"):
            step.load_grad_scaler_state(dict(step.grad_scaler_state(), _growth_tracker=tracker))


def test_each_loss_may_have_a_scale(tmp_path):
    losses = [{"name": "a", "output": "logits", "labels": "labels"}, {"name": "b", "output": "logits", "labels": "labels", "weight": 0.5}]
    with halfstep.compile(MLP, tmp_path / "step", batch=BATCH, precision="fp16", losses=losses, loss_scales="each", device="cpu") as step:
        state = step.grad_scaler_state()
        assert set(state) == {"a", "b"} and state["b"]["scale"] == 65536
        step.load_grad_scaler_state({"a": state["a"], "b": dict(state["b"], scale=1024.0)})
        train(step, 1)
        assert step.grad_scaler_state()["b"]["scale"] == 1024 and step.grad_scaler_state()["b"]["_growth_tracker"] == 1
        with pytest.raises(halfstep.Error, match="(?s)loss 'a': 'scale' is missing.*loss 'b': unknown 'step'"):
            step.load_grad_scaler_state({"a": {k: v for k, v in state["a"].items() if k != "scale"}, "b": dict(state["b"], step=1)})
        with pytest.raises(halfstep.Error, match="that of loss 'b' is missing"):
            step.load_grad_scaler_state({"a": state["a"]})
        step.load_grad_scaler_state(dict(state["a"], scale=256.0))
        assert {name: one["scale"] for name, one in step.grad_scaler_state().items()} == {"a": 256, "b": 256}


def test_the_rate_is_that_of_the_next_step(step):
    assert step.learning_rate == pytest.approx(0.05)
    step.learning_rate = 0
    before = step.flat_parameters()
    train(step, 1)
    np.testing.assert_array_equal(before, step.flat_parameters())
    with pytest.raises(halfstep.Error, match="learning rate"):
        step.learning_rate = -1


def test_parameters_by_name(step):
    parameters = step.parameters()
    assert sorted(parameters) == sorted(step.trainable)
    name = max(parameters, key=lambda n: parameters[n].size)
    parameters[name] = np.full_like(parameters[name], 0.5)
    step.set_parameters({name: parameters[name]})
    np.testing.assert_array_equal(step.parameters()[name], parameters[name])
    with pytest.raises(halfstep.Error) as told:
        step.set_parameters({"nothing": 0, name: np.zeros(3)})
    assert "no parameter 'nothing'" in str(told.value) and f"parameter '{name}' has the shape (3,)" in str(told.value)
    with pytest.raises(halfstep.Error, match="finite"):
        step.set_parameters({name: np.full_like(parameters[name], np.nan)})
    with pytest.raises(halfstep.Error, match="floats"):
        step.set_flat_parameters(np.zeros(3, np.float32))
    with pytest.raises(halfstep.Error, match="one contiguous array of float32"):
        step.set_flat_parameters(step.flat_parameters().astype(float))


def test_checkpoints_go_on(directory, step, tmp_path):
    train(step)
    step.save(tmp_path / "checkpoints")
    with halfstep.load(directory, threads=1) as other:
        other.restore(tmp_path / "checkpoints")
        assert other.step_count == 3
        train(step), train(other)
        np.testing.assert_array_equal(step.flat_parameters(), other.flat_parameters())
    with pytest.raises(halfstep.Error, match="nowhere"):
        step.restore(tmp_path / "nowhere")


def test_exports_are_models(step, tmp_path):
    train(step)
    step.export(tmp_path / "a.onnx")
    step.export(tmp_path / "b.onnx", model=MLP)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert halfstep.check(tmp_path / "a.onnx", batch=BATCH) == []
    with halfstep.compile(tmp_path / "a.onnx", batch=BATCH, device="cpu", threads=1) as trained:
        np.testing.assert_array_equal(trained.flat_parameters(), step.flat_parameters())


def test_a_closed_step_is_refused(directory, batch):
    step = halfstep.load(directory, threads=1)
    step.close()
    step.close()
    x, labels = batch
    for call in (lambda: step.train_step(images=x, labels=labels), step.parameters, lambda: step.loss,
                 lambda: step.save("x"), lambda: step.inputs):
        with pytest.raises(halfstep.Error, match="the step is closed") as told:
            call()
        assert (told.value.code, told.value.hint) == ("invalid_argument", "load it again")


def test_steps_of_two_threads_run_at_once(directory):
    results = [None, None]

    def run(place):
        with halfstep.load(directory, threads=1) as own:
            train(own, 20)
            results[place] = own.flat_parameters()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(*results)


def test_one_step_is_one_thread_s(step, batch):
    """Who comes while another thread's step runs is refused, and can come: the GIL is free meanwhile."""
    x, labels = batch
    refusals = []
    until = time.monotonic() + 60

    def run():
        while not refusals and time.monotonic() < until:
            try:
                step.train_step(images=x, labels=labels)
            except halfstep.Error as error:
                refusals.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refusals and all("another thread is using the step" in refusal for refusal in refusals)


def test_a_step_is_free_while_its_last_user_waits_for_the_gil(step):
    """One thread asks all the time; the other's calls are refused now and then, never all of them."""
    go_on = threading.Event()

    def ask():
        while not go_on.is_set():
            try:
                step.step_count
            except halfstep.Error:
                pass

    thread = threading.Thread(target=ask)
    thread.start()
    answered = 0
    until = time.monotonic() + 60
    try:
        while answered < 100 and time.monotonic() < until:
            try:
                step.learning_rate
                answered += 1
            except halfstep.Error:
                pass
    finally:
        go_on.set()
        thread.join()
    assert answered == 100
