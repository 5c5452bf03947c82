"""What PyTorch and torchvision make of each loss: its value and its gradient of the output, for record_references.py.

Outputs and targets are philox.tensor("losses.CASE.output" and so on), or listed where they are extremes. Softmax
cross-entropy with focal_gamma, which neither library has, is written out as Lin et al. 2017 define it, over the weighted
mean that PyTorch takes; ignored labels of bce_with_logits, which PyTorch has not, are left out of the tensors.
"""
import numpy as np
import torch
import torchvision

import philox

F = torch.nn.functional
DTYPES = dict(f32=torch.float32, f16=torch.float16, bf16=torch.bfloat16)
EXTREMES = [0.0, 1e-4, -1e-4, 1.0, -20.0, 20.0, 100.0, -100.0, 60000.0, -60000.0]


def along(values, axis, rank):
    return values.reshape([-1 if i == axis else 1 for i in range(rank)]) if values.numel() > 1 else values


def of_classes(x, labels, p):
    """Softmax cross-entropy, focal or not, of logits with classes on axis 1."""
    weights = torch.tensor(p["class_weights"]) if "class_weights" in p else None
    options = dict(weight=weights, ignore_index=p.get("ignore_index", -100))
    if "focal_gamma" not in p:
        return F.cross_entropy(x, labels, label_smoothing=p.get("label_smoothing", [0.0])[0], **options)
    cross_entropy = F.cross_entropy(x, labels, reduction="none", ignore_index=options["ignore_index"])
    counts = (labels != options["ignore_index"]).float()
    if weights is not None:
        counts = counts * weights[labels.clamp(0, len(weights) - 1)]
    probability = torch.exp(-cross_entropy)
    return (cross_entropy * (1 - probability) ** p["focal_gamma"][0] * counts).sum() / counts.sum()


def of_yes_or_no(x, y, p):
    weight, pos_weight = (along(torch.tensor(p[k]), 1, x.dim()) if k in p else None
                          for k in ("class_weights", "pos_weight"))
    if "ignore_index" in p:
        assert weight is None and pos_weight is None
        x, y = x[y != p["ignore_index"]], y[y != p["ignore_index"]]
    if "focal_gamma" in p or "focal_alpha" in p:
        assert weight is None and pos_weight is None
        return torchvision.ops.sigmoid_focal_loss(x, y, alpha=p.get("focal_alpha", [-1.0])[0],
                                                  gamma=p.get("focal_gamma", [0.0])[0], reduction="mean")
    return F.binary_cross_entropy_with_logits(x, y, weight=weight, pos_weight=pos_weight)


def of_mixed(kind, x, y, p):
    """Of samples that are mixed with those of the batch in reverse: by PyTorch's cross-entropy of probabilities, or, with
    weights of classes, which that takes otherwise, as mixup's authors do it: share * L(own) + (1 - share) * L(other)."""
    share, apart = p["mix_share"], {k: v for k, v in p.items() if k != "mix_share"}
    if kind == "bce_with_logits":
        return loss_of(kind, x, share * y + (1 - share) * y.flip(0), apart)
    if "class_weights" in p:
        return share * loss_of(kind, x, y, apart) + (1 - share) * loss_of(kind, x, y.flip(0), apart)
    own = F.one_hot(y, x.shape[1]).float()
    return F.cross_entropy(x, share * own + (1 - share) * own.flip(0), label_smoothing=p.get("label_smoothing", [0.0])[0])


def loss_of(kind, x, y, p):
    if "mix_share" in p:
        return of_mixed(kind, x, y, p)
    if kind == "softmax_cross_entropy":
        return of_classes(x, y, p)
    if kind == "nll":
        weights = torch.tensor(p["class_weights"]) if "class_weights" in p else None
        return F.nll_loss(x, y, weight=weights, ignore_index=p.get("ignore_index", -100))
    return {
        "bce_with_logits": lambda: of_yes_or_no(x, y, p),
        "mean_squared_error": lambda: F.mse_loss(x, y),
        "l1": lambda: F.l1_loss(x, y),
        "huber": lambda: F.huber_loss(x, y, delta=p["delta"][0]),
        "smooth_l1": lambda: F.smooth_l1_loss(x, y, beta=p["beta"][0]),
        "kl_div": lambda: F.kl_div(x, y, reduction="batchmean", log_target=p.get("log_target", [0.0])[0] != 0),
    }[kind]()


def cases():
    """Name, kind, shape of the output, its range or values, range or values of the targets, parameters."""
    def made(name, kind, shape, output=(-3.0, 3.0), targets=None, **p):
        return name, kind, shape, output, targets, {k: v if k in ("ignore_index", "mix_share") else np.atleast_1d(v).astype(float).tolist()
                                                    for k, v in p.items()}

    five = [0.5, 2.0, 1.0, 0.0, 3.0]
    for kind in ("softmax_cross_entropy", "nll"):
        yield made(f"{kind}.plain", kind, (8, 5))
        yield made(f"{kind}.weights", kind, (8, 5), class_weights=five)
        yield made(f"{kind}.weights_ignored", kind, (2, 4, 3, 2), class_weights=five[:4], ignore_index=1)
        yield made(f"{kind}.ignored", kind, (3, 4, 5), ignore_index=2)
        yield made(f"{kind}.extreme", kind, (5, 10), EXTREMES * 5)
    yield made("cross_entropy.smooth_weights", "softmax_cross_entropy", (8, 5), label_smoothing=0.25, class_weights=five)
    yield made("cross_entropy.smooth_weights_ignored", "softmax_cross_entropy", (2, 4, 3), label_smoothing=0.125,
               class_weights=five[:4], ignore_index=0)
    yield made("cross_entropy.focal", "softmax_cross_entropy", (8, 5), focal_gamma=2)
    yield made("cross_entropy.focal_root", "softmax_cross_entropy", (2, 4, 3), focal_gamma=0.5, class_weights=five[:4])
    yield made("cross_entropy.focal_ignored", "softmax_cross_entropy", (8, 5), focal_gamma=1, ignore_index=3)
    yield made("cross_entropy.mixed", "softmax_cross_entropy", (8, 5), mix_share=0.7)
    yield made("cross_entropy.mixed_smooth", "softmax_cross_entropy", (7, 5), mix_share=0.25, label_smoothing=0.125)
    yield made("cross_entropy.mixed_weights", "softmax_cross_entropy", (8, 5), mix_share=0.6, class_weights=five)
    yield made("bce.mixed", "bce_with_logits", (4, 5), mix_share=0.3)
    for shape in [(7,), (6, 1), (4, 5), (2, 3, 2, 2)]:
        yield made(f"bce.{len(shape)}_axes_of_{shape[-1]}", "bce_with_logits", shape)
    yield made("bce.shares", "bce_with_logits", (4, 5), targets=(0.0, 1.0))
    yield made("bce.pos_weight", "bce_with_logits", (4, 5), pos_weight=2.5)
    yield made("bce.pos_weight_0", "bce_with_logits", (4, 5), pos_weight=0)
    yield made("bce.pos_weights", "bce_with_logits", (3, 5, 2), pos_weight=five)
    yield made("bce.weights", "bce_with_logits", (4, 5), class_weights=five, pos_weight=3, targets=(0.0, 1.0))
    yield made("bce.ignored", "bce_with_logits", (4, 5), ignore_index=-1)
    yield made("bce.focal", "bce_with_logits", (4, 5), focal_gamma=2, focal_alpha=0.25)
    yield made("bce.focal_root", "bce_with_logits", (6, 1), focal_gamma=0.5)
    yield made("bce.alpha", "bce_with_logits", (4, 5), focal_alpha=0.75)
    for label in (0.0, 1.0):
        yield made(f"bce.extreme_{label:g}", "bce_with_logits", (10,), EXTREMES, [label] * 10)
        yield made(f"bce.extreme_{label:g}_pos_weight_0", "bce_with_logits", (10,), EXTREMES, [label] * 10, pos_weight=0)
    for shape in [(5,), (4, 3), (2, 3, 2)]:
        for kind, p in [("mean_squared_error", {}), ("l1", {}), ("huber", dict(delta=0.5)), ("smooth_l1", dict(beta=0.25))]:
            yield made(f"{kind}.{len(shape)}_axes", kind, shape, targets=(-2.0, 2.0), **p)
    yield made("smooth_l1.beta_0", "smooth_l1", (4, 3), targets=(-2.0, 2.0), beta=0)
    for kind, p in [("mean_squared_error", {}), ("l1", {}), ("huber", dict(delta=1)), ("smooth_l1", dict(beta=1))]:
        yield made(f"{kind}.extreme", kind, (10,), EXTREMES, [0.0] * 10, **p)
    yield made("kl_div.plain", "kl_div", (4, 5), (-4.0, 0.0), (0.0, 1.0))
    yield made("kl_div.zeros", "kl_div", (2, 3), (-4.0, 0.0), [0.0, 0.25, 0.75, 1.0, 0.0, 0.0])
    yield made("kl_div.images", "kl_div", (2, 3, 2), (-4.0, 0.0), (0.0, 1.0))
    yield made("kl_div.log_target", "kl_div", (4, 5), (-4.0, 0.0), (-3.0, 0.0), log_target=1)


def tensor(name, shape, what):
    if isinstance(what, tuple):
        return torch.from_numpy(philox.tensor(name, shape, *what)), dict(low=what[0], high=what[1])
    return torch.tensor(what).reshape(shape), dict(values=what)


def labels_of(name, kind, shape, p):
    """Classes or truth values, the ignored one among them."""
    u = torch.from_numpy(philox.tensor(name, shape if kind == "bce_with_logits" else (shape[0], *shape[2:]), 0.0, 1.0))
    if kind != "bce_with_logits":
        return torch.floor(u * shape[1]).long()
    y = (u > 0.5).float()
    return torch.where(u < 0.25, torch.tensor(float(p["ignore_index"])), y) if "ignore_index" in p else y


def record(tidy):
    result = dict(torch=torch.__version__, torchvision=torchvision.__version__, cases={})
    for name, kind, shape, output, targets, p in cases():
        x, written = tensor(f"losses.{name}.output", shape, output)
        case = dict(kind=kind, parameters={k: v for k, v in p.items() if k not in ("ignore_index", "mix_share")}, shape=list(shape),
                    output=written, runs={})
        if "ignore_index" in p:
            case["ignore_index"] = p["ignore_index"]
        if "mix_share" in p:
            case["mix_share"] = p["mix_share"]
        if targets is None:
            y = labels_of(f"losses.{name}.labels", kind, shape, p)
            case["labels"] = dict(values=y.flatten().tolist())
        else:
            y, case["labels"] = tensor(f"losses.{name}.targets", shape, targets)
        for dtype, torch_dtype in DTYPES.items():
            leaf = x.to(torch_dtype).detach().clone().requires_grad_()
            loss = loss_of(kind, leaf.float(), y, p)  # as autocast takes losses
            loss.backward()
            case["runs"][dtype] = dict(loss=tidy(loss.item()), gradient=tidy(leaf.grad.double().flatten().tolist()))
        result["cases"][name] = case
    return result
