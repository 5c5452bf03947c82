"""Step time and memory of training steps beside PyTorch's, on one GPU and in one run, as a Markdown table.

usage: tools/compare_speed.py [--precision fp16|bf16|tf32|fp32] [--batch N] [--only ours|peer] [--calls] [--jobs N]
                              [--memory_budget SIZE] [--halfstep COMMAND] OUT_DIR [MODEL[,OPTION=VALUE ...] ...]

A model's own options go before those of the command: `resnet50,precision=bf16 gpt2,batch=1 bert,only=ours,memory_budget=4.2GiB`.

The peer is the best that PyTorch allows: torch.compile under autocast, and the whole step, GradScaler and fused optimizer
included, in one CUDA graph. Each model is made by PyTorch, exported with its weights by PyTorch and compiled by `halfstep`.
Both sides are prepared beside each other; then nothing else runs while one is timed: the peer compiles again, so that its
kernels are tuned, and the padding of its products decided, on the quiet device (what is compiled otherwise comes from its
cache), captures and is timed; then `halfstep bench` tunes and is timed. Inputs are random on both sides, each with its own
libraries.

OUT_DIR gets rows.json, MODEL.log, with --calls MODEL.calls.json, and ceilings.json: what a large product and a large copy of
PyTorch's reached just before the first row; tools/speed_tables.py makes the other tables of them. --batch replaces every
model's own. Memory: the peer's is what its allocator held at most, ours the growth of the device's, libraries included;
--memory_budget is of ours alone, for what is planned.
"""
import argparse
import concurrent.futures
import copy
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

IMAGES, TOKENS = "images", "tokens"
SCRATCH = pathlib.Path("/tmp/compare_speed")


def image_classifier(make, batch, size=224, channels=3, classes=1000, optimizer="sgd", labels=None, exporter="ts17"):
    """A row for a network of images; `labels` is the shape of one sample's."""
    return dict(make=make, batch=batch, inputs=[((channels, size, size), None)], labels=(labels or (), classes), optimizer=optimizer,
                exporter=exporter)


def language_model(make, batch, inputs, labels, options=(), exporter="dynamo"):
    """A row for a network of token ids; `inputs` and `labels` are (shape of a sample, bound)."""
    return dict(make=make, batch=batch, inputs=inputs, labels=labels, optimizer="adamw", options=list(options), exporter=exporter)


def rows():
    """{name: row}; a row's `make` gives a module whose outputs are logits, classes on axis 1 of images and last of tokens."""
    import torch
    nn, F = torch.nn, torch.nn.functional

    def vision(name, **options):
        import torchvision
        return lambda: getattr(torchvision.models, name)(weights=None, **options)

    def transformer(kind, config, **options):
        class Logits(nn.Module):
            def __init__(self, model):
                super().__init__()
                self.m = model

            def forward(self, *ids):
                return self.m(**dict(zip(("input_ids", "decoder_input_ids"), ids)), use_cache=False).logits if causal else self.m(*ids).logits

        causal = not kind.startswith("Bert")

        def make():
            import transformers
            return Logits(getattr(transformers, kind)(getattr(transformers, config)(**options)))
        return make

    class Lstm(nn.Module):
        def __init__(self):
            super().__init__()
            self.e, self.l, self.f = nn.Embedding(10000, 512), nn.LSTM(512, 512, 2, batch_first=True), nn.Linear(512, 10)

        def forward(self, ids):
            return self.f(self.l(self.e(ids))[0][:, -1])

    class UNet(nn.Module):
        """Ronneberger et al. 2015 with batch norm and padded convolutions."""

        def __init__(self):
            super().__init__()

            def block(i, o):
                layers = [f(c) for c in (i, o) for f in (lambda c: nn.Conv2d(c, o, 3, padding=1, bias=False), lambda _: nn.BatchNorm2d(o), lambda _: nn.ReLU())]
                return nn.Sequential(*layers)

            widths = [64, 128, 256, 512, 1024]
            self.down = nn.ModuleList(block(i, o) for i, o in zip([3] + widths, widths))
            self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in widths[-2::-1])
            self.merge = nn.ModuleList(block(2 * w, w) for w in widths[-2::-1])
            self.head = nn.Conv2d(64, 2, 1)

        def forward(self, x):
            kept = []
            for i, block in enumerate(self.down):
                x = block(x if i == 0 else F.max_pool2d(x, 2))
                kept.append(x)
            for up, merge, skip in zip(self.up, self.merge, kept[-2::-1]):
                x = merge(torch.cat([skip, up(x)], 1))
            return self.head(x)

    def mlp():
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))

    def lenet():
        return nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
                             nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3136, 128), nn.ReLU(), nn.Linear(128, 10))

    def llama(**options):
        return transformer("LlamaForCausalLM", "LlamaConfig", vocab_size=32000, max_position_embeddings=2048, **options)

    def causal(make, batch, length, vocabulary):
        return language_model(make, batch, [((length,), vocabulary)], ((length,), vocabulary), ["--objective", "next_token"])

    def ids(make, batch, *lengths, vocabulary):
        return language_model(make, batch, [((length,), vocabulary) for length in lengths], ((lengths[-1],), vocabulary))

    return {
        "mlp": image_classifier(mlp, 128, 28, 1, 10),
        "lenet": image_classifier(lenet, 128, 28, 1, 10),
        "resnet50": image_classifier(vision("resnet50"), 256),
        "vit_b_16": image_classifier(vision("vit_b_16"), 128, optimizer="adamw", exporter="dynamo"),
        "bert": ids(transformer("BertForMaskedLM", "BertConfig"), 64, 128, vocabulary=30522),
        "gpt2": causal(transformer("GPT2LMHeadModel", "GPT2Config", resid_pdrop=0, embd_pdrop=0, attn_pdrop=0), 16, 1024, 50257),
        "gpt2_4": causal(transformer("GPT2LMHeadModel", "GPT2Config", n_layer=4, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0), 4, 256, 50257),
        "resnet18": image_classifier(vision("resnet18"), 256),
        "mobilenet_v2": image_classifier(vision("mobilenet_v2"), 128),
        "efficientnet_b0": image_classifier(vision("efficientnet_b0", stochastic_depth_prob=0.0), 128),
        "convnext_tiny": image_classifier(vision("convnext_tiny", stochastic_depth_prob=0.0), 128, optimizer="adamw", exporter="dynamo"),
        "unet": image_classifier(UNet, 16, 256, labels=(256, 256), classes=2),
        "lstm": ids(Lstm, 64, 128, vocabulary=10000) | dict(labels=((), 10), exporter="ts17"),
        "t5_small": ids(transformer("T5ForConditionalGeneration", "T5Config"), 32, 256, 128, vocabulary=32128),
        "llama_125m": causal(llama(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, num_key_value_heads=4, intermediate_size=2048), 8, 2048, 32000),
        "llama_1b": causal(llama(hidden_size=2048, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8, intermediate_size=8192), 4, 2048, 32000),
    }


def tensors(row, batch, device):
    import torch

    def draw(shape, bound):
        return torch.randn(batch, *shape, device=device) if bound is None else torch.randint(0, bound, (batch, *shape), device=device)

    return [draw(*one) for one in row["inputs"]], draw(*row["labels"])


def export(row, batch, path):
    """The model in training mode with its weights."""
    import torch
    torch.manual_seed(0)
    model, (inputs, _) = row["make"]().train(), tensors(row, min(batch, 2), "cpu")
    if row["exporter"] == "ts17":
        torch.onnx.export(model, tuple(inputs), path, dynamo=False, opset_version=17, training=torch.onnx.TrainingMode.TRAINING,
                          do_constant_folding=False)
    else:
        torch.onnx.export(model, tuple(inputs), path, dynamo=True, external_data=True, verbose=False)


def compile_ours(arguments, spec, row, batch):
    """The step as a directory, compiled with nothing on the GPU; seconds of the command."""
    file, step = SCRATCH / spec / "model.onnx", SCRATCH / spec / "step"
    shutil.rmtree(file.parent, ignore_errors=True)
    file.parent.mkdir(parents=True)
    export(row, batch, file)
    options = row.get("options", []) + ["--batch", str(batch), "--optimizer", row["optimizer"]]
    options += ["--precision", arguments.precision.replace("tf32", "fp32")]
    options += ["--memory_budget", arguments.memory_budget] * bool(arguments.memory_budget)
    start = time.time()
    subprocess.run(arguments.halfstep.split() + ["compile", file, "--device", arguments.device, "-o", step] + options, check=True, stdout=sys.stderr)
    return time.time() - start


def peer(row, batch, precision):
    """Two functions: one compiles and runs a few steps on the device as it is, one is timed on a quiet device."""
    import torch
    import torch._inductor.config
    torch._inductor.config.autotune_local_cache = False
    torch._inductor.config.shape_padding = False  # decided by measuring: see `measure`
    low = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "fp32"
    torch.manual_seed(0)
    model, (inputs, labels) = row["make"]().cuda().train(), tensors(row, batch, "cuda")
    if inputs[0].dim() == 4:
        model, inputs[0] = model.to(memory_format=torch.channels_last), inputs[0].to(memory_format=torch.channels_last)
    tokens = labels.dim() == 2
    parameters = list(model.parameters())
    optimizer = (torch.optim.SGD(parameters, 0.01, momentum=0.9, fused=True) if row["optimizer"] == "sgd"
                 else torch.optim.AdamW(parameters, 1e-4, fused=True, capturable=True))
    scaler = torch.amp.GradScaler("cuda", enabled=precision == "fp16")

    def loss_of(inputs, labels):
        with torch.autocast("cuda", low or torch.float16, enabled=low is not None):
            logits = model(*inputs)
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()) if tokens else torch.nn.functional.cross_entropy(logits, labels)

    def steps(compiled, count):
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            loss = compiled(inputs, labels)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        return loss

    def prepare():
        start = time.time()
        steps(torch.compile(loss_of), 2).item()
        return time.time() - start

    def measure(seconds):
        torch._dynamo.reset()
        # Where no weight has an odd size there is nothing to pad, and the cache holds.
        torch._inductor.config.shape_padding = any(p.dim() == 2 and any(d % 8 and d > 64 for d in p.shape) for p in parameters)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.backends.cudnn.benchmark = True
        compiled, side = torch.compile(loss_of), torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            steps(compiled, 4)
        torch.cuda.synchronize()
        optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            steps(compiled, 1)
        times, end = [], time.time() + seconds
        for _ in range(5):
            graph.replay()
        while len(times) < 20 or time.time() < end:
            begin, finish = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            graph.replay()
            finish.record()
            finish.synchronize()
            times.append(begin.elapsed_time(finish))
        return dict(peer_ms=sorted(times)[len(times) // 2], peer_gib=torch.cuda.max_memory_allocated() / 2**30)

    return prepare, measure


def ceilings(size=8192, copied=2**30, device="cuda"):
    """What this GPU reaches now: bytes of a copy, read and written, and operations of a product of random squares by precision."""
    import torch

    def seconds(run, times=20):
        warm = time.time() + 0.3
        while time.time() < warm:
            run()
            torch.cuda.synchronize()
        events = [torch.cuda.Event(enable_timing=True) for _ in range(times + 1)]
        events[0].record()
        for event in events[1:]:
            run()
            event.record()
        events[-1].synchronize()
        return sorted(a.elapsed_time(b) for a, b in zip(events, events[1:]))[times // 2] / 1e3

    source = torch.randint(0, 256, (copied,), dtype=torch.uint8, device=device)
    target, rates = torch.empty_like(source), {}
    for precision, dtype in ("fp16", torch.float16), ("bf16", torch.bfloat16), ("tf32", torch.float32), ("fp32", torch.float32):
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        rates[precision] = 2 * size**3 / seconds(lambda: torch.mm(a, b))
    found = dict(bytes_per_second=2 * copied / seconds(lambda: target.copy_(source)), flops_per_second=rates)
    del source, target, a, b
    torch.cuda.empty_cache()
    return found


def child(arguments, spec):
    """Prepares, says so, and where it has a peer, that is timed when it is told to: one line of JSON for each."""
    row = rows()[spec.split(",")[0]]
    batch = arguments.batch or row["batch"]
    result = dict(batch=batch)

    def attempt(side, what):
        try:
            return what()
        except Exception as error:  # a side that fails leaves the other's number standing
            result[f"{side}_error"] = str(error)[-300:]
            return None

    if arguments.only != "peer":
        result["compile_s"] = attempt("ours", lambda: compile_ours(arguments, spec, row, batch))
    made = attempt("peer", lambda: peer(row, batch, arguments.precision)) if arguments.only != "ours" else None
    if made:
        result["peer_compile_s"] = attempt("peer", made[0])
    print(json.dumps(result), flush=True)
    if not made or not sys.stdin.readline():
        return
    print(json.dumps(("peer_error" not in result and attempt("peer", lambda: made[1](1.5))) or {k: v for k, v in result.items() if "error" in k}), flush=True)


def bench(arguments, spec):
    """`halfstep bench` on the compiled step, which goes with it."""
    command = arguments.halfstep.split() + ["bench", SCRATCH / spec / "step", "--device", arguments.device, "--json"]
    command += ["--calls"] * arguments.calls + ["--tf32", "true"] * (arguments.precision == "tf32")
    done = subprocess.run(command, capture_output=True, text=True)
    shutil.rmtree(SCRATCH / spec, ignore_errors=True)
    if done.returncode:
        return dict(ours_error=(done.stdout + done.stderr)[-300:]), done.stdout
    found = json.loads(done.stdout)
    return dict(ours_ms=found["median_ms"], ours_gib=found["measured_bytes"] / 2**30, planned_gib=found["planned_bytes"] / 2**30), done.stdout


def table(found):
    def cell(row, key, form):
        return form.format(row[key]) if row.get(key) is not None else "-"

    lines = ["| model, batch | Halfstep ms | PyTorch ms | faster | memory GiB | planned | PyTorch's |", "|---|---|---|---|---|---|---|"]
    for spec, row in found.items():
        ratio = f"{row['peer_ms'] / row['ours_ms']:.2f}x" if row.get("peer_ms") and row.get("ours_ms") else "-"
        cells = [", ".join(filter(None, [row["model"], str(row["batch"]), row["precision"], row["memory_budget"]])), cell(row, "ours_ms", "{:.3f}"), cell(row, "peer_ms", "{:.3f}"), ratio]
        cells += [cell(row, key, "{:.2f}") for key in ("ours_gib", "planned_gib", "peer_gib")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--precision", default="fp16", choices=["fp16", "bf16", "tf32", "fp32"])
    parser.add_argument("--batch", type=int)
    parser.add_argument("--memory_budget")
    parser.add_argument("--only", choices=["ours", "peer"])
    parser.add_argument("--calls", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="sides that are prepared at a time")
    parser.add_argument("--halfstep", default="halfstep", help="the command, as 'bash tools/run_bundle.sh BUNDLE halfstep'")
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)  # cpu: to try this script, with --only ours
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    def options_of(spec):
        own = [f"--{option}" for option in spec.split(",")[1:]]
        return parser.parse_args([*own, str(arguments.out)], copy.copy(arguments))

    if arguments.child:
        return child(arguments, arguments.models[0])
    arguments.out.mkdir(parents=True, exist_ok=True)
    specs = arguments.models or list(rows())
    settings = {spec: options_of(spec) for spec in specs}
    threads = str(max(2, (os.cpu_count() or 2) // min(arguments.jobs, len(specs))))
    environment = dict(os.environ, OMP_NUM_THREADS=threads, TORCHINDUCTOR_COMPILE_THREADS=threads)
    start, found = time.time(), {}

    def prepare(spec):
        own = vars(settings[spec])
        options = [f"--{key}={own[key]}" for key in ("precision", "batch", "memory_budget", "only", "halfstep", "device") if own[key]]
        with open(arguments.out / f"{spec}.log", "w") as log:
            process = subprocess.Popen([sys.executable, __file__, "--child", *options, str(arguments.out), spec], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        row = json.loads(process.stdout.readline() or '{"batch": 0, "ours_error": "see its log"}')
        print(f"{spec}: prepared {time.time() - start:.0f} s", file=sys.stderr, flush=True)
        return process, row

    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        prepared = dict(zip(specs, pool.map(prepare, specs)))
    if arguments.device == "cuda":
        try:
            (arguments.out / "ceilings.json").write_text(json.dumps(ceilings()))
        except RuntimeError as error:  # the rows are worth more
            print(f"no ceilings: {error}", file=sys.stderr)
    for spec, (process, row) in prepared.items():
        own = settings[spec]
        found[spec] = dict(model=spec.split(",")[0], precision=own.precision, memory_budget=own.memory_budget) | row
        found[spec] |= json.loads(process.communicate("go\n")[0] or "{}")
        if own.only != "peer" and "ours_error" not in found[spec]:
            row, text = bench(own, spec)
            found[spec] |= row
            if own.calls:
                (arguments.out / f"{spec}.calls.json").write_text(text)
        print(json.dumps({spec: found[spec]}), file=sys.stderr, flush=True)
        (arguments.out / "rows.json").write_text(json.dumps(found, indent=1))
    print(table(found))


if __name__ == "__main__":
    main()
