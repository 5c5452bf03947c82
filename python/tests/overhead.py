"""What one train_step call of Python takes beyond the C API's: overhead.py, in an environment with the wheel and a C compiler.

The same step of a few microseconds runs in blocks of calls, from C and from Python in turn; the tenth fastest of a hundred
blocks are compared, which other programs disturbed least."""
import ctypes
import subprocess
import tempfile
import time
from pathlib import Path

import halfstep
import numpy as np

HERE = Path(__file__).resolve().parent
LIBRARIES = Path(halfstep.__file__).parent / "lib"
CALLS, BLOCKS, BATCH = 200, 101, 8

with tempfile.TemporaryDirectory() as work:
    shared = f"{work}/overhead.so"
    subprocess.run(["cc", "-std=c11", "-O2", "-shared", "-fPIC", f"-I{HERE.parents[1] / 'include'}", HERE / "overhead.c",
                    "-o", shared, f"-L{LIBRARIES}", "-l:libhalfstep-runtime.so.0", f"-Wl,-rpath,{LIBRARIES}"], check=True)
    step = halfstep.compile(HERE / "tiny.onnx", f"{work}/step", batch=BATCH, precision="fp32", device="cpu", threads=1)
    c = ctypes.CDLL(shared)
    c.open_step.restype, c.train.restype = ctypes.c_char_p, ctypes.c_double
    told = c.open_step(f"{work}/step".encode())
    assert told == b"", told
    x = np.ones((BATCH, 4), np.float32)
    labels = np.zeros(BATCH, np.int64)
    of_c, of_python, of_torch = [], [], []
    tensors = None
    try:
        import torch

        tensors = torch.from_numpy(x), torch.from_numpy(labels)
    except ImportError:
        pass

    def block(a, b):
        start = time.perf_counter_ns()
        for _ in range(CALLS):
            step.train_step(x=a, labels=b)
        return (time.perf_counter_ns() - start) / CALLS

    for _ in range(BLOCKS):
        of_c.append(c.train(CALLS, x.ctypes.data_as(ctypes.c_void_p), labels.ctypes.data_as(ctypes.c_void_p),
                            ctypes.c_int64(BATCH), ctypes.c_int64(4)))
        of_python.append(block(x, labels))
        if tensors is not None:
            of_torch.append(block(*tensors))
    assert min(of_c) > 0
    base = sorted(of_c)[BLOCKS // 10]
    print(f"C: {base / 1e3:.2f} us a call")
    for name, times in {"NumPy": of_python, "PyTorch": of_torch}.items():
        if times:
            own = sorted(times)[BLOCKS // 10]
            print(f"{name}: {own / 1e3:.2f} us, {(own - base) / 1e3:.2f} more")
