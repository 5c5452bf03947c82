"""A byte-level GPT-2 (6 layers, 384 wide) trained on a text by halfstep and by PyTorch AMP on one GPU, side by side.

usage: python3 tools/compare_text.py OUT_DIR TEXT [STEPS]     default: 2000 steps of 32 windows of 256 bytes

Both start from the same weights (models/export_text.py writes the file), take the same batches in the same order, the
same learning rates (read from halfstep's metrics.jsonl), AdamW without decay of vectors, a clipped gradient norm and
dynamic loss scaling in fp16; dropout is off. The last 5% of the text is held out. Writes OUT_DIR/compare_text.json
(both curves) and compare_text.md.
"""
import json
import pathlib
import subprocess
import sys
import time

import numpy as np
import torch

root = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(root / "models"), str(root / "tools")]
import compare_models  # noqa: E402
import export_text  # noqa: E402
import families  # noqa: E402

NAME, WINDOW, BATCH, HELD_OUT = "gpt2_small", 256, 32, 512
OPTIONS = dict(learning_rate=1e-3, warmup_steps=100, final_rate=1e-4, weight_decay=0.1, beta2=0.95, clip_norm=1.0)
F = torch.nn.functional


def windows(text, starts):
    rows = np.stack([text[s:s + WINDOW + 1] for s in starts]).astype(np.int32)
    return dict(input_ids=rows[:, :-1].astype(np.int64), labels=rows[:, 1:].astype(np.int64))


def run_halfstep(out, model, steps):
    started = time.time()
    arguments = [value for key, item in OPTIONS.items() for value in (f"--{key}", item)]
    compare_models.halfstep(
        "train", model, "--data", out / "train.npz", "--test_data", out / "test.npz", "--batch", BATCH, "--shuffle",
        "false", "--max_steps", steps, "--epochs", 1, "--precision", "fp16", "--dropout", 0, "--optimizer", "adamw",
        "--no_decay", "vectors", "--schedule", "cosine", "--decay_steps", steps, *arguments, "--device",
        compare_models.DEVICE, "--out", out / "run")
    lines = [json.loads(line) for line in (out / "run/metrics.jsonl").read_text().splitlines()]
    return lines, time.time() - started


def run_torch(train, test, rates):
    device = compare_models.DEVICE
    torch.backends.cuda.matmul.allow_tf32 = False
    model = families.without_dropout(export_text.make(NAME)).to(device)
    vectors = [p for p in model.parameters() if p.dim() < 2]
    others = [p for p in model.parameters() if p.dim() > 1]
    optimizer = torch.optim.AdamW([dict(params=others, weight_decay=OPTIONS["weight_decay"]),
                                   dict(params=vectors, weight_decay=0.0)], lr=1e-3, betas=(0.9, OPTIONS["beta2"]))
    scaler = torch.amp.GradScaler(device)
    ids, labels = (torch.from_numpy(train[key]).to(device) for key in ("input_ids", "labels"))

    def loss_of(x, y):
        with torch.autocast(device, torch.float16):
            logits = model(x)
            return F.cross_entropy(logits.flatten(0, 1), y.flatten())

    losses, started = [], time.time()
    for step, rate in enumerate(rates):
        for group in optimizer.param_groups:
            group["lr"] = rate
        at = slice(step * BATCH, (step + 1) * BATCH)
        optimizer.zero_grad()
        loss = loss_of(ids[at], labels[at])
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIONS["clip_norm"])
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.detach())
    losses = torch.stack(losses).tolist()
    seconds = time.time() - started
    with torch.no_grad():
        x, y = (torch.from_numpy(test[key]).to(device) for key in ("input_ids", "labels"))
        held_out = np.mean([loss_of(x[i:i + BATCH], y[i:i + BATCH]).item() for i in range(0, len(x), BATCH)])
    return losses, float(held_out), seconds


def main():
    out, text = pathlib.Path(sys.argv[1]).absolute(), np.fromfile(sys.argv[2], np.uint8)
    steps = int(sys.argv[3]) if len(sys.argv) > 3 else 2000
    out.mkdir(parents=True, exist_ok=True)
    split = int(len(text) * 0.95)
    draw = np.random.default_rng(0)
    train = windows(text, draw.integers(0, split - WINDOW - 1, steps * BATCH))
    test = windows(text, split + np.arange(HELD_OUT) * ((len(text) - split - WINDOW - 1) // HELD_OUT))
    np.savez(out / "train.npz", **train)
    np.savez(out / "test.npz", **test)
    export_text.export(NAME, str(out / f"{NAME}.onnx"))
    lines, seconds = run_halfstep(out, out / f"{NAME}.onnx", steps)
    ours = [line for line in lines if line["kind"] == "step"]
    held_out = [line for line in lines if line["kind"] == "epoch"][-1]["test_loss"]
    losses, theirs, torch_seconds = run_torch(train, test, [line["learning_rate"] for line in ours])
    result = dict(steps=steps, bytes=len(text), ours=held_out, torch=theirs, difference=held_out / theirs - 1,
                  seconds=seconds, torch_seconds=torch_seconds, curve=[line["loss"] for line in ours],
                  torch_curve=losses)
    (out / "compare_text.json").write_text(json.dumps(result))
    at = [i for i in (0, 99, 499, 999, 1499, 1999) if i < steps]
    mean = lambda curve, i: float(np.mean(curve[max(0, i - 19):i + 1]))
    table = ["| | held-out loss | bits per byte | seconds | " + " | ".join(f"step {i + 1}" for i in at) + " |",
             "|---|---|---|---|" + "---|" * len(at)]
    for who, loss, took, curve in (("Halfstep", held_out, seconds, result["curve"]),
                                   ("PyTorch AMP, eager", theirs, torch_seconds, losses)):
        table.append(f"| {who} | {loss:.4f} | {loss / np.log(2):.4f} | {took:.1f} | "
                     + " | ".join(f"{mean(curve, i):.4f}" for i in at) + " |")
    table.append(f"\nheld-out difference: {100 * result['difference']:+.2f}%")
    (out / "compare_text.md").write_text("\n".join(table) + "\n")
    print("\n".join(table))


if __name__ == "__main__":
    main()
