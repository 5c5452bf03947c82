"""Records optimizers, gradient clipping and schedules of PyTorch, timm and transformers: tests/references/optimizers.json.

usage: python3 record_optimizers.py OUT_DIR

Twenty steps in f64 from parameters that philox.tensor gives, of four shapes: two matrices (a wide and a tall one), a
filter of four axes, a vector. The loss is sum(w * g) for gradients g that change from step to step, so that they do not
depend on the weights. Muon's iteration is run in f64 too, by a bfloat16() that changes nothing; beside it torch.optim.AdamW
takes what is no matrix, as its documentation says.

Schedules: the rate of every step of a run of 6 epochs of 7 steps.
"""
import json
import pathlib
import sys

import numpy as np
import timm.optim
import timm.utils.agc
import torch
import transformers

import philox

STEPS = 20
SHAPES = dict(wide=(4, 6), tall=(7, 3), filter=(3, 2, 3, 2), vector=(5,))
EPOCHS, STEPS_PER_EPOCH = 6, 7


def tidy(value):
    """Nine significant digits: 1e-6 is looked at."""
    return [tidy(v) for v in value] if isinstance(value, list) else float(f"{value:.9g}")


def spec(shape, high):
    return dict(shape=list(shape), low=-high, high=high)


def tensor(name, shape, high):
    return torch.from_numpy(philox.tensor(name, shape, -high, high)).double()


def gradients(step):
    """What the tests make the same way: philox.tensor of a name with the step in it, larger in every third step."""
    return {name: tensor(f"gradient.{name}.{step}", shape, 2.0 if step % 3 == 0 else 0.5) for name, shape in SHAPES.items()}


class Pair:
    """Muon of matrices and AdamW of the rest."""

    def __init__(self, named, **options):
        matrices = [p for p in named.values() if p.dim() == 2]
        rest = [p for p in named.values() if p.dim() != 2]
        decay, rate = options["weight_decay"], options["lr"]
        self.muon = torch.optim.Muon(matrices, **options)
        self.adamw = torch.optim.AdamW(rest, lr=rate, weight_decay=decay)

    def step(self):
        self.muon.step()
        self.adamw.step()


def rows():
    """Name: the recipe's optimizer and keys, what makes the reference's, and a clip."""
    t, n = torch.optim, timm.optim
    decay = dict(weight_decay=0.05)

    def of(kind, **options):
        return lambda named: kind(list(named.values()), **options)

    def apart(kind, **options):
        """No decay of the vector, as no_decay = "vectors"."""
        return lambda named: kind([dict(params=[p for p in named.values() if p.dim() > 1]),
                                   dict(params=[p for p in named.values() if p.dim() <= 1], weight_decay=0.0)], **options)

    sgd = dict(lr=0.05, momentum=0.9)
    table = {
        "adam_amsgrad": ("adam", dict(amsgrad=1), 0.05, 0.05, of(t.Adam, lr=0.05, amsgrad=True, **decay)),
        "adamw_amsgrad": ("adamw", dict(amsgrad=1), 0.05, 0.05, of(t.AdamW, lr=0.05, amsgrad=True, **decay)),
        "nadam": ("nadam", {}, 0.05, 0.05, of(t.NAdam, lr=0.05, **decay)),
        "nadam_decay": ("nadam", dict(momentum_decay=0.3, beta1=0.8), 0.05, 0, of(
            t.NAdam, lr=0.05, momentum_decay=0.3, betas=(0.8, 0.999))),
        "radam": ("radam", {}, 0.05, 0.05, of(t.RAdam, lr=0.05, **decay)),
        "radam_short": ("radam", dict(beta2=0.9), 0.05, 0, of(t.RAdam, lr=0.05, betas=(0.9, 0.9))),
        "adamax": ("adamax", {}, 0.05, 0.05, of(t.Adamax, lr=0.05, **decay)),
        "adadelta": ("adadelta", {}, 1.0, 0.05, of(t.Adadelta, lr=1.0, **decay)),
        "lion": ("lion", {}, 0.01, 0.05, of(n.Lion, lr=0.01, betas=(0.9, 0.99), foreach=False, **decay)),
        "lamb": ("lamb", {}, 0.02, 0.05, of(n.Lamb, lr=0.02, max_grad_norm=None, foreach=False, **decay)),
        "lamb_apart": ("lamb", {}, 0.02, 0.05, apart(n.Lamb, lr=0.02, max_grad_norm=None, foreach=False, **decay)),
        "lamb_adapts": ("lamb", dict(always_adapt=1, trust_clip=1), 0.02, 0, of(
            n.Lamb, lr=0.02, max_grad_norm=None, foreach=False, weight_decay=0.0, always_adapt=True, trust_clip=True)),
        "lars": ("lars", dict(momentum=0.9), 0.5, 0.05, of(n.Lars, lr=0.5, momentum=0.9, foreach=False, **decay)),
        "lars_apart": ("lars", dict(momentum=0.9, nesterov=1), 0.05, 0.05, apart(
            n.Lars, lr=0.05, momentum=0.9, nesterov=True, foreach=False, **decay)),
        "larc": ("lars", dict(trust_clip=1, trust_coefficient=0.02), 0.05, 0.05, of(
            n.Lars, lr=0.05, trust_clip=True, trust_coeff=0.02, foreach=False, **decay)),
        "muon": ("muon", {}, 0.02, 0.05, lambda named: Pair(named, lr=0.02, **decay)),
        "muon_rms": ("muon", dict(match_rms_adamw=1, nesterov=0), 0.02, 0, lambda named: Pair(
            named, lr=0.02, weight_decay=0.0, adjust_lr_fn="match_rms_adamw", nesterov=False)),
        "adafactor": ("adafactor", {}, 0.05, 0.05, of(t.Adafactor, lr=0.05, eps=(2.0**-23, 1e-3), **decay)),
        "adafactor_late": ("adafactor", {}, 10.0, 0, of(t.Adafactor, lr=10.0, eps=(2.0**-23, 1e-3))),
        "sgd_clip_value": ("sgd", dict(momentum=0.9), 0.05, 0, of(t.SGD, **sgd)),
        "sgd_clip_adaptive": ("sgd", dict(momentum=0.9), 0.05, 0, of(t.SGD, **sgd)),
        "adamw_ema": ("adamw", {}, 0.05, 0.05, of(t.AdamW, lr=0.05, **decay)),
    }
    return table


def record_trajectory(name, kind, keys, rate, decay, make):
    weights = {key: torch.nn.Parameter(tensor(f"weight.{key}", shape, 1.0)) for key, shape in SHAPES.items()}
    optimizer = make(weights)
    row = dict(optimizer=kind, parameters=keys, learning_rate=rate, weight_decay=decay, after={})
    if name.endswith("_apart"):
        row["no_decay"] = ["vectors"]
    if name.endswith("clip_value"):
        row["clip_value"] = 0.3
    if name.endswith("clip_adaptive"):
        row["clip_adaptive"] = 0.4
    module, mean = torch.nn.ParameterDict(weights), None
    if name.endswith("_ema"):
        row["ema"] = 0.9
        mean = torch.optim.swa_utils.AveragedModel(
            module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    for step in range(1, STEPS + 1):
        for key, gradient in gradients(step).items():
            weights[key].grad = gradient.clone()
        if "clip_value" in row:
            torch.nn.utils.clip_grad_value_(weights.values(), row["clip_value"])
        if "clip_adaptive" in row:
            timm.utils.agc.adaptive_clip_grad(list(weights.values()), clip_factor=row["clip_adaptive"])
        optimizer.step()
        if mean:
            mean.update_parameters(module)
        if step in (1, STEPS):
            row["after"][step] = {key: tidy(p.detach().flatten().tolist()) for key, p in weights.items()}
    if mean:
        row["average"] = {key: tidy(p.detach().flatten().tolist()) for key, p in mean.module.items()}
    return row


def schedules():
    """Name: the recipe's keys, and the scheduler over an optimizer; stepped after every step, or after every epoch."""
    s, per, total = torch.optim.lr_scheduler, STEPS_PER_EPOCH, STEPS_PER_EPOCH * EPOCHS
    return {
        "step": (dict(schedule="step", step_epochs=2, gamma=0.3), lambda o: s.StepLR(o, 2, 0.3), "epoch"),
        "multistep": (dict(schedule="multistep", milestones="2,3,5", gamma=0.2),
                      lambda o: s.MultiStepLR(o, [2, 3, 5], 0.2), "epoch"),
        "exponential": (dict(schedule="exponential", gamma=0.8), lambda o: s.ExponentialLR(o, 0.8), "epoch"),
        "linear": (dict(schedule="linear", final_rate=0.02), lambda o: s.LinearLR(o, 1.0, 0.2, total), "step"),
        "cosine": (dict(schedule="cosine", final_rate=0.02), lambda o: s.CosineAnnealingLR(o, total, 0.02), "step"),
        "polynomial": (dict(schedule="polynomial", power=2.5), lambda o: s.PolynomialLR(o, total, 2.5), "step"),
        "cosine_restarts": (dict(schedule="cosine_restarts", restart_epochs=2, final_rate=0.01),
                            lambda o: s.CosineAnnealingWarmRestarts(o, 2 * per, 1, 0.01), "step"),
        "cosine_restarts_longer": (dict(schedule="cosine_restarts", restart_factor=2),
                                   lambda o: s.CosineAnnealingWarmRestarts(o, per, 2), "step"),
        "one_cycle": (dict(schedule="one_cycle"), lambda o: s.OneCycleLR(o, 0.1, total, cycle_momentum=False), "step"),
        "one_cycle_three": (dict(schedule="one_cycle", three_phases="true", rise_fraction=0.4, rise_factor=10,
                                 fall_factor=100),
                            lambda o: s.OneCycleLR(o, 0.1, total, pct_start=0.4, div_factor=10.0, final_div_factor=100.0,
                                                   three_phase=True, cycle_momentum=False), "step"),
        "inverse_sqrt": (dict(schedule="inverse_sqrt", warmup_steps=5), lambda o: s.LambdaLR(
            o, lambda n: (n + 1) / 5 if n < 5 else transformers.get_inverse_sqrt_schedule(
                torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0), 5).lr_lambdas[0](n)), "step"),
    }


def record_schedule(keys, make, stepped):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = make(optimizer)
    rates = []
    for step in range(EPOCHS * STEPS_PER_EPOCH):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if stepped == "step" or (step + 1) % STEPS_PER_EPOCH == 0:
            schedule.step()
    return dict(keys=keys, rates=[float(f"{rate:.15g}") for rate in rates])


def record_plateau():
    """ReduceLROnPlateau over losses and accuracies that stay, fall and rise."""
    measures = [1.0, 0.9, 0.89999, 0.91, 0.92, 0.9, 0.85, 0.85, 0.86, 0.87, 0.5, 0.6, 0.55, 0.52, 0.51, 0.505, 0.499, 0.49]
    cases = {
        "falling": (dict(), "min", dict(factor=0.5, patience=1, min_lr=0.01)),
        "cooldown": (dict(), "min", dict(factor=0.3, patience=0, cooldown=2)),
        "rising": (dict(), "max", dict(factor=0.5, patience=2, threshold=0.05)),
    }
    result = dict(measures=measures, cases={})
    for name, (_, mode, options) in cases.items():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode, **options)
        rates = []
        for value in measures:
            schedule.step(value)
            rates.append(float(f"{optimizer.param_groups[0]['lr']:.15g}"))
        result["cases"][name] = dict(mode=mode, options=options, rates=rates)
    return result


def main():
    philox.check()
    torch.Tensor.bfloat16 = lambda self: self.clone()
    result = dict(torch=torch.__version__, timm=timm.__version__, transformers=transformers.__version__,
                  shapes={name: list(shape) for name, shape in SHAPES.items()}, trajectories={}, schedules={},
                  epochs=EPOCHS, steps_per_epoch=STEPS_PER_EPOCH, plateau=record_plateau())
    for name, row in rows().items():
        result["trajectories"][name] = record_trajectory(name, *row)
    for name, row in schedules().items():
        result["schedules"][name] = record_schedule(*row)
    path = pathlib.Path(sys.argv[1]) / "optimizers.json"
    path.write_text(json.dumps(result, separators=(",", ":")) + "\n")
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
