"""Times the same training steps in PyTorch: fp16 autocast, GradScaler, fused SGD, on random data held on the GPU.

usage: python3 tools/peer.py [--out FILE.json] [--modes eager,compile,graphs] [--batch N] [MODEL ...]
       MODEL: mlp lenet (batch 128), resnet18 resnet50 (batch 256, 224x224, channels-last); default: the first three

One row a model and mode: step time in ms (median and 90th percentile by CUDA events, mean by the clock over a run
without events), images a second, peak memory in MiB, seconds of the first step (compilation included).
"""
import argparse
import gc
import json
import pathlib
import statistics
import sys
import time

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "models"))
import zoo

F = torch.nn.functional
COMPILE = {"eager": None, "compile": {}, "graphs": {"mode": "reduce-overhead"}}


def training_step(name, mode, batch):
    torch.manual_seed(0)
    layout = torch.contiguous_format if name in ("mlp", "lenet") else torch.channels_last
    model = zoo.make(name).to(device="cuda", memory_format=layout)
    images = torch.randn(batch, *zoo.image_shape(name), device="cuda").to(memory_format=layout)
    labels = torch.randint(0, zoo.classes(name), (batch,), device="cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    scaler = torch.amp.GradScaler("cuda")

    def forward(images, labels):
        with torch.autocast("cuda", torch.float16):
            return F.cross_entropy(model(images), labels)

    if COMPILE[mode] is not None:
        forward = torch.compile(forward, **COMPILE[mode])

    def step():
        scaler.scale(forward(images, labels)).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

    return step


def timed(count, step):
    """Seconds for `count` steps, the device's work included."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(count):
        step()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def event_times(count, step):
    """Milliseconds of each of `count` steps, sorted."""
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(count)]
    for start, end in events:
        start.record()
        step()
        end.record()
    torch.cuda.synchronize()
    return sorted(start.elapsed_time(end) for start, end in events)


def measure(name, mode, batch):
    torch._dynamo.reset()
    gc.collect()
    torch.cuda.empty_cache()
    step = training_step(name, mode, batch)
    first = timed(1, step)
    timed(10, step)
    torch.cuda.reset_peak_memory_stats()
    count = max(20, min(300, int(2.0 / timed(1, step))))
    times = event_times(count, step)
    mean = timed(count, step) / count
    return dict(model=name, mode=mode, batch=batch, median_ms=round(statistics.median(times), 4),
                p90_ms=round(times[len(times) * 9 // 10], 4), mean_ms=round(mean * 1e3, 4),
                images_per_s=round(batch / mean, 1), peak_mib=round(torch.cuda.max_memory_allocated() / 2**20, 1),
                first_step_s=round(first, 2))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", default=["mlp", "lenet", "resnet18"])
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--modes", default="eager,compile,graphs")
    parser.add_argument("--batch", type=int)
    options = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    rows = []
    for name in options.models:
        for mode in options.modes.split(","):
            rows.append(measure(name, mode, options.batch or (128 if name in ("mlp", "lenet") else 256)))
            print(json.dumps(rows[-1]), flush=True)
        print(f"{name}: " + ", ".join(f"{r['mode']} {r['median_ms']:.4f} ms {r['peak_mib']:.0f} MiB"
                                      for r in rows if r["model"] == name), flush=True)
    if options.out:
        result = dict(torch=torch.__version__, device=torch.cuda.get_device_name(), rows=rows)
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
