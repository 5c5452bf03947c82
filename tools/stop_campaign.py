"""Stops and kills training runs at random moments and resumes them; in the end every run must equal one that was left alone.

usage: python3 tools/stop_campaign.py build/bin/halfstep [--stops N] [--kills N] [--own N] [--ticker LIBRARY] [--seed N]

stops: SIGINT, SIGTERM or SIGHUP; the run must save and exit with 128 + signal. kills: SIGKILL, with a checkpoint every third
step. own: SIGKILL inside a save that replaces its own step, made by stopping a run in its evaluation and resuming it. The
ticker, built as lib/libcli_test_ticker.so, is preloaded into every run: a signal handler each millisecond. Checkpoints of
the resumed and of the undisturbed run are compared byte for byte. Exit code 1 where anything was lost, aborted or differs.
"""
import argparse
import array
import atexit
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BATCH, TRAIN, TEST = 16, 16 * 12, 16 * 40  # twelve steps an epoch, then an evaluation that takes longer


def write_npy(path, descr, shape, values):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (63 - (10 + len(header)) % 64) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + values.tobytes())


def write_data(directory, rng):
    for name, samples in (("train", TRAIN), ("test", TEST)):
        pixels = array.array("f", (rng.random() for _ in range(samples * 784)))
        write_npy(directory / f"{name}.x.npy", "<f4", (samples, 1, 28, 28), pixels)
        write_npy(directory / f"{name}.y.npy", "<i8", (samples,), array.array("q", (rng.randrange(10) for _ in range(samples))))


class Campaign:
    def __init__(self, options, work, precision):
        self.options, self.work, self.rng = options, work, random.Random(f"{options.seed} {precision}")
        self.step, self.out = work / f"step.{precision}", work / f"run.{precision}"
        self.failures, self.counts = [], {}
        subprocess.run([options.halfstep, "compile", ROOT / "models/lenet.onnx", "--batch", str(BATCH), "--precision", precision,
                        "--device", "cpu", "--optimizer", "adam", "-o", self.step], check=True, capture_output=True)

    def command(self, out, more):
        data = {name: f"x={self.work}/{name}.x.npy,labels={self.work}/{name}.y.npy" for name in ("train", "test")}
        return [self.options.halfstep, "train", self.step, "--data", data["train"], "--test_data", data["test"], "--out", out,
                "--epochs", "1000000", "--seed", "7", "--keep", "1", "--metrics_every", "1", "--learning_rate", "1e-4", *more]

    def start(self, more=()):
        environment = dict(os.environ)
        if self.options.ticker:
            environment["LD_PRELOAD"] = str(self.options.ticker)
        resume = ["--resume", self.out / "checkpoints"] if self.saved() is not None else []
        self.errors = tempfile.TemporaryFile()
        self.metrics_start = self.metrics().stat().st_size if self.metrics().exists() else 0
        run = subprocess.Popen(self.command(self.out, [*resume, *more]), env=environment, stdout=subprocess.DEVNULL,
                               stderr=self.errors)
        atexit.register(run.kill)  # an error here must not leave it running; nothing where it has ended
        return run

    def metrics(self):
        return self.out / "metrics.jsonl"

    def saved(self):
        """The newest step that is whole, under its own name or hidden: the manifest is written last. None: none is."""
        found = [p for prefix in ("", ".partial-", ".replaced-") for p in (self.out / "checkpoints").glob(prefix + "step-*")]
        return max((int(p.name.split("step-")[-1]) for p in found if (p / "manifest.json").exists()), default=None)

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    def fail(self, run, what):
        self.errors.seek(0)
        self.failures.append(f"{what}: exit code {run.returncode}: {self.errors.read().decode(errors='replace')[-500:]}")

    def wait_until(self, run, reached):
        """False: the run ended before."""
        while not reached():
            if run.poll() is not None:
                return False
            time.sleep(0.0005)
        return True

    def trains(self):
        return self.metrics().exists() and self.metrics().stat().st_size > self.metrics_start

    def last_row(self):
        """Of this run's metrics; an empty one: there is none yet."""
        written = self.metrics().read_bytes()[self.metrics_start:] if self.trains() else b""
        whole = written.rpartition(b"\n")[0].splitlines()
        return json.loads(whole[-1]) if whole else {"kind": "", "step": 0}

    def evaluates(self):
        """The last step of an epoch is the last line of the metrics."""
        last = self.last_row()
        return last["kind"] == "step" and last["step"] % (TRAIN // BATCH) == 0

    def stop(self):
        before, run = self.saved() or 0, self.start()
        if self.rng.random() < 0.9:
            self.wait_until(run, self.trains)
        time.sleep(self.rng.random() * 0.2)
        chosen = self.rng.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        run.send_signal(chosen)
        run.wait()
        if run.returncode == 128 + chosen:
            self.count("stopped")
            if (self.saved() or 0) < before:
                self.fail(run, "lost by a stop")
        elif run.returncode == -chosen and not self.trains():
            self.count("ended before training began")
        else:
            self.fail(run, f"aborted by signal {chosen}")

    def kill(self):
        before, run = self.saved() or 0, self.start(["--checkpoint_every", "3"])
        if not self.wait_until(run, self.trains):
            return self.fail(run, "cannot go on")
        time.sleep(self.rng.random() * 0.2)
        run.kill()
        run.wait()
        self.count("killed")
        self.count("killed inside a save" if list((self.out / "checkpoints").glob(".partial-*")) else "killed between saves")
        if (self.saved() or 0) < before:
            self.fail(run, "lost by a kill")

    def kill_own_step(self):
        """True: the kill was inside the save."""
        run = self.start()
        if not self.wait_until(run, self.evaluates):
            self.fail(run, "cannot go on")
            return False
        run.send_signal(signal.SIGTERM)
        run.wait()
        if run.returncode != 143:
            self.fail(run, "aborted in its evaluation")
            return False
        step = self.saved()
        partial = self.out / "checkpoints" / f".partial-step-{step:09}"
        run = self.start()
        if not self.wait_until(run, lambda: partial.exists() or self.last_row()["step"] > step):
            self.fail(run, "cannot go on")
            return False
        time.sleep(self.rng.random() * 0.012)
        run.kill()
        run.wait()
        if not partial.exists():
            self.count("killed after a save over its own step")
            return False
        self.count("killed inside a save over its own step")
        return True

    def finish(self):
        """The run, and one from its start without any signal, go on to one step and must be equal."""
        end = str((self.saved() or 0) + 5)
        run = self.start(["--max_steps", end])
        run.wait()
        if run.returncode != 0:
            return self.fail(run, "cannot go on")
        alone = self.work / "alone"
        shutil.rmtree(alone, ignore_errors=True)
        subprocess.run(self.command(alone, ["--max_steps", end]), check=True, capture_output=True)
        pair = [sorted((p / "checkpoints").glob("step-*"))[-1] for p in (self.out, alone)]
        for name in ("weights.safetensors", "slots.safetensors", "manifest.json"):
            if (pair[0] / name).read_bytes() != (pair[1] / name).read_bytes():
                self.failures.append(f"{name} differs from that of an undisturbed run at step {end}")
        self.counts["steps"] = int(end)

    def part(self, what, times, act):
        """`times` successes of `act`, or ten times as many attempts, then the comparison with an undisturbed run."""
        if times == 0:
            return
        shutil.rmtree(self.out, ignore_errors=True)
        self.counts, start, done, attempts = {}, time.time(), 0, 0
        while done < times and attempts < 10 * times and len(self.failures) < 5:
            done += act() is not False
            attempts += 1
        self.finish()
        print(f"{what}, {self.out.suffix[1:]}: {', '.join(f'{n} {k}' for k, n in sorted(self.counts.items()))}; "
              f"{time.time() - start:.0f} s; {len(self.failures)} failures", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("halfstep", type=pathlib.Path)
    parser.add_argument("--stops", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=160)
    parser.add_argument("--own", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ticker", type=lambda p: pathlib.Path(p).resolve())
    options = parser.parse_args()
    options.halfstep = options.halfstep.resolve()
    for chosen in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # under nohup it is ignored, and so by every run
        signal.signal(chosen, signal.SIG_DFL)
    failures = []
    with tempfile.TemporaryDirectory() as directory:
        work = pathlib.Path(directory)
        write_data(work, random.Random(options.seed))
        for i, precision in enumerate(("fp32", "fp16")):
            campaign = Campaign(options, work, precision)
            share = lambda n: (n + 1 - i) // 2
            campaign.part("stops", share(options.stops), campaign.stop)
            campaign.part("kills", share(options.kills), campaign.kill)
            campaign.part("kills over the own step", share(options.own), campaign.kill_own_step)
            failures += campaign.failures
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
