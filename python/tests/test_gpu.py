"""PyTorch's tensors on the GPU, without copies to the host. Skipped without PyTorch and a GPU: on a machine that has both,
pip install the wheel there and run `python -m pytest python/tests/test_gpu.py`."""

import numpy as np
import pytest
from conftest import BATCH, MLP, samples

import halfstep

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no GPU", allow_module_level=True)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    out = tmp_path_factory.mktemp("steps") / "mlp"
    with halfstep.compile(MLP, out, batch=BATCH, precision="fp16", momentum=0.9, learning_rate=0.02, device="cuda"):
        return out


def batches(count):
    x, labels = samples(BATCH * count)
    return [(x[i:i + BATCH], labels[i:i + BATCH]) for i in range(0, BATCH * count, BATCH)]


def trained(directory, of, stream=None):
    with halfstep.load(directory) as step:
        if stream is not None:
            step.stream = stream.cuda_stream
        for x, labels in batches(40):
            x, labels = of(x, labels)
            step.train_step(images=x, labels=labels)
        step.loss  # waits
        assert [f.step for f in step.finished()] == list(range(1, 41))
        return step.flat_parameters()


def on_gpu(x, labels):
    return torch.from_numpy(x).cuda(non_blocking=True), torch.from_numpy(labels).cuda(non_blocking=True)


def test_a_gpu_s_tensors_give_the_host_s_bits(directory):
    host = trained(directory, lambda x, labels: (x, labels))
    np.testing.assert_array_equal(host, trained(directory, on_gpu))
    # Labels from the host beside images from the GPU.
    np.testing.assert_array_equal(host, trained(directory, lambda x, labels: (on_gpu(x, labels)[0], labels)))


def test_work_on_a_stream_of_its_own_is_waited_for(directory):
    """Each batch is made by slow work on a side stream and its memory is used again at once."""
    host = trained(directory, lambda x, labels: (x, labels))
    stream = torch.cuda.Stream()
    memory = torch.empty(BATCH, 1, 28, 28, device="cuda")

    def made(x, labels):
        with torch.cuda.stream(stream):
            memory.fill_(float("nan"))
            torch.cuda._sleep(5_000_000)
            memory.copy_(torch.from_numpy(x).pin_memory(), non_blocking=True)
            return memory, torch.from_numpy(labels)

    with torch.cuda.stream(stream):
        np.testing.assert_array_equal(host, trained(directory, made))  # PyTorch's current stream
        np.testing.assert_array_equal(host, trained(directory, made, stream))


def test_the_host_does_not_wait_for_images(directory):
    x, labels = batches(1)[0]
    images = torch.from_numpy(x).cuda()
    with halfstep.load(directory) as step:
        step.train_step(images=images, labels=labels)
        step.loss
        torch.cuda.synchronize()
        start, end = torch.cuda.Event(), torch.cuda.Event()
        start.record()
        torch.cuda._sleep(200_000_000)  # 0.1 s
        end.record()
        step.train_step(images=images, labels=labels)
        assert not end.query()  # it returned while the GPU still slept


def test_images_are_copied_on_the_device(directory):
    from torch.profiler import ProfilerActivity, profile

    x, labels = batches(1)[0]
    images = torch.from_numpy(x).cuda()
    with halfstep.load(directory) as step:
        step.train_step(images=images, labels=labels)
        step.loss
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            step.train_step(images=images, labels=labels)
            step.loss
            torch.cuda.synchronize()
    names = [event.key for event in profiled.key_averages()]
    assert any("Memcpy DtoD" in name for name in names), names


def test_outputs_on_the_gpu(directory):
    x, _ = batches(1)[0]
    with halfstep.load(directory) as step:
        name = step.outputs("predict")[0].name
        mine = torch.empty(BATCH, 10, device="cuda")
        step.predict(images=torch.from_numpy(x).cuda(), out={name: mine})
        np.testing.assert_array_equal(mine.cpu().numpy(), step.predict(images=x)[name])


def test_what_does_not_fit_is_refused(directory):
    x, labels = batches(1)[0]
    images, wrong = torch.from_numpy(x).cuda(), torch.from_numpy(labels).cuda()
    with halfstep.load(directory) as step:
        with pytest.raises(halfstep.Error, match="input 'images' is not contiguous"):
            step.train_step(images=images.transpose(2, 3), labels=labels)
        wrong[3] = 10
        with pytest.raises(halfstep.Error, match="sample 3 has label 10, expected 0 to 9"):
            step.train_step(images=images, labels=wrong)
    with halfstep.compile(MLP, batch=BATCH, device="cpu") as step:
        with pytest.raises(halfstep.Error, match="input 'images' lies on cuda:0, the step runs on the CPU") as told:
            step.train_step(images=images, labels=labels)
        assert "in host memory" in told.value.hint
