#!/usr/bin/env python3
"""The six tasks of docs/tasks.md by the commands of that page and by PyTorch, beside each other, three seeds each.

usage: tools/compare_tasks.py [--device cuda|cpu] [--precision fp16|fp32] [--small] [--seeds N] [--tasks NAME,...] [--halfstep COMMAND] --files DIR OUT_DIR
       tools/compare_tasks.py --collect DIR         needs Debian's dataset-fashion-mnist and bible-kjv, and apt's lists

The commands run as they stand, in a folder whose models/tasks holds larger data and models (with --small those of the page, where --files is
not needed): --seed and --device are added, batches and epochs are those of ROWS. PyTorch takes what `train --print-config` says of the same command: optimizer, schedule,
batch, epochs; fp16 is autocast with GradScaler; its own order of samples, dropout and augmentation. Both start from the same weights, made anew for
each seed, except that a new head is drawn by each; mobilenet.onnx is trained once before, by PyTorch, on other classes. The measure is that of
the last epoch. A row is equal if the means differ by no more than the larger of the two spreads (greatest less least of the seeds). Prints a table, and writes rows.json
and what the commands printed into OUT_DIR. Seconds are those of a seed: ours of the commands, with compilation and tuning; PyTorch's of reading the data and its loop."""
import argparse
import csv
import gzip
import json
import pathlib
import shlex
import subprocess
import sys
import time
import tomllib
import traceback

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "models/tasks"), str(ROOT / "tools")]
import task_data  # noqa: E402

SECTIONS = ["admin", "devel", "games", "net", "science", "sound", "text", "utils"]
# The runs of a task by the page's --out, its model, the measure, and what the large data asks for.
ROWS = {
    "images": dict(runs=["head", "images"], model="mobilenet", measure="test_accuracy", large={}),
    "labels": dict(runs=["labels"], model="labels", measure="test_f1_macro", large={}),
    "scenes": dict(runs=["scenes"], model="unet", measure="test_iou", large=dict(batch=16, epochs=10)),
    "texts": dict(runs=["texts"], model="bert", measure="test_accuracy", large=dict(batch=32, epochs=4, warmup_steps=100, learning_rate=0.0005)),
    "story": dict(runs=["story"], model="gpt2", measure="test_loss", large=dict(batch=32, epochs=1, warmup_steps=100, learning_rate=0.002)),
    "values": dict(runs=["values"], model="values", measure="test_r2", large=dict(batch=100, epochs=40, learning_rate=0.01)),
}


def collect(out):
    """Of the packages named above: what the large tasks learn."""
    out.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        folder = pathlib.Path("/usr/share/datasets/fashion-mnist")
        labels = np.frombuffer(gzip.open(folder / f"{prefix}-labels-idx1-ubyte.gz").read(), np.uint8)[8:]
        images = np.frombuffer(gzip.open(folder / f"{prefix}-images-idx3-ubyte.gz").read(), np.uint8)[16:].reshape(-1, 28, 28)
        hard = [task_data.GARMENTS.index(kind) for kind in task_data.HARD]
        most = {k: {"train": 600 if k in hard else 1000, "test": 1000 if k in hard else 200}[part] for k in range(10)}
        kept = np.sort(np.concatenate([np.flatnonzero(labels == k)[:most[k]] for k in range(10)]))
        arrays |= {"images_" + part: images[kept], "labels_" + part: labels[kept]}
    np.savez_compressed(out / "garments.npz", **arrays)
    rows, package = {}, {}
    for line in subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True).stdout.splitlines() + [""]:
        key, _, value = line.partition(": ")
        package[key] = value
        if not line:
            if package.get("Section") in SECTIONS and "transitional" not in package["Description"] and "debug symbols" not in package["Description"]:
                rows[package["Description"]] = package["Section"]
            package = {}
    with gzip.open(out / "packages.csv.gz", "wt", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(sorted(rows.items()))
    text = subprocess.run(["bible", "gen1:1-rev22:21"], capture_output=True, stdin=subprocess.DEVNULL, check=True).stdout
    (out / "text.txt.gz").write_bytes(gzip.compress(text))
    print(f"{len(arrays['labels_train'])} garments, {len(rows)} descriptions, {len(text)} bytes of text")


def commands():
    """{what --out names: the words of the page's command behind `halfstep`}"""
    page = (ROOT / "docs/tasks.md").read_text().splitlines()
    lines = [shlex.split(line)[1:] for line in page if line.startswith("    halfstep train ")]
    return {words[words.index("--out") + 1]: words for words in lines}


def last_epoch(directory):
    """(its row, the rates by step from 1, of a run that skipped none)"""
    rows = [json.loads(line) for line in open(directory / "metrics.jsonl")]
    epochs = [row for row in rows if row["kind"] == "epoch"]
    skipped = any(row["skipped"] for row in epochs)
    return epochs[-1], {row["step"]: row["learning_rate"] for row in rows if row["kind"] == "step" and not skipped}


class Task:
    """A row's runs of one seed, in a folder of their own."""

    def __init__(self, name, seed, options):
        self.row, self.options = ROWS[name], options
        self.directory = options.out / f"{name}.{seed}"
        (self.directory / "models/tasks").mkdir(parents=True)
        for path in options.data.iterdir():
            (self.directory / "models/tasks" / path.name).symlink_to(path)
        self.model_file = self.directory / f"models/tasks/{self.row['model']}.onnx"
        large = [] if options.small else [f"--{key}={value}" for key, value in self.row["large"].items()]
        added = [*large, "--seed", str(seed), "--device", options.device, "--precision", options.precision]
        self.commands = [[options.halfstep, *commands()[run], *added] for run in self.row["runs"]]

    def ours(self):
        began = time.perf_counter()
        for words, run in zip(self.commands, self.row["runs"]):
            with open(self.directory / f"{run}.log", "w") as log:
                done = subprocess.run(words, cwd=self.directory, stdout=log, stderr=subprocess.STDOUT)
            if done.returncode:
                raise RuntimeError(f"{shlex.join(words)}\n" + (self.directory / f"{run}.log").read_text()[-2000:])
        seconds = time.perf_counter() - began
        epoch, rates = last_epoch(self.directory / run)
        return epoch[self.row["measure"]], seconds, rates

    def keys(self):
        """What held in each run, as `--print-config` tells it."""
        texts = [subprocess.run([*words, "--print-config"], cwd=self.directory, capture_output=True, text=True, check=True).stdout for words in self.commands]
        return [tomllib.loads(text) for text in texts]


def table(rows):
    lines = ["| task | measure | Halfstep: mean, spread | PyTorch: mean, spread | difference | | seconds | PyTorch's |", "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        ours, theirs = np.array(row["ours"]), np.array(row["pytorch"])
        spread = max(np.ptp(ours), np.ptp(theirs))
        apart = ours.mean() - theirs.mean()
        row["equal"] = bool(abs(apart) <= spread + 1e-6) if len(ours) > 1 else None
        lines.append(f"| {row['task']} | {row['measure']} | {ours.mean():.4f}, {np.ptp(ours):.4f} | {theirs.mean():.4f}, {np.ptp(theirs):.4f} | {apart:+.4f} | "
                     f"{ {None: '-', True: 'within the spread', False: 'APART'}[row['equal']]} | {np.mean(row['seconds']):.1f} | {np.mean(row['pytorch_seconds']):.1f} |")
    return "\n".join(lines)


def one_seed(row, task, model, seed, options):
    import tasks
    import train_tasks
    task.model_file.unlink(missing_ok=True)
    tasks.export(task.row["model"], model, task.model_file, not options.small)
    measure, seconds, rates = task.ours()
    theirs, their_seconds, told = train_tasks.train(row["task"], model, task.keys(), rates, seed, options.device)
    (task.directory / "pytorch.json").write_text(json.dumps(told) + "\n")
    for key, value in (("ours", measure), ("seconds", seconds), ("pytorch", theirs), ("pytorch_seconds", their_seconds)):
        row[key].append(value)
    print(f"{row['task']}, seed {seed}: {measure:.4f} and {theirs:.4f}, {seconds:.1f} and {their_seconds:.1f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage:")[1].split("\n\n")[0])
    parser.add_argument("--collect", type=pathlib.Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="fp16", choices=["fp16", "fp32"])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tasks", default=",".join(ROWS))
    parser.add_argument("--halfstep", default="halfstep")
    parser.add_argument("--files", type=pathlib.Path)
    parser.add_argument("out", nargs="?", type=pathlib.Path)
    options = parser.parse_args()
    if options.collect:
        return collect(options.collect)
    import tasks
    import torch

    options.out, large = options.out.resolve(), not options.small
    options.data = options.out / "data" if large else ROOT / "models/tasks"
    print(f"PyTorch {torch.__version__}, {torch.cuda.get_device_name() if options.device == 'cuda' else 'CPU'}, {options.seeds} seeds", flush=True)
    base = None
    if large:
        task_data.write(options.data, options.files)
    if "images" in options.tasks.split(",") and large:
        base = tasks.learnt_before(tasks.make("mobilenet", 0, large), *tasks.base_pictures(options.files), epochs=6, batch=100, device=options.device)
    elif "images" in options.tasks.split(","):
        base = tasks.learnt_before(tasks.make("mobilenet", 0), *tasks.base_pictures(), epochs=8, batch=25)
    rows, failed = [], []
    for name in options.tasks.split(","):
        row = dict(task=name, measure=ROWS[name]["measure"], ours=[], pytorch=[], seconds=[], pytorch_seconds=[])
        try:
            for seed in range(1, options.seeds + 1):
                model = base if name == "images" else tasks.make(ROWS[name]["model"], seed, large)
                one_seed(row, Task(name, seed, options), model, seed, options)
        except Exception:  # the other tasks are still worth their time
            traceback.print_exc()
            failed.append(name)
            continue
        rows.append(row)
        (options.out / "tasks.md").write_text(table(rows) + "\n")
        (options.out / "rows.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))
    sys.exit(bool(failed) or not all(row["equal"] in (None, True) for row in rows))


if __name__ == "__main__":
    main()
