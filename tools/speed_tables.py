"""Tables of docs/measurements.md and the README, as Markdown, from what tools/compare_speed.py left.

usage: tools/speed_tables.py [--all] OUT_DIR ...        one run's, the directories of several GPUs; --all: every slow kernel

A step's floor is the sum over its calls of the longer of flops / peak and bytes / copy bandwidth, and nothing else: no
launch, no wait. The bandwidth is that of ceilings.json, measured in the same run; the peak is that of the large product
there or, where one is faster, of the steps' own products: each the best of the run's GPUs. A share is what a call would
take so, of what it took, at most 1: values of some ten megabytes may come from the L2 cache. A mean is weighted by bytes.
"""
import argparse
import collections
import json
import pathlib
import re

TITLES = {  # in the tables' order; what compare_speed.py has and this has not goes by its name
    "gpt2": "GPT-2 124M, {} x 1024", "llama_125m": "Llama-style 125M (grouped queries), {} x 2048",
    "llama_1b": "Llama-style 1B (grouped queries), {} x 2048", "bert": "BERT-base MLM, {} x 128, dropout", "vit_b_16": "ViT-B/16, {}",
    "convnext_tiny": "ConvNeXt-T, {}", "t5_small": "T5-small, {} x (256 + 128)", "resnet50": "ResNet-50, {}", "resnet18": "ResNet-18, {}",
    "unet": "U-Net, 256², {}", "efficientnet_b0": "EfficientNet-B0, {}", "mobilenet_v2": "MobileNetV2, {}", "lstm": "LSTM 2 x 512, {} x 128",
    "lenet": "LeNet, {}", "mlp": "MLP 784-512-512-10, {}"}
GOALS = {"pointwise": 0.90, "rows": 0.85, "columns": 0.80, "scatter": None, "windows": None}  # shares of the copy bandwidth
MEMORY_GOALS = {"gpt2": 6, "bert": 4.5, "vit_b_16": 6.5, "resnet50": 7.5}  # GiB on the device
LARGE_BYTES, LARGE_FLOPS = 32e6, 1e10  # smaller calls are launches more than work
WELL_USED = 0.85


class Row:
    """One row of a rows.json with its calls, if they were asked for."""

    def __init__(self, directory, spec, values):
        self.values, self.spec = values, spec
        self.model, self.precision, self.batch, self.budget = (values[key] for key in ("model", "precision", "batch", "memory_budget"))
        calls = directory / f"{spec}.calls.json"
        try:
            self.calls = json.loads(calls.read_text()).get("profile", [])
        except (OSError, ValueError):  # no calls were asked for, or `bench` failed
            self.calls = []
        self.ceilings = {}  # of the run, see `load`

    def __getitem__(self, key):
        return self.values.get(key)

    def title(self):
        return TITLES.get(self.model, self.model + ", {}").format(self.batch)

    def peak(self):
        return self.ceilings["flops_per_second"][self.precision]

    def floor(self, call):
        """Microseconds; whether operations bound it."""
        moving, computing = call["bytes"] / self.ceilings["bytes_per_second"], call["flops"] / self.peak()
        return 1e6 * max(moving, computing), computing > moving

    def share(self, call):
        return min(1, self.floor(call)[0] / call["microseconds"])


def load(directories):
    """Rows in the order of TITLES, with the best that any of the run's GPUs and products reached as their ceilings."""
    rows, ceilings, best = [], {}, {}
    for directory in directories:
        rows += [Row(directory, spec, values) for spec, values in json.loads((directory / "rows.json").read_text()).items()]
        file = directory / "ceilings.json"
        if file.exists():
            found = json.loads(file.read_text())
            print(f"{directory.name}: copy {found['bytes_per_second'] / 1e12:.3f} TB/s; 8192 x 8192 x 8192, TFLOP/s: "
                  + ", ".join(f"{precision} {rate / 1e12:.1f}" for precision, rate in found["flops_per_second"].items()))
            rates = ceilings.setdefault("flops_per_second", {})
            ceilings["bytes_per_second"] = max(found["bytes_per_second"], ceilings.get("bytes_per_second", 0))
            rates.update({precision: max(rate, rates.get(precision, 0)) for precision, rate in found["flops_per_second"].items()})
    for row in rows:
        row.ceilings = ceilings
        for call in row.calls:
            rate = 1e6 * call["flops"] / call["microseconds"]
            if ceilings and call["call"].startswith("gemm") and call["flops"] > LARGE_FLOPS and rate > ceilings["flops_per_second"][row.precision]:
                ceilings["flops_per_second"][row.precision], best[row.precision] = rate, place(row, call)
    for precision, which in best.items():
        print(f"best product in {precision}: {ceilings['flops_per_second'][precision] / 1e12:.1f} TFLOP/s, {which}")
    order = list(TITLES)
    return sorted(rows, key=lambda row: (order.index(row.model) if row.model in order else len(order), row.batch))


def print_table(title, heads, lines):
    if lines:
        print(f"\n### {title}\n\n| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
        print("\n".join("| " + " | ".join(line) + " |" for line in lines))


def ms(value):
    return "-" if value is None else f"{value:.2f} ms" if value >= 1 else f"{value:.3f} ms"


def gib(value):
    return "-" if value is None else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def times(slow, fast):
    return f"{slow / fast:.2f}x" if slow and fast else "-"


def percent(share):
    return "-" if share is None else f"{100 * share:.0f}%"


def largest_batches(rows):
    """Those of each model with its own batch and no budget."""
    most = {}
    for row in rows:
        most[row.model] = max(most.get(row.model, 0), row.batch)
    return [row for row in rows if row.batch == most[row.model] and not row.budget]


def beside_peer(rows):
    return [[row.title(), ms(row["ours_ms"]), ms(row["peer_ms"]), times(row["peer_ms"], row["ours_ms"]), gib(row["ours_gib"]), gib(row["peer_gib"])]
            for row in rows]


def compile_times(rows):
    """One line: the fastest and the slowest of each side, in seconds."""
    sides = []
    for key, side in ("compile_s", "Halfstep"), ("peer_compile_s", "PyTorch"):
        ordered = sorted((row for row in rows if row[key]), key=lambda row: row[key])
        if ordered:
            sides.append(f"{side} {ordered[0][key]:.1f} ({ordered[0].model}) to {ordered[-1][key]:.1f} s ({ordered[-1].model})")
    return "\nCompiled beside each other in: " + "; ".join(sides) + "." if sides else ""


def floors(rows):
    lines = []
    for row in rows:
        if row.calls and row.ceilings:
            floor = sum(row.floor(call)[0] for call in row.calls) / 1e3
            lines.append([row.title(), f"{sum(c['flops'] for c in row.calls) / 1e9:,.2f}", f"{sum(c['bytes'] for c in row.calls) / 1e9:.3f}",
                          f"{floor:.3f}", f"{row['ours_ms']:.3f}", times(row["ours_ms"], floor)])
    return lines


def kernel_class(call):
    found = re.match("kernel (pointwise|rows|columns|scatter)(_window)?_", call["call"])
    return None if not found else "windows" if found[2] else found[1]


def large_calls(rows):
    """(row, call) of the calls that are work more than launch."""
    return [(row, call) for row in rows if row.ceilings for call in row.calls if call["bytes"] > LARGE_BYTES or call["flops"] > LARGE_FLOPS]


def place(row, call):
    return f"{row.model}, {call['call'].removeprefix('kernel ')}: `{call['node']}`"


def kernels(rows):
    lines = []
    for kind, goal in GOALS.items():
        own = [(row, call) for row, call in large_calls(rows) if kernel_class(call) == kind]
        if own:
            data, took = (sum(call[key] for _, call in own) for key in ("bytes", "microseconds"))
            mean = sum(call["bytes"] * row.share(call) for row, call in own) / data
            all_of_them = sum(row.floor(call)[0] for row, call in own) / took
            worst = min(own, key=lambda one: one[0].share(one[1]))
            lines.append([kind, str(len(own)), f"{data / 1e9:.1f}", f"{took / 1e3:.2f}", percent(mean), percent(goal), percent(all_of_them),
                          percent(worst[0].share(worst[1])), place(*worst)])
    return lines


def slow_kernels(rows, every):
    """Calls of one kernel together, what loses most first."""
    groups = collections.defaultdict(list)
    for row, call in large_calls(rows):
        if kernel_class(call) and row.share(call) < WELL_USED:
            groups[row.model, call["call"], call["bytes"]].append((row, call))
    lost = lambda group: sum(call["microseconds"] - row.floor(call)[0] for row, call in group)
    ordered = sorted(groups.values(), key=lost, reverse=True)
    shown = ordered if every else ordered[:40]
    lines = [[place(*group[0]), str(len(group)), f"{group[0][1]['bytes'] / 1e6:.0f}", f"{sum(c['microseconds'] for _, c in group) / len(group):.1f}",
              percent(sum(row.share(call) for row, call in group) / len(group)), f"{lost(group):.0f}"] for group in shown]
    if len(shown) < len(ordered):
        rest = ordered[len(shown):]
        lines.append([f"{len(rest)} more", str(sum(map(len, rest))), "", "", "", f"{sum(map(lost, rest)):.0f}"])
    return lines


def library_calls(rows):
    groups = collections.defaultdict(list)
    for row, call in large_calls(rows):
        kind = re.match(r"gemm|[a-z]+ [a-z_]+", call["call"])[0]
        if not kind.startswith("kernel") and kind != "copy":
            groups[kind, row.floor(call)[1]].append((row, call))
    lines = []
    for (kind, by_flops), own in sorted(groups.items()):
        took = sum(call["microseconds"] for _, call in own)
        worst = min(own, key=lambda one: one[0].share(one[1]))
        rate = (f"{sum(c['flops'] for _, c in own) / took / 1e6:.0f} TFLOP/s" if by_flops else f"{sum(c['bytes'] for _, c in own) / took / 1e6:.2f} TB/s")
        lines.append([kind, "flops" if by_flops else "bytes", str(len(own)), f"{took / 1e3:.2f}", rate,
                      percent(sum(row.floor(call)[0] for row, call in own) / took), percent(worst[0].share(worst[1])), place(*worst)])
    return lines


def precisions(rows):
    models = collections.defaultdict(dict)
    for row in rows:
        models[row.model].setdefault(row.precision, row)
    lines = []
    for found in models.values():
        time_of = {precision: row["ours_ms"] for precision, row in found.items()}
        low, bf16 = time_of.get("fp16"), found.get("bf16")
        if len(found) > 1:
            lines.append([next(iter(found.values())).title(), *(ms(time_of.get(precision)) for precision in ("fp16", "bf16", "tf32", "fp32")),
                          times(time_of.get("tf32"), low), times(time_of.get("fp32"), low), ms(bf16 and bf16["peer_ms"]),
                          times(bf16 and bf16["peer_ms"], time_of.get("bf16")), gib(bf16 and bf16["ours_gib"]), gib(bf16 and bf16["peer_gib"])])
    return lines


def budgets(rows):
    lines = []
    free = {(row.model, row.precision, row.batch): row for row in reversed(rows) if not row.budget}
    for row in rows:
        if row.budget:
            whole, goal = free.get((row.model, row.precision, row.batch)), MEMORY_GOALS.get(row.model)
            before = whole and whole["ours_ms"]
            costs = f"{100 * (row['ours_ms'] / before - 1):.0f}%" if before and row["ours_ms"] else row["ours_error"] or "-"
            lines.append([row.title(), gib(whole and whole["ours_gib"]), ms(before), row.budget, *(f"{row[key]:.2f}" if row[key] else "-" for key in
                          ("planned_gib", "ours_gib")), f"{goal:g}" if goal else "-", ms(row["ours_ms"]), costs])
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directories", nargs="+", type=pathlib.Path)
    parser.add_argument("--all", action="store_true")
    arguments = parser.parse_args()
    rows = load([directory for directory in arguments.directories if (directory / "rows.json").exists()])
    whole = largest_batches(rows)
    fp16, speed = [row for row in whole if row.precision == "fp16"], ["model, batch", "Halfstep", "PyTorch", "faster", "memory GiB", "PyTorch's"]
    print_table("Beside PyTorch, fp16", speed, beside_peer([row for row in fp16 if row["peer_ms"]]))
    print(compile_times([row for row in fp16 if row["peer_ms"]]))
    print_table("Floors, fp16", ["model, batch", "GFLOP", "GB", "floor ms", "ours ms", "distance"], floors(fp16))
    print_table("Kernels over 32 MB", ["class", "calls", "GB", "ms", "mean share", "goal", "all together", "least", "which"], kernels(fp16))
    print_table("Kernels under 85% of the bandwidth", ["kernel", "calls", "MB", "us", "share", "us lost"], slow_kernels(fp16, arguments.all))
    print_table("Calls of the libraries", ["call", "bound by", "calls", "ms", "together", "share", "least", "which"], library_calls(fp16))
    print_table("Precisions", ["model, batch", "fp16", "bf16", "TF32", "fp32", "fp16 over TF32", "over fp32", "PyTorch bf16", "faster", "bf16 memory GiB",
                               "PyTorch's"], precisions(whole))
    print_table("Small batches, fp16", speed, beside_peer([row for row in rows if row not in whole and not row.budget and row.precision == "fp16"]))
    print_table("Memory budgets, fp16", ["model, batch", "device GiB", "step", "budget", "planned", "device", "goal", "step", "costs"], budgets(rows))
    for row in rows:
        for side in "ours", "peer":
            if row[f"{side}_error"]:
                print(f"\n{row.spec}, {side}: {' '.join(row[f'{side}_error'].split())}")


if __name__ == "__main__":
    main()
