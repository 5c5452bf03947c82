#!/usr/bin/env python3
"""Test accuracy of LeNet on Fashion-MNIST over seeds: models/lenet.toml in fp32 and fp16, and models/lenet_augmented.toml.

usage: tools/fashion_mnist.py [--device cuda|cpu] [--seeds N] [--jobs N] [--halfstep COMMAND] [--also 'OPTION ...'] DATA OUT_DIR

DATA is the directory of the four IDX files. --also (several times) adds lenet_augmented.toml with these options. Runs --jobs at a time, so that times say nothing. The
accuracy is that of the last epoch. Prints a table, and writes rows.json into OUT_DIR; fails if the means of fp16 and fp32 are more than 0.3 points apart."""
import argparse
import concurrent.futures
import json
import pathlib
import shlex
import subprocess
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage:")[1].split("\n\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=5)
    parser.add_argument("--halfstep", default="halfstep")
    parser.add_argument("--also", action="append", default=[])
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    options = parser.parse_args()
    rows = {"lenet.toml --precision fp32": [], "lenet.toml --precision fp16": [], "lenet_augmented.toml": []}
    rows |= {f"lenet_augmented.toml {also}": [] for also in options.also}

    def run(row, seed):
        recipe, *words = shlex.split(row)
        out = options.out / f"{list(rows).index(row)}.{seed}"
        command = [options.halfstep, "train", ROOT / "models" / recipe, *words, "--data", options.data.resolve(), "--seed", str(seed), "--device", options.device,
                   "--overwrite", "true", "--out", out]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        epochs = [json.loads(line) for line in open(out / "metrics.jsonl")]
        return [epoch["test_accuracy"] for epoch in epochs if epoch["kind"] == "epoch"][-1]

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        runs = {row: [pool.submit(run, row, seed) for seed in range(1, options.seeds + 1)] for row in rows}
        print(f"| recipe | mean of {options.seeds} seeds | least | greatest |\n|---|---|---|---|")
        for row, several in runs.items():
            rows[row] = [one.result() for one in several]
            print(f"| `{row}` | {np.mean(rows[row]):.4f} | {min(rows[row]):.4f} | {max(rows[row]):.4f} |", flush=True)
    apart = np.mean(rows["lenet.toml --precision fp16"]) - np.mean(rows["lenet.toml --precision fp32"])
    print(f"\nfp16 less fp32: {100 * apart:+.2f} points")
    (options.out / "rows.json").write_text(json.dumps(rows, indent=1) + "\n")
    sys.exit(bool(abs(apart) > 0.003))


if __name__ == "__main__":
    main()
