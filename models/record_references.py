"""Records what PyTorch computes, for the whole-model tests: tests/references/*.json.

usage: python3 record_references.py OUT_DIR [NAME ...]
       NAME: mlp lenet resnet18 squeezenet1_1 sgd_adam grad_scaler recurrent several_losses losses loss_scales;
             default: all
       The fp16 runs and grad_scaler need a CUDA device.

No weights are stored: parameters and images are philox.tensor(name, shape, low, high), where a parameter's name is its
ONNX initializer (and state dict) name; labels are floor(classes * u). Batch norm is in training mode, dropout is off.

One file per model; `runs` hold the same quantities, each run made from the same weights:
  fp64         on the CPU, the truth; `error` of every other run is the relative distance (L2) of a whole tensor to it
  fp32         on the CPU
  fp16         autocast on the GPU, loss scale 1024, channels-last, the libraries' algorithms chosen by measurement
  fp16_other   the same in contiguous layout, by heuristics, with half-precision split sums allowed in products
`fp16_spread` is the relative distance between the two fp16 runs. It is 0 where the libraries' choices agree, so the
measure of another implementation is `error`: it should be no farther from fp64 than PyTorch's fp16 is. PyTorch's
cross_entropy rounds each log-probability of fp16 logits to fp16; only their mean is taken in fp32.
"""
import json
import pathlib
import sys
import zlib

import numpy as np
import torch

import philox
import record_losses
import zoo

F = torch.nn.functional
LOSS_SCALE = 1024.0
STEPS = 10
SAMPLES = 32


def tidy(value):
    """Nine significant digits, an f32 exactly."""
    return [tidy(v) for v in value] if isinstance(value, list) else float(f"{value:.9g}")


def write(path, value):
    path.write_text(json.dumps(value, separators=(",", ":")) + "\n")
    print(f"{path.name}: {path.stat().st_size} bytes", flush=True)


def labels_of(batch, classes):
    u = philox.uniform(zlib.crc32(b"labels"), batch)
    return torch.from_numpy(np.floor(np.float32(classes) * u).astype(np.int64))


def bounds(model):
    """The range of each parameter: He's for weights, less for the last layer: the first loss is near log(classes)."""
    last = [name for name, p in model.named_parameters() if p.dim() > 1][-1]
    result = {}
    for prefix, module in model.named_modules():
        for leaf, p in module.named_parameters(recurse=False):
            name = f"{prefix}.{leaf}"
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                low, high = (0.5, 1.5) if leaf == "weight" else (-0.1, 0.1)
            elif p.dim() > 1:
                fan_in = p[0].numel()
                high = float(f"{((1 if name == last else 6) / fan_in) ** 0.5:.4g}")
                low = -high
            else:
                low, high = -0.05, 0.05
            result[name] = dict(shape=list(p.shape), low=low, high=high)
    return result


def sample_indices(size):
    """Positions spread over a flat tensor, in no step with its axes: multiples of the golden ratio."""
    if size <= SAMPLES:
        return list(range(size))
    return sorted({int(size * (k * 0.6180339887498949 % 1.0)) for k in range(1, SAMPLES + 1)})


def relative(values, truth):
    truth = truth.double()
    return tidy(((values.double() - truth).norm() / truth.norm()).item())


def sgd(name):
    """Rates at which the loss of one small batch falls in all ten steps, and fp32 stays near fp64."""
    return dict(lr=0.01 if zoo.classes(name) == 10 else 0.0005, momentum=0.9)


class Run:
    """One training run on one batch: loss, logits and gradients of the first step, losses of all."""

    def __init__(self, name, parameters, images, labels, device="cpu", dtype=torch.float32, half=False,
                 layout=torch.contiguous_format):
        model = zoo.make(name)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        with torch.no_grad():
            for key, p in model.named_parameters():
                spec = parameters[key]
                p.copy_(torch.from_numpy(philox.tensor(key, spec["shape"], spec["low"], spec["high"])))
        model = model.to(device=device, dtype=dtype, memory_format=layout)
        images = images.to(device=device, dtype=dtype, memory_format=layout)
        labels = labels.to(device)
        scale = LOSS_SCALE if half else 1.0
        optimizer = torch.optim.SGD(model.parameters(), **sgd(name))
        self.losses = []
        for step in range(STEPS):
            with torch.autocast("cuda", torch.float16, enabled=half):
                logits = model(images)
                loss = F.cross_entropy(logits, labels)
            (loss * scale).backward()
            for p in model.parameters():
                p.grad /= scale
            self.losses.append(loss.item())
            if step == 0:
                self.logits = logits.detach().cpu()
                self.gradients = {key: p.grad.detach().cpu().clone() for key, p in model.named_parameters()}
            optimizer.step()
            optimizer.zero_grad()
        assert all(np.isfinite(self.losses)), (name, self.losses)
        assert all(g.isfinite().all() for g in self.gradients.values()), name

    def record(self, parameters, truth):
        gradients = {}
        for key, gradient in self.gradients.items():
            flat = gradient.contiguous().double().flatten()
            gradients[key] = dict(
                norm=tidy(flat.norm().item()), sum=tidy(flat.sum().item()),
                values=tidy(flat[parameters[key]["indices"]].tolist()))
        result = dict(loss=tidy(self.losses[0]), losses=tidy(self.losses),
                      logits=tidy(self.logits.double().flatten().tolist()), gradients=gradients)
        if self is not truth:
            result["error"] = self.distance(truth)
        return result

    def distance(self, truth):
        return dict(
            logits=relative(self.logits, truth.logits),
            losses=tidy([abs(a - b) / abs(b) for a, b in zip(self.losses, truth.losses)]),
            gradients={key: relative(g, truth.gradients[key]) for key, g in self.gradients.items()})


def half_run(measured, *arguments):
    """A run under autocast whose library algorithms are chosen by measurement, or by heuristics with cheaper sums."""
    torch.backends.cudnn.benchmark = measured
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = not measured
    torch.backends.cuda.preferred_blas_library("cublaslt" if measured else "cublas")
    layout = torch.channels_last if measured else torch.contiguous_format
    return Run(*arguments, device="cuda", half=True, layout=layout)


def record_model(name):
    batch, shape = (8, (1, 28, 28)) if zoo.classes(name) == 10 else (4, (3, 64, 64))
    inputs = dict(images=dict(shape=[batch, *shape], low=-1.0, high=1.0),
                  labels=dict(shape=[batch], classes=zoo.classes(name)))
    images = torch.from_numpy(philox.tensor("images", inputs["images"]["shape"], -1.0, 1.0))
    parameters = bounds(zoo.make(name))
    for spec in parameters.values():
        spec["indices"] = sample_indices(int(np.prod(spec["shape"])))
    arguments = (name, parameters, images, labels_of(batch, zoo.classes(name)))
    truth = Run(*arguments, dtype=torch.float64)
    runs = dict(fp64=truth, fp32=Run(*arguments))
    if torch.cuda.is_available():
        runs.update(fp16=half_run(True, *arguments), fp16_other=half_run(False, *arguments))
    result = dict(model=name, torch=torch.__version__, loss_scale=LOSS_SCALE, sgd=sgd(name), inputs=inputs,
                  parameters=parameters, runs={key: run.record(parameters, truth) for key, run in runs.items()})
    if "fp16" in runs:
        result["device"] = torch.cuda.get_device_name()
        result["fp16_spread"] = runs["fp16_other"].distance(runs["fp16"])
    return result


def record_optimizers():
    """Twenty steps of softmax cross-entropy over one linear layer, f32 on the CPU, for each optimizer and option."""
    momentum = dict(lr=0.1, momentum=0.9)
    cases = {
        "sgd": ("SGD", dict(lr=0.1), None),
        "momentum": ("SGD", momentum, None),
        "dampening": ("SGD", dict(momentum, dampening=0.25), None),
        "nesterov": ("SGD", dict(momentum, nesterov=True), None),
        "weight_decay": ("SGD", dict(momentum, weight_decay=0.01), None),
        "nesterov_weight_decay": ("SGD", dict(momentum, nesterov=True, weight_decay=0.01), None),
        "momentum_clip": ("SGD", momentum, 0.1),
        "adam": ("Adam", dict(lr=0.01), None),
        "adam_weight_decay": ("Adam", dict(lr=0.01, weight_decay=0.1), None),
        "adamw": ("AdamW", dict(lr=0.01, weight_decay=0.1), None),
        "adamw_clip": ("AdamW", dict(lr=0.01, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1), 0.1),
    }
    batch, features, classes = 8, 6, 4
    specs = dict(x=((batch, features), 1.0), weight=((classes, features), 0.5), bias=((classes,), 0.1))
    x, weight0, bias0 = (torch.from_numpy(philox.tensor(f"linear.{key}", shape, -high, high))
                         for key, (shape, high) in specs.items())
    labels = labels_of(batch, classes)
    result = dict(torch=torch.__version__, labels=labels.tolist(), trajectories={},
                  tensors={f"linear.{key}": dict(shape=shape, low=-high, high=high)
                           for key, (shape, high) in specs.items()})
    for name, (kind, options, clip) in cases.items():
        weight, bias = weight0.clone().requires_grad_(), bias0.clone().requires_grad_()
        optimizer = getattr(torch.optim, kind)([weight, bias], **options)
        row = dict(optimizer=kind, options=options, clip=clip, losses=[], gradient_norms=[], parameters={})
        for step in range(1, 21):
            optimizer.zero_grad()
            loss = F.cross_entropy(F.linear(x, weight, bias), labels)
            loss.backward()
            # An infinite limit leaves the gradients alone: the call then only measures the norm.
            norm = torch.nn.utils.clip_grad_norm_([weight, bias], clip or float("inf"))
            optimizer.step()
            row["losses"].append(tidy(loss.item()))
            row["gradient_norms"].append(tidy(norm.item()))
            if step in (1, 2, 20):
                row["parameters"][step] = dict(weight=tidy(weight.flatten().tolist()), bias=tidy(bias.tolist()))
        result["trajectories"][name] = row
    return result


def record_grad_scaler():
    """Scale and tracker after each update of torch's GradScaler, with gradients of 1 or, where it overflows, infinity.

    The parameter starts at 0 and is trained by SGD at rate 1: it counts the applied steps downwards.
    """
    cases = {
        "overflows": (dict(growth_interval=5), 40, [3, 4, 11, 19, 20, 21, 33]),
        "never": (dict(growth_interval=3), 10, []),
        "always": (dict(), 20, range(20)),
        "largest": (dict(init_scale=2.0**125, growth_interval=1), 5, []),
        "factors": (dict(init_scale=1000.0, growth_factor=1.5, backoff_factor=0.25, growth_interval=2), 12, [5, 6]),
    }
    result = dict(torch=torch.__version__, traces={})
    for name, (options, steps, overflows) in cases.items():
        weight = torch.nn.Parameter(torch.zeros(1, device="cuda"))
        optimizer = torch.optim.SGD([weight], lr=1.0)
        scaler = torch.amp.GradScaler("cuda", **options)
        row = dict(options={key: scaler.state_dict()[key] for key in (
            "scale", "growth_factor", "backoff_factor", "growth_interval")}, overflows=list(overflows), steps=[])
        for step in range(steps):
            loss = scaler.scale(weight.sum())
            loss.backward()
            if step in overflows:
                weight.grad.fill_(float("inf"))
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            state = scaler.state_dict()
            row["steps"].append(dict(scale=state["scale"], tracker=state["_growth_tracker"], weight=weight.item()))
        result["traces"][name] = row
    return result


def record_several_losses():
    """Ten steps of a small network with two outputs and three weighted losses, and the first step's gradients.

    The losses: cross-entropy of the first output, in which label 2 does not count; mean squared error of the second;
    cross-entropy of the first output again, with smoothing and labels of its own.
    """
    sizes = {"x": [8, 6], "trunk": [5, 6], "class": [4, 5], "box": [3, 5], "targets": [8, 3]}
    tensors = {name: dict(shape=shape, low=-1.0, high=1.0) for name, shape in sizes.items()}
    made = {name: torch.from_numpy(philox.tensor("several." + name, *entry.values())) for name, entry in tensors.items()}
    weights = {name: torch.nn.Parameter(made[name]) for name in ("trunk", "class", "box")}
    labels = [int(i * 7 % 4) for i in range(8)]
    others = [int(i * 5 % 4) for i in range(8)]
    factors = [0.75, 0.5, 2.0]
    optimizer = torch.optim.SGD(weights.values(), lr=0.2)
    result = dict(torch=torch.__version__, tensors=tensors, labels=labels, others=others, weights=factors, lr=0.2,
                  ignore_index=2, label_smoothing=0.125, steps=[])
    for _ in range(10):
        hidden = torch.tanh(made["x"] @ weights["trunk"].T)
        logits, boxes = hidden @ weights["class"].T, hidden @ weights["box"].T
        losses = [F.cross_entropy(logits, torch.tensor(labels), ignore_index=2),
                  F.mse_loss(boxes, made["targets"]),
                  F.cross_entropy(logits, torch.tensor(others), label_smoothing=0.125)]
        total = sum(factor * loss for factor, loss in zip(factors, losses))
        optimizer.zero_grad()
        total.backward()
        result["steps"].append(dict(loss=tidy(total.item()), losses=tidy([loss.item() for loss in losses])))
        if "gradients" not in result:
            result["gradients"] = {name: tidy(w.grad.flatten().tolist()) for name, w in weights.items()}
        optimizer.step()
    return result


def record_loss_scales():
    """Forty steps of one weight under two losses with a GradScaler each, their gradients 1 or infinite.

    Each loss is differentiated with respect to its own copy of the weight, so that its scaler unscales and checks it; the
    weight takes both gradients unless one is not finite, as Apex skips a step if one of its num_losses overflows.
    """
    weights, interval, rng = [0.5, 2.0], 3, np.random.default_rng(3)
    result = dict(torch=torch.__version__, weights=weights, scale=1024.0, growth_interval=interval, steps=[])
    weight = torch.zeros(1)
    scalers = [torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=interval) for _ in weights]
    for _ in range(40):
        overflows = [bool(v) for v in rng.random(2) < (0.15, 0.3)]
        gradients = []
        for factor, overflow, scaler in zip(weights, overflows, scalers):
            copy = torch.nn.Parameter(weight.clone())
            optimizer = torch.optim.SGD([copy], lr=1.0)
            scaler.scale(factor * (copy * (float("inf") if overflow else 1.0)).sum()).backward()
            scaler.unscale_(optimizer)
            gradients.append(copy.grad)
            scaler.update()
        if not any(overflows):
            weight = weight - sum(gradients)
        states = [scaler.state_dict() for scaler in scalers]
        result["steps"].append(dict(overflows=overflows, scales=[state["scale"] for state in states],
                                    trackers=[state["_growth_tracker"] for state in states], weight=weight.item()))
    return result


def record_recurrent():
    """Outputs and gradients of two-directional layers with initial states, operands and gradients as ONNX has them.

    The loss is the mean square of all outputs, one after another.
    """
    steps, batch, inputs, hidden = 6, 2, 3, 2
    result = dict(torch=torch.__version__, layers={})
    for op, gates, order in [("LSTM", 4, [0, 2, 3, 1]), ("GRU", 3, [1, 0, 2])]:  # torch's gates among ONNX's
        shapes = dict(X=(steps, batch, inputs), W=(2, gates * hidden, inputs), R=(2, gates * hidden, hidden),
                      B=(2, 2 * gates * hidden), initial_h=(2, batch, hidden))
        if op == "LSTM":
            shapes["initial_c"] = (2, batch, hidden)
        operands = {name: dict(shape=list(shape), low=-1, high=1) for name, shape in shapes.items()}
        values = {name: torch.tensor(philox.tensor(f"{op}.{name}", shape, -1, 1)).double().requires_grad_()
                  for name, shape in shapes.items()}

        def in_torch_order(rows):
            return torch.cat([rows[gate * hidden:(gate + 1) * hidden] for gate in order])

        layer = getattr(torch.nn, op)(inputs, hidden, bidirectional=True).double()
        weights = {}
        for d, suffix in enumerate(["", "_reverse"]):
            biases = values["B"][d].split(gates * hidden)
            weights[f"weight_ih_l0{suffix}"] = in_torch_order(values["W"][d])
            weights[f"weight_hh_l0{suffix}"] = in_torch_order(values["R"][d])
            weights[f"bias_ih_l0{suffix}"], weights[f"bias_hh_l0{suffix}"] = map(in_torch_order, biases)
        states = tuple(values[name] for name in ("initial_h", "initial_c") if name in values)
        y, last = torch.func.functional_call(layer, weights, (values["X"], states if len(states) == 2 else states[0]))
        y = y.reshape(steps, batch, 2, hidden).transpose(1, 2)
        outputs = torch.cat([v.flatten() for v in (y, *(last if op == "LSTM" else [last]))])
        loss = (outputs * outputs).mean()
        loss.backward()
        result["layers"][op] = dict(operands=operands, outputs=tidy(outputs.tolist()), loss=tidy(loss.item()),
                                    gradients={n: tidy(v.grad.flatten().tolist()) for n, v in values.items()})
    return result


def main():
    philox.check()
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    others = dict(sgd_adam=record_optimizers, grad_scaler=record_grad_scaler, recurrent=record_recurrent,
                  several_losses=record_several_losses, losses=lambda: record_losses.record(tidy), loss_scales=record_loss_scales)
    for name in sys.argv[2:] or ["mlp", "lenet", "resnet18", "squeezenet1_1", *others]:
        write(out / f"{name}.json", others[name]() if name in others else record_model(name))


if __name__ == "__main__":
    main()
