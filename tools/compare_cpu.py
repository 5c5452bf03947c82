"""Step time of training steps on the CPU beside PyTorch's, as a Markdown table.

usage: tools/compare_cpu.py [--threads N] [--precision fp32,bf16] [--rounds N] [--halfstep COMMAND] OUT_DIR [MODEL ...]

The peer is the faster of eager and torch.compile, under autocast for bf16, with the fused optimizer, and images channels-last.
Each model is made by PyTorch, exported with its weights by PyTorch and compiled by `halfstep` for the CPU at hand, as `train`
does. Rounds: eager, compiled and ours in turn, each for about --seconds and at least three steps, so that what else the machine does
meets all three. Of each the best round's median counts. Inputs are random on both sides.

OUT_DIR gets rows.json and the exported and compiled models. Pin both with taskset where the machine has more cores than --threads.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from compare_speed import export, rows, tensors  # noqa: E402

BATCHES = {"mlp": 128, "lenet": 128, "resnet18": 16, "gpt2_4": 4}


def peers(row, batch, precision):
    """{name: function of a number of steps -> median milliseconds of one}, warm."""
    import torch
    torch.manual_seed(0)
    model, (inputs, labels) = row["make"]().train(), tensors(row, batch, "cpu")
    if inputs[0].dim() == 4:
        model, inputs[0] = model.to(memory_format=torch.channels_last), inputs[0].to(memory_format=torch.channels_last)
    tokens, parameters = labels.dim() == 2, list(model.parameters())
    optimizer = (torch.optim.SGD(parameters, 0.01, momentum=0.9, fused=True) if row["optimizer"] == "sgd"
                 else torch.optim.AdamW(parameters, 1e-4, fused=True))

    def loss_of(inputs, labels):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = model(*inputs)
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()) if tokens else torch.nn.functional.cross_entropy(logits, labels)

    def steps(function):
        def run(count):
            times = []
            for _ in range(count):
                start = time.perf_counter()
                optimizer.zero_grad(set_to_none=True)
                function(inputs, labels).backward()
                optimizer.step()
                times.append(time.perf_counter() - start)
            return statistics.median(times) * 1e3
        return run

    torch._dynamo.reset()
    found = {}
    for name, function in (("eager", loss_of), ("compile", torch.compile(loss_of))):
        try:
            steps(function)(2)
            found[name] = steps(function)
        except Exception as error:  # without a C++ compiler eager is what there is
            print(f"{name}: {str(error)[-200:]}", file=sys.stderr)
    return found


def ours(halfstep, step, threads):
    """A function as `peers` has."""
    def run(count):
        command = [*halfstep, "bench", step, "--device", "cpu", "--threads", str(threads), "--repeats", str(count), "--json"]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["median_ms"]
    return run


def measure(arguments, name, precision):
    import torch
    torch.set_num_threads(arguments.threads)
    row, batch, halfstep = rows()[name], BATCHES.get(name) or rows()[name]["batch"], arguments.halfstep.split()
    file, step = arguments.out / f"{name}.onnx", arguments.out / f"{name}.{precision}.step"
    if not file.exists():
        export(row, batch, file)
    subprocess.run(halfstep + ["compile", file, "--device", "cpu", "--architecture", "native", "-o", step, "--batch", str(batch), "--optimizer",
                               row["optimizer"], "--precision", precision] + row.get("options", []), check=True, stdout=sys.stderr)
    sides = peers(row, batch, precision) | {"ours": ours(halfstep, step, arguments.threads)}
    counts = {side: max(3, int(arguments.seconds * 1e3 / run(3))) for side, run in sides.items()}
    rounds = [{side: run(counts[side]) for side, run in sides.items()} for _ in range(arguments.rounds)]
    found = {side: min(one[side] for one in rounds) for side in sides}
    ratio = min(found[side] for side in sides if side != "ours") / found["ours"]
    return dict(model=name, batch=batch, precision=precision, ratio=ratio, rounds=rounds, **found)


def table(found):
    lines = ["| model, batch | precision | Halfstep ms | PyTorch eager ms | compiled ms | faster |", "|---|---|---|---|---|---|"]
    for row in found:
        eager, compiled = (f"{row[side]:.2f}" if side in row else "-" for side in ("eager", "compile"))
        lines.append(f"| {row['model']}, {row['batch']} | {row['precision']} | {row['ours']:.2f} | {eager} | {compiled} | {row['ratio']:.2f}x |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("models", nargs="*", default=list(BATCHES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="fp32,bf16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1, help="of a side in a round, at least three steps")
    parser.add_argument("--halfstep", default="halfstep", help="the command, as 'bash tools/run_bundle.sh BUNDLE halfstep'")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = []
    for name in arguments.models:
        for precision in arguments.precision.split(","):
            found.append(measure(arguments, name, precision))
            print(json.dumps(found[-1]), file=sys.stderr, flush=True)
            (arguments.out / "rows.json").write_text(json.dumps(found, indent=1))
    print(table(found))


if __name__ == "__main__":
    main()
