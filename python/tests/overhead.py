"""What one train_step call of Python takes beyond the C API's: overhead.py [--device cuda], in an environment with the wheel and
a C compiler; on a GPU with PyTorch, whose tensors lie there.

The same step of a few microseconds runs in blocks of calls, from C and from Python in turn; the tenth fastest of a hundred
blocks are compared, which other programs disturbed least. Only the calls are timed; on a GPU each waits for the one before."""
import argparse
import ctypes
import subprocess
import tempfile
import time
from pathlib import Path

import halfstep
import numpy as np

HERE = Path(__file__).resolve().parent
LIBRARIES = Path(halfstep.__file__).parent / "lib"
CALLS, BLOCKS, BATCH, FEATURES = 200, 101, 8, 4
DLPACK_DEVICES = {"cpu": 1, "cuda": 2}


def load_c(work):
    shared = f"{work}/overhead.so"
    subprocess.run(["cc", "-std=c11", "-O2", "-shared", "-fPIC", f"-I{HERE.parents[1] / 'include'}", HERE / "overhead.c",
                    "-o", shared, f"-L{LIBRARIES}", "-l:libhalfstep-runtime.so.0", f"-Wl,-rpath,{LIBRARIES}"], check=True)
    c = ctypes.CDLL(shared)
    c.open_step.restype, c.train.restype = ctypes.c_char_p, ctypes.c_double
    c.train.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int32]
    return c


def tensors_of(device, x, labels):
    try:
        import torch
    except ImportError:
        return None
    return torch.from_numpy(x).to(device), torch.from_numpy(labels).to(device)


def block(step, x, labels, wait):
    total = 0
    for _ in range(CALLS):
        start = time.perf_counter_ns()
        step.train_step(x=x, labels=labels)
        total += time.perf_counter_ns() - start
        if wait:
            step.loss
    return total / CALLS


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=DLPACK_DEVICES, default="cpu")
    device = parser.parse_args().device
    on_gpu = device == "cuda"
    x, labels = np.ones((BATCH, FEATURES), np.float32), np.zeros(BATCH, np.int64)
    tensors = tensors_of(device, x, labels)
    pairs = {} if on_gpu else {"NumPy": (x, labels)}
    if tensors is not None:
        pairs["PyTorch"] = tensors
    addresses = [t.data_ptr() for t in tensors] if on_gpu else [x.ctypes.data, labels.ctypes.data]

    with tempfile.TemporaryDirectory() as work:
        step = halfstep.compile(HERE / "tiny.onnx", f"{work}/step", batch=BATCH, precision="fp32", device=device,
                                **({} if on_gpu else {"threads": 1}))
        c = load_c(work)
        told = c.open_step(f"{work}/step".encode(), on_gpu)
        assert told == b"", told
        times = {name: [] for name in ("C", *pairs)}
        for _ in range(BLOCKS):
            times["C"].append(c.train(CALLS, *addresses, BATCH, FEATURES, DLPACK_DEVICES[device]))
            for name, pair in pairs.items():
                times[name].append(block(step, *pair, wait=on_gpu))
        assert min(times["C"]) > 0
        tenth = {name: sorted(of)[BLOCKS // 10] / 1e3 for name, of in times.items()}
        for name, microseconds in tenth.items():
            print(f"{name}: {microseconds:.2f} us a call, {microseconds - tenth['C']:.2f} more than C's")


main()
