"""The reference models beside PyTorch on one GPU: loss and every gradient in fp32, and 100 AMP steps.

usage: python3 tools/compare_models.py [--jobs N] OUT_DIR [NAME ...]

Each model is made by torchvision or transformers with seeded weights and exported with them; `halfstep` (on the PATH)
gets the file and the batches that PyTorch gets. OUT_DIR/compare_models.md is the table, compare_models.json all numbers;
`--jobs` models run at a time.

  loss, gradient   |ours - PyTorch| / |PyTorch|, fp32 with TF32 off; the gradient of a parameter as a whole tensor (L2).
                   One that is zero in theory is measured against the largest gradient's norm, times 1e-3. Beside it
                   how far both are from PyTorch in fp64: the worst parameter of each.
  AMP curve        fp16 autocast and dynamic loss scaling (from 65536; GPT-2's and the squeeze-excite network's from 4096), 100 steps over ten
                   batches in order, dropout off. PyTorch runs three times from the same weights, its kernels summing in
                   another order each time (the samples of a batch permuted, other algorithms, the transformers'
                   attention written out). `ours`: mean and largest |loss - the nearest run| / loss over the steps;
                   `spread`: the same for the farthest two of the three. `to fp32`: the mean distance to PyTorch's
                   fp32 losses of our run and of its three.
"""
import argparse
import concurrent.futures
import copy
import functools
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import warnings

import numpy as np
import torch

root = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root / "models"))
import families  # noqa: E402
import zoo  # noqa: E402

warnings.filterwarnings("ignore")
STEPS, BATCHES = 100, 10
# The first loss scale of both. From 65536 PyTorch's GPT-2 overflows near the fortieth step and skips it, ours and fp32 do
# not: the curves would then be those of another step. So does its squeeze-excite network, in the first step.
FIRST_SCALE = {"gpt2": 4096.0, "squeeze_excite": 4096.0}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def text_model(kind, config, **options):
    import transformers as tf

    return families.Logits(getattr(tf, kind)(getattr(tf, config)(**options)), **(
        dict(use_cache=False) if "GPT2" in kind else {}))


# Name: maker, exported form, shape of a sample, bound of its ids (None: an image), batch, optimizer and its rate.
def table():
    image = lambda name, form, batch, rate: (
        lambda: zoo.make(name), form, zoo.image_shape(name), None, batch, "sgd", rate)
    return {
        "mlp": image("mlp", "dynamo", 64, 0.05),
        "lenet": image("lenet", "dynamo", 64, 0.05),
        "resnet18": image("resnet18", "ts17", 16, 0.02),
        "resnet50": image("resnet50", "ts17", 16, 0.02),
        "mobilenet_v2": image("mobilenet_v2", "ts17", 16, 0.02),
        "shufflenet_v2_x1_0": image("shufflenet_v2_x1_0", "ts17", 16, 0.02),
        "squeeze_excite": image("squeeze_excite", "ts17", 64, 0.02),
        "mobilenet_v3_small": image("mobilenet_v3_small", "ts17", 16, 0.02),
        "efficientnet_b0": image("efficientnet_b0", "ts17", 16, 0.02),
        "squeezenet1_1": image("squeezenet1_1", "dynamo", 16, 0.01),
        "vit_b_16": (lambda: zoo.make("vit_b_16"), "dynamo", (3, 224, 224), None, 16, "adamw", 3e-5),
        "bert": (lambda: text_model("BertForMaskedLM", "BertConfig"), "ts17", (128,), 30000, 8, "adamw", 3e-5),
        "distilbert": (lambda: text_model("DistilBertForSequenceClassification", "DistilBertConfig"), "dynamo",
                       (128,), 30000, 8, "adamw", 3e-5),
        "gpt2": (lambda: text_model("GPT2LMHeadModel", "GPT2Config", use_cache=False), "dynamo", (256,), 50000, 4,
                 "adamw", 1e-4),
        "lstm": (lambda: families.Recurrent(torch.nn.LSTM, 1000, 64, 128), "raw", (32,), 1000, 32, "adamw", 1e-3),
    }


@functools.cache
def fresh(name):
    torch.manual_seed(1)
    model = table()[name][0]()
    with torch.no_grad():  # no two parameters alike, so that the exported file's are found by value
        for p in model.parameters():
            p.add_(1e-3 * torch.randn_like(p))
    return model.train()


def make(name):
    return copy.deepcopy(fresh(name))


def samples(name, count):
    _, _, shape, bound, *_ = table()[name]
    generator = torch.Generator().manual_seed(2)
    if bound is None:
        return torch.randn((count, *shape), generator=generator)
    return torch.randint(1, bound, (count, *shape), generator=generator)  # 0 is padding: PyTorch drops its gradient


def draw_labels(name, x):
    """What the model's logits for `x` can be held against: [N] classes, or [N, S] tokens of which some are ignored."""
    with torch.no_grad():
        shape = families.without_dropout(make(name))(x[:2]).shape
    return families.draw_labels(torch.empty(len(x), *shape[1:], device="meta"))[0]


def export(name, path):
    _, form, _, bound, *_ = table()[name]
    model, inputs = make(name), (samples(name, families.EXPORTED),)
    names = dict(input_names=["images" if bound is None else "input_ids"], output_names=["logits"])
    if form == "ts17":
        torch.onnx.export(model, inputs, path, dynamo=False, opset_version=17, do_constant_folding=False,
                          training=torch.onnx.TrainingMode.TRAINING, **names)
    else:
        torch.onnx.export(model, inputs, path, dynamo=True, external_data=False, optimize=form != "raw",
                          opset_version=20, verbose=False, **names)
    return families.places(model, path)


def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    values = memoryview(data)[8 + length:]
    dtypes = dict(F32=np.float32, F64=np.float64, F16=np.float16, I64=np.int64, I32=np.int32)
    return {key: np.frombuffer(values, dtypes[e["dtype"]], offset=e["data_offsets"][0],
                               count=int(np.prod(e["shape"], dtype=np.int64))).reshape(e["shape"])
            for key, e in header.items() if key != "__metadata__"}


def halfstep(*arguments):
    command = ["halfstep", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(done.stderr or done.stdout)[-600:]}")
    return done.stdout


def torch_gradients(name, x, y, dtype):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    model = families.without_dropout(make(name)).to(DEVICE, dtype)
    loss = families.loss_of(model(x.to(DEVICE, dtype if x.is_floating_point() else None)), y.to(DEVICE))
    loss.backward()
    return loss.item(), {key: p.grad.cpu().double().numpy() for key, p in model.named_parameters() if p.grad is not None}


def compare_gradients(name, path, kept, directory):
    batch = table()[name][4]
    x = samples(name, batch)
    y = draw_labels(name, x)
    key = "images" if table()[name][3] is None else "input_ids"
    np.savez(directory / "batch.npz", **{key: x.numpy(), "labels": y.numpy()})
    started = time.time()
    halfstep("gradients", path, "--data", directory / "batch.npz", "--batch", batch, "--precision", "fp32",
             "--dropout", 0, "--ignore_index", families.IGNORED, "--device", DEVICE, "-o", directory / "g.safetensors")
    seconds = time.time() - started
    ours = read_safetensors(directory / "g.safetensors")
    loss, theirs = torch_gradients(name, x, y, torch.float32)
    exact_loss, exact = torch_gradients(name, x, y, torch.float64)
    largest = max(np.linalg.norm(g) for g in theirs.values())
    worst, where, compared = 0.0, "-", 0
    own, own_error = 0.0, 0.0
    for parameter, truth in theirs.items():
        found = None
        for initializer, permutation in kept[parameter]:
            stored = ours.get("gradients/" + initializer, ours.get(initializer))
            if stored is None:
                continue
            value = stored.astype(np.float64)
            value = value.transpose(permutation) if permutation else value.reshape(truth.shape)
            found = value if found is None else found + value
        if found is None:
            continue
        compared += 1
        size = max(np.linalg.norm(truth), 1e-3 * largest)
        distance = np.linalg.norm(found - truth) / size
        if distance > worst:
            worst, where = distance, parameter
        own = max(own, np.linalg.norm(found - exact[parameter]) / size)
        own_error = max(own_error, np.linalg.norm(truth - exact[parameter]) / size)
    return dict(loss=abs(float(ours["loss"].ravel()[0]) - loss) / loss, gradient=worst, where=where, to_fp64=own,
                torch_to_fp64=own_error, compared=compared, parameters=len(theirs), seconds=seconds)


def torch_curve(name, x, y, order, dtype):
    """Losses of 100 steps; every `order` sums in another: batches permuted but for 0, and other algorithms."""
    torch.backends.cudnn.benchmark = torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = order == 2
    if DEVICE == "cuda":
        torch.backends.cuda.preferred_blas_library("cublas" if order == 2 else "cublaslt")
        torch.backends.cuda.enable_flash_sdp(order != 2)
        torch.backends.cuda.enable_cudnn_sdp(False)
    _, _, _, bound, batch, kind, rate = table()[name]
    layout = torch.channels_last if order == 2 and bound is None else torch.contiguous_format
    model = families.without_dropout(make(name)).to(DEVICE, memory_format=layout)
    if order == 2 and hasattr(getattr(model, "m", None), "config"):
        model.m.config._attn_implementation = "eager"
    optimizer = (torch.optim.SGD(model.parameters(), rate, momentum=0.9) if kind == "sgd" else
                 torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01))
    scaler = torch.amp.GradScaler(DEVICE, init_scale=FIRST_SCALE.get(name, 65536.0), enabled=dtype == torch.float16)
    generator = torch.Generator().manual_seed(order)
    losses = []
    for step in range(STEPS):
        at = torch.arange(batch) if order == 0 else torch.randperm(batch, generator=generator)
        at += step % BATCHES * batch
        inputs = x[at].to(DEVICE)
        if bound is None:
            inputs = inputs.to(memory_format=layout)
        with torch.autocast(DEVICE, torch.float16, enabled=dtype == torch.float16):
            loss = families.loss_of(model(inputs), y[at].to(DEVICE))
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    return np.array(losses)


def compare_curves(name, path, directory):
    _, _, _, bound, batch, kind, rate = table()[name]
    x = samples(name, BATCHES * batch)
    y = draw_labels(name, x)
    key = "images" if bound is None else "input_ids"
    np.savez(directory / "batches.npz", **{key: x.numpy(), "labels": y.numpy()})
    options = ["--momentum", 0.9] if kind == "sgd" else ["--weight_decay", 0.01]
    options += ["--initial_scale", FIRST_SCALE.get(name, 65536.0)]
    halfstep("train", path, "--data", directory / "batches.npz", "--batch", batch, "--precision", "fp16", "--dropout",
             0, "--ignore_index", families.IGNORED, "--shuffle", "false", "--epochs", STEPS // BATCHES, "--optimizer",
             kind, "--learning_rate", rate, *options, "--device", DEVICE, "--checkpoint_every", 1000000, "--out",
             directory / "run")
    lines = [json.loads(line) for line in (directory / "run/metrics.jsonl").read_text().splitlines()]
    ours = np.array([line["loss"] for line in lines if line["kind"] == "step"][:STEPS])
    theirs = np.stack([torch_curve(name, x, y, order, torch.float16) for order in range(3)])
    exact = torch_curve(name, x, y, 0, torch.float32)
    first = theirs[0]
    difference = abs(theirs - ours).min(axis=0) / first
    spread = (theirs.max(axis=0) - theirs.min(axis=0)) / first
    return dict(ours_mean=difference.mean(), ours_max=difference.max(), spread_mean=spread.mean(),
                spread_max=spread.max(), ours_to_fp32=(abs(ours - exact) / exact).mean(),
                torch_to_fp32=(abs(theirs - exact) / exact).mean(axis=1).tolist(), first=first[0], last=first[-1],
                ours_last=ours[-1], curves=dict(ours=ours.tolist(), torch=theirs.tolist(), fp32=exact.tolist()))


def compare(name, out):
    """All numbers of one model; what failed stands under `failed`."""
    started = time.time()
    row = {}
    with tempfile.TemporaryDirectory(dir=out) as folder:
        directory = pathlib.Path(folder)
        try:
            path = str(directory / f"{name}.onnx")
            kept = export(name, path)
            row.update(compare_gradients(name, path, kept, directory))
            row.update(compare_curves(name, path, directory))
        except Exception as error:  # the other models' rows still count
            row["failed"] = str(error)[-400:]
    row["wall"] = time.time() - started
    return row


def cells(name, row):
    if "failed" in row:
        return f"| {name} | failed: {row['failed']!r} |"
    to_fp32 = ", ".join(f"{v:.1e}" for v in row["torch_to_fp32"])
    return (f"| {name} | {table()[name][1]} | {row['loss']:.1e} | {row['gradient']:.1e} `{row['where']}` | "
            f"{row['to_fp64']:.1e}, {row['torch_to_fp64']:.1e} | {row['compared']}/{row['parameters']} | "
            f"{row['ours_mean']:.1e} ({row['ours_max']:.1e}) | {row['spread_mean']:.1e} ({row['spread_max']:.1e}) | "
            f"{row['ours_to_fp32']:.1e}; {to_fp32} | {row['first']:.4f}, {row['last']:.4f} ({row['ours_last']:.4f}) |")


def compare_in_a_process(name, out):
    """What breaks a process costs one row, and its device memory is free again."""
    directory = out / name
    done = subprocess.run([sys.executable, __file__, directory, name], capture_output=True, text=True)
    if done.returncode:
        return dict(failed=f"exit status {done.returncode}: {done.stderr[-400:]}", wall=0)
    return json.loads((directory / "compare_models.json").read_text())[name]


def main():
    parser = argparse.ArgumentParser(usage="%(prog)s [--jobs N] OUT_DIR [NAME ...]")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("names", nargs="*", default=list(table()))
    arguments = parser.parse_args()
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    lines = ["| model | form | loss | worst gradient | to fp64: ours, PyTorch | of | AMP, 100 steps: ours mean (max) "
             "| PyTorch's spread mean (max) | to fp32: ours; PyTorch's | loss first, last (ours) |",
             "|---|---|---|---|---|---|---|---|---|---|"]
    results = {}
    run = compare if len(arguments.names) == 1 else compare_in_a_process
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        futures = {pool.submit(run, name, out): name for name in arguments.names}
        for future in concurrent.futures.as_completed(futures):
            name = futures[future]
            results[name] = future.result()
            lines.append(cells(name, results[name]))
            print(lines[-1], f"{results[name]['wall']:.0f} s", flush=True)
            (out / "compare_models.md").write_text("\n".join(lines) + "\n")
            (out / "compare_models.json").write_text(json.dumps(results, default=float))


if __name__ == "__main__":
    main()
