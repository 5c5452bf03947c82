"""Compares the losses of two runs step by step.

usage: python3 tools/compare_losses.py A/metrics.jsonl B/metrics.jsonl LIMIT
Prints the number of steps and the largest relative difference; fails where it is above LIMIT or the steps differ.
"""
import json
import sys


def losses(path):
    with open(path) as lines:
        rows = [json.loads(line) for line in lines]
    return {row["step"]: row["loss"] for row in rows if row["kind"] == "step"}


def main():
    a, b, limit = losses(sys.argv[1]), losses(sys.argv[2]), float(sys.argv[3])
    if not a or a.keys() != b.keys() or None in (*a.values(), *b.values()):
        sys.exit(f"the runs do not have the same finite steps: {len(a)} and {len(b)}")
    worst = max(a, key=lambda step: abs(a[step] - b[step]) / abs(b[step]))
    difference = abs(a[worst] - b[worst]) / abs(b[worst])
    print(f"{len(a)} steps, largest relative difference {difference:.1e} at step {worst}, limit {limit:g}")
    sys.exit(difference > limit)


if __name__ == "__main__":
    main()
