"""Arrays of every kind go in without copies; those that do not fit are refused by name, and nothing changes."""

import numpy as np
import pytest
from conftest import BATCH

import halfstep


class Dlpack:
    """An array that shows itself through DLPack alone, as other libraries' do."""

    def __init__(self, array, device=(1, 0)):
        self.array, self.device = array, device

    @property
    def shape(self):
        return self.array.shape

    def __dlpack__(self, **arguments):
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return self.device


def losses(step, batches):
    result = []
    for x, labels in batches:
        step.train_step(images=x, labels=labels)
        result.append(step.loss)
    return result


def test_every_kind_gives_the_same_bits(directory, batch):
    x, labels = batch
    read_only = x.copy()
    read_only.flags.writeable = False
    kinds = [(x, labels), (Dlpack(x), Dlpack(labels)), (memoryview(x), memoryview(labels)), (read_only, labels)]
    told = []
    for kind in kinds:
        with halfstep.load(directory, threads=1) as step:
            told.append(losses(step, [kind] * 3))
    assert all(t == told[0] for t in told)


def refused(step, parts, **arrays):
    before = step.flat_parameters()
    for call in (step.train_step, step.evaluate):
        with pytest.raises(halfstep.Error) as told:
            call(**arrays)
        assert told.value.code == "invalid_argument"
        for part in parts:
            assert part in str(told.value)
    np.testing.assert_array_equal(before, step.flat_parameters())
    return told.value


def test_what_does_not_fit_is_refused(step, batch):
    x, labels = batch
    error = refused(step, ["input 'images' is not contiguous", "numpy.ascontiguousarray"],
                    images=x[..., ::-1], labels=labels)
    assert error.hint.startswith("give a contiguous copy")
    refused(step, ["is not contiguous"], images=np.asfortranarray(x), labels=labels)
    refused(step, ["is not contiguous"], images=Dlpack(np.asfortranarray(x)), labels=labels)
    refused(step, ["input 'images' is f64[16,1,28,28], expected f32[16,1,28,28]"], images=x.astype(float),
            labels=labels)
    refused(step, ["input 'images' is f32[8,1,28,28], expected f32[16,1,28,28]"], images=x[:8], labels=labels)
    refused(step, ["input 'images' is f32[16,784]"], images=x.reshape(BATCH, 784), labels=labels)
    refused(step, ["input 'labels' i64[16] is missing"], images=x)
    assert refused(step, ["no input 'label'"], images=x, label=labels).hint.startswith("did you mean 'labels'?")
    refused(step, ["'labels' has elements of the format 'H'", "convert it"], images=x, labels=labels.astype(np.uint16))
    refused(step, ["'images'", "complex64"], images=Dlpack(x.astype(np.complex64)), labels=labels)
    refused(step, ["elements of the format '>f'"], images=x.astype(">f4"), labels=labels)
    refused(step, ["'labels' is of type list", "give a NumPy array"], images=x, labels=list(labels))
    refused(step, ["'labels' is of type NoneType"], images=x, labels=None)
    refused(step, ["'labels' is of type int"], images=x, labels=3)


def test_a_label_that_is_no_class(step, batch):
    x, labels = batch
    labels = labels.copy()
    labels[5] = 10
    with pytest.raises(halfstep.Error, match="sample 5 has label 10, expected 0 to 9"):
        step.train_step(images=x, labels=labels)


def test_a_gpu_s_array_on_the_cpu(step, batch):
    x, labels = batch

    class OnTheGpu(Dlpack):
        def __dlpack__(self, *, stream):
            raise BufferError(f"asked for stream {stream}")

    with pytest.raises(BufferError, match="asked for stream 1"):
        step.train_step(images=OnTheGpu(x, (2, 0)), labels=labels)


def test_outputs_go_into_memory_of_yours(step, batch):
    x, labels = batch
    mine = np.full((BATCH, 10), 7, np.float32)
    name = step.outputs("predict")[0].name
    assert step.predict(images=x, out={name: mine})[name] is mine
    np.testing.assert_array_equal(mine, step.predict(images=x)[name])
    mine.flags.writeable = False
    with pytest.raises(halfstep.Error, match="'" + name + "'"):
        step.predict(images=x, out={name: mine})
    with pytest.raises(halfstep.Error, match="no output 'logit"):
        step.predict(images=x, out={"logitsy": np.zeros((BATCH, 10), np.float32)})
    with pytest.raises(halfstep.Error, match=r"is f32\[10,16\], expected f32\[16,10\]"):
        step.predict(images=x, out={name: np.zeros((10, BATCH), np.float32)})


def test_pytorch_tensors(directory, batch):
    torch = pytest.importorskip("torch")
    x, labels = batch
    with halfstep.load(directory, threads=1) as a, halfstep.load(directory, threads=1) as b:
        tensors = torch.from_numpy(x), torch.from_numpy(labels)
        assert losses(a, [tensors] * 3) == losses(b, [batch] * 3)
        refused(a, ["input 'images' is not contiguous"], images=tensors[0].transpose(2, 3), labels=tensors[1])
        refused(a, ["input 'images' is bf16"], images=tensors[0].bfloat16(), labels=tensors[1])
        with pytest.raises((BufferError, RuntimeError), match="gradient"):
            a.train_step(images=tensors[0].requires_grad_(), labels=tensors[1])
