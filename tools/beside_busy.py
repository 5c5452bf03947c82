"""Training throughput on the CPU alone and beside a busy process on each core, in turns; the share is the median of pairs.

usage: python3 tools/beside_busy.py build/bin/halfstep [--model models/lenet.onnx] [--batch N] [--steps N] [--rounds N]
"""
import argparse
import array
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
from stop_campaign import write_npy  # noqa: E402


def rate(halfstep, step, data, out, steps):
    run = subprocess.run([halfstep, "train", step, "--data", data, "--out", out, "--epochs", "1000", "--max_steps", str(steps),
                          "--json"], check=True, capture_output=True, text=True)
    epochs = json.loads(run.stdout)["epochs"]
    return statistics.median(epoch["samples_per_second"] for epoch in epochs)


class Busy:
    def __enter__(self):
        loop = "import os; os.sched_setaffinity(0, [{}])\nwhile True: pass"
        self.processes = [subprocess.Popen([sys.executable, "-c", loop.format(c)]) for c in os.sched_getaffinity(0)]

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("halfstep", type=pathlib.Path)
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "models/lenet.onnx")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    halfstep, shares = options.halfstep.resolve(), []
    with tempfile.TemporaryDirectory() as directory:
        work, rng = pathlib.Path(directory), random.Random(1)
        samples = options.batch * 100
        write_npy(work / "x.npy", "<f4", (samples, 1, 28, 28), array.array("f", (rng.random() for _ in range(samples * 784))))
        write_npy(work / "y.npy", "<i8", (samples,), array.array("q", (rng.randrange(10) for _ in range(samples))))
        data = f"x={work}/x.npy,labels={work}/y.npy"
        subprocess.run([halfstep, "compile", options.model, "--batch", str(options.batch), "--device", "cpu", "-o", work / "step"],
                       check=True, capture_output=True)
        for i in range(options.rounds):
            alone = rate(halfstep, work / "step", data, work / f"alone.{i}", options.steps)
            with Busy():
                beside = rate(halfstep, work / "step", data, work / f"beside.{i}", options.steps)
            shares.append(beside / alone)
            print(f"alone {alone:.0f} samples/s, beside {beside:.0f}: {shares[-1]:.2f}", flush=True)
    print(f"median share {statistics.median(shares):.2f}")


if __name__ == "__main__":
    main()
