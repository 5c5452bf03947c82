"""Step time, compile time and memory of two commits, in turns on this machine.

usage: tools/compare_commits.py BEFORE AFTER [--models MODEL ...] [--rounds N] [--json FILE] [-- OPTION ...]

BEFORE and AFTER: commits, each built in a worktree of its own under out/, or `halfstep` executables. The options go to
`halfstep bench` of both, as `--device cuda --batch 256`. Every round runs each side once, the one first that was second in
the round before. The table: medians over the rounds, AFTER / BEFORE as the median of the rounds' ratios, and their least and
greatest: two sides whose range holds 1 do not differ. --json: every round as it was.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODELS = ["models/mlp.onnx", "models/lenet.onnx", "models/gpt2_tiny.onnx"]
MEASURES = {
    "step ms": lambda found: found["median_ms"],
    "compile s": lambda found: found["compile_seconds"],
    "planned MiB": lambda found: found["planned_bytes"] / 2**20,
}


def executable(of):
    """The executable itself, or that of a commit, built from nothing the first time."""
    if pathlib.Path(of).is_file():
        return pathlib.Path(of).resolve()
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--verify", f"{of}^{{commit}}"], check=True, capture_output=True, text=True).stdout.strip()
    tree = ROOT / "out" / f"commit-{commit[:12]}"
    if not tree.exists():
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "--detach", tree, commit], check=True, stdout=sys.stderr)
    subprocess.run(["cmake", "-S", tree, "-B", tree / "build", "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DHALFSTEP_TESTS=OFF"],
                   check=True, stdout=sys.stderr)
    subprocess.run(["cmake", "--build", tree / "build"], check=True, stdout=sys.stderr)
    return tree / "build" / "bin" / "halfstep"


def bench(halfstep, model, options):
    done = subprocess.run([halfstep, "bench", model, "--json", *options], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{halfstep} bench {model}: {done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def main():
    arguments = sys.argv[1:]
    options = arguments[arguments.index("--") + 1:] if "--" in arguments else []
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--models", nargs="+", default=[str(ROOT / model) for model in MODELS])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=pathlib.Path)
    given = parser.parse_args(arguments[:len(arguments) - len(options) - ("--" in arguments)])
    sides = {side: executable(of) for side, of in (("before", given.before), ("after", given.after))}

    rounds = {model: [] for model in given.models}
    for number in range(given.rounds):
        for model in given.models:
            order = sorted(sides, reverse=number % 2 == 0)
            found = {side: bench(sides[side], model, options) for side in order}
            rounds[model].append(found)
            print(f"round {number + 1}, {pathlib.Path(model).name}", file=sys.stderr)
    if given.json:
        given.json.write_text(json.dumps(rounds, indent=1))

    print("| model | measure | before | after | after / before | least | greatest |\n|---|---|---|---|---|---|---|")
    for model, found in rounds.items():
        for name, measure in MEASURES.items():
            before, after = ([measure(row[side]) for row in found] for side in ("before", "after"))
            ratios = [b / a for a, b in zip(before, after) if a]
            print(f"| {pathlib.Path(model).name} | {name} | {statistics.median(before):.4g} | {statistics.median(after):.4g} | "
                  + (f"{statistics.median(ratios):.3f} | {min(ratios):.3f} | {max(ratios):.3f} |" if ratios else "- | - | - |"))


if __name__ == "__main__":
    main()
