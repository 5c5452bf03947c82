#!/usr/bin/env python3
"""Compares the preset `torch` with PyTorch's autocast, operator by operator: the type that each one writes.

usage: tools/compare_autocast.py HALFSTEP [--table FILE]
needs torch, onnx, onnxscript (without it only TorchScript's exporter)

Every operator stands between two linear layers, so that it meets fp16. PyTorch's side runs under autocast("cuda",
float16) where there is a GPU; else on tensors without data, with the policies of torch's own header
(ATen/autocast_mode.h, as installed) applied to the functions that are called. Halfstep's side is the row that
`inspect --preset torch` has for the node that gives the operator's result in the exported file.
"""

import argparse
import collections
import contextlib
import io
import json
import logging
import pathlib
import re
import subprocess
import sys
import tempfile
import warnings

import onnx
import torch
from torch.overrides import TorchFunctionMode

F = torch.nn.functional
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)


def policies():
    """Operator name -> policy, from the header."""
    text = (pathlib.Path(torch.__file__).parent / "include/ATen/autocast_mode.h").read_text()
    result = {}
    for policy in ("LOWER_PRECISION_FP", "FP32", "FP32_SET_OPT_DTYPE", "PROMOTE"):
        body = re.search(rf"#define AT_FORALL_{policy}\(_\)((?:.*\\\n)*.*)", text).group(1)
        for name in re.findall(r"_\((\w+)", body):
            result[name] = policy
    return result


class Autocast(TorchFunctionMode):
    """What the dispatcher does with the lists: fp16 for CUDA's lower precision."""

    known = policies()

    def cast(self, values, dtype):
        if isinstance(values, torch.Tensor):
            wide = values.is_floating_point() and values.dtype != torch.float64
            return values.to(dtype) if wide else values
        return type(values)(self.cast(v, dtype) for v in values) if isinstance(values, (list, tuple)) else values

    def __torch_function__(self, func, kinds, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        name = {"rpow": "pow", "rtruediv": "reciprocal", "rdiv": "reciprocal", "interpolate": "upsample_nearest2d"}.get(name, name)
        policy = self.known.get(name)
        if policy in ("LOWER_PRECISION_FP", "FP32"):
            dtype = torch.float16 if policy == "LOWER_PRECISION_FP" else torch.float32
            return func(*self.cast(args, dtype), **{k: self.cast(v, dtype) for k, v in kwargs.items()})
        if policy == "FP32_SET_OPT_DTYPE" and args[0].is_floating_point() and kwargs.get("dtype") is None:
            return func(*args, **{**kwargs, "dtype": torch.float32})
        if policy == "PROMOTE":
            wide = any(isinstance(a, torch.Tensor) and a.dtype == torch.float32 for a in [*args, *kwargs.values()])
            return func(*self.cast(args, torch.float32 if wide else torch.float16), **kwargs)
        return func(*args, **kwargs)


def written_tanh_gelu(x, cube):
    return 0.5 * x * (1 + torch.tanh(0.7978845608 * (x + 0.044715 * cube(x))))


def with_table(size, operation):
    """A weight of this size that the operator meets."""
    module = torch.nn.Module()
    module.table = torch.nn.Parameter(torch.full(size, 0.5))
    module.forward = lambda x: operation(x, module.table)
    return module


rows, image = (6, 8), (4, 6, 8)  # of a sample; of channels

# Name: (shape of a sample, operator). None for a shape is rows.
PROBES = {
    "mean over an axis": (rows, lambda x: x.mean(-1)),
    "mean over an axis, kept": (rows, lambda x: x.mean(-1, keepdim=True)),
    "mean over space": (image, lambda x: x.mean((2, 3))),
    "adaptive_avg_pool2d": (image, lambda x: F.adaptive_avg_pool2d(x, 1)),
    "avg_pool2d": (image, lambda x: F.avg_pool2d(x, 2)),
    "max_pool2d": (image, lambda x: F.max_pool2d(x, 2)),
    "sum": (rows, lambda x: x.sum(-1)),
    "prod": (rows, lambda x: x.prod(-1)),
    "cumsum": (rows, lambda x: x.cumsum(-1)),
    "amax": (rows, lambda x: x.amax(-1)),
    "logsumexp": (rows, lambda x: x.logsumexp(-1)),
    "norm": (rows, lambda x: torch.linalg.vector_norm(x, dim=-1)),
    "divided by its norm": (rows, lambda x: x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(1e-12)),
    "softmax": (rows, lambda x: x.softmax(-1)),
    "log_softmax": (rows, lambda x: x.log_softmax(-1)),
    "batch_norm": (image, torch.nn.BatchNorm2d(4)),
    "instance_norm": (image, torch.nn.InstanceNorm2d(4)),
    "instance_norm, affine": (image, torch.nn.InstanceNorm2d(4, affine=True)),
    "group_norm": (image, torch.nn.GroupNorm(2, 4)),
    "layer_norm": (rows, torch.nn.LayerNorm(8)),
    "RMS norm written out": (rows, with_table((8,), lambda x, w: x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5) * w)),
    "relu": (rows, F.relu),
    "leaky_relu": (rows, F.leaky_relu),
    "elu": (rows, F.elu),
    "prelu": (rows, with_table((1,), F.prelu)),
    "sigmoid": (rows, torch.sigmoid),
    "tanh": (rows, torch.tanh),
    "silu": (rows, F.silu),
    "mish": (rows, F.mish),
    "mish written out": (rows, lambda x: x * torch.tanh(F.softplus(x))),
    "hardswish": (rows, F.hardswish),
    "hardsigmoid": (rows, F.hardsigmoid),
    "softplus": (rows, F.softplus),
    "gelu": (rows, F.gelu),
    "gelu, tanh": (rows, lambda x: F.gelu(x, approximate="tanh")),
    "tanh gelu written out, pow": (rows, lambda x: written_tanh_gelu(x, lambda v: torch.pow(v, 3.0))),
    "tanh gelu written out, products": (rows, lambda x: written_tanh_gelu(x, lambda v: v * v * v)),
    "erf gelu written out": (rows, lambda x: 0.5 * x * (1 + torch.erf(x / 1.4142135))),
    "exp": (rows, torch.exp),
    "log": (rows, lambda x: torch.log(x.abs() + 1)),
    "sqrt": (rows, lambda x: torch.sqrt(x.abs() + 1)),
    "rsqrt": (rows, lambda x: torch.rsqrt(x.abs() + 1)),
    "one over it": (rows, lambda x: 1 / (x.abs() + 1)),
    "two over it": (rows, lambda x: 2 / (x.abs() + 1)),
    "log1p": (rows, lambda x: torch.log1p(x.abs())),
    "expm1": (rows, torch.expm1),
    "variance": (rows, lambda x: x.var(-1)),
    "standard deviation": (rows, lambda x: x.std(-1)),
    "conv_transpose2d": (image, torch.nn.ConvTranspose2d(4, 4, 3)),
    "attention": (image, lambda x: F.scaled_dot_product_attention(x, x, x)),
    "times the exponential of a scalar": (rows, with_table((), lambda x, w: x * w.exp())),
    "reciprocal": (rows, lambda x: torch.reciprocal(x.abs() + 1)),
    "pow": (rows, lambda x: x.pow(3.0)),
    "square": (rows, lambda x: x * x),
    "erf": (rows, torch.erf),
    "sin": (rows, torch.sin),
    "cos": (rows, torch.cos),
    "tan": (rows, torch.tan),
    "sinh": (rows, torch.sinh),
    "cosh": (rows, torch.cosh),
    "acos": (rows, lambda x: torch.acos(torch.tanh(x))),
    "asin": (rows, lambda x: torch.asin(torch.tanh(x))),
    "atan": (rows, torch.atan),
    "abs": (rows, torch.abs),
    "clamp": (rows, lambda x: x.clamp(-1, 1)),
    "plus a table [6, 8]": (rows, with_table(rows, lambda x, w: x + w)),
    "plus a table [1, 6, 8]": (rows, with_table((1, *rows), lambda x, w: x + w)),
    "times a vector [8]": (rows, with_table((8,), lambda x, w: x * w)),
    "times a vector [1]": (rows, with_table((1,), lambda x, w: x * w)),
    "times a scalar []": (rows, with_table((), lambda x, w: x * w)),
    "times a number": (rows, lambda x: x * 0.3),
    "plus a number": (rows, lambda x: x + 0.3),
    "divided by a number": (rows, lambda x: x / 3),
    "maximum with a table": (rows, with_table((8,), torch.maximum)),
    "cat with a table": (rows, with_table((1, 1, 8), lambda x, w: torch.cat([x, w.expand(x.shape[0], 1, 8)], 1))),
    "where with a table": (rows, with_table((8,), lambda x, w: torch.where(x > 0, x, w))),
    "where with itself": (rows, lambda x: torch.where(x > 0, x, 0.5 * x)),
    "cat with itself": (rows, lambda x: torch.cat([x, x], 1)),
    "table times table, added": (rows, with_table((8,), lambda x, w: x + w * w)),
    "matmul with itself": (rows, lambda x: x @ x.transpose(1, 2)),
    "matmul with a table": (rows, with_table((8, 8), lambda x, w: x @ w)),
    "upsample, nearest": (image, lambda x: F.interpolate(x, scale_factor=2, mode="nearest")),
    "upsample, bilinear": (image, lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")),
    "conv2d": (image, torch.nn.Conv2d(4, 4, 3)),
    "dropout": (rows, lambda x: F.dropout(x, 0.5, True)),
    "max over an axis": (rows, lambda x: x.max(-1).values),
    "slice": (rows, lambda x: x[:, 1:4]),
    "transpose": (rows, lambda x: x.transpose(1, 2)),
    "residual around layer_norm": (rows, lambda x: x + F.layer_norm(x, (8,))),
    "residual around softmax": (rows, lambda x: x + x.softmax(-1)),
    "product of softmax and itself": (rows, lambda x: x.softmax(-1) * x),
    "mean of a softmax": (rows, lambda x: x.softmax(-1).mean(-1)),
}


class Probe(torch.nn.Module):
    def __init__(self, operation):
        super().__init__()
        self.before, self.operation = torch.nn.Linear(8, 8), operation
        self.after = torch.nn.LazyLinear(3)

    def forward(self, x):
        result = self.operation(self.before(x))
        return self.after(result.flatten(1)), result


def torch_type(model, x):
    if torch.cuda.is_available():
        with torch.autocast("cuda", torch.float16):
            return model.cuda()(x.cuda())[1].dtype
    with Autocast():
        return model.to("meta")(x.to("meta"))[1].dtype


def exported(model, x, exporter, path):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        if exporter == "default":
            torch.onnx.export(model, (x,), path, dynamo=True, output_names=["logits", "probe"], input_names=["x"],
                              external_data=False)
        else:
            torch.onnx.export(model, (x,), path, dynamo=False, output_names=["logits", "probe"], input_names=["x"],
                              training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False, opset_version=17)
    graph = onnx.load(path).graph
    return next(node for node in graph.node if "probe" in node.output)


def halfstep_type(binary, path, node):
    done = subprocess.run([binary, "inspect", path, "--preset", "torch", "--precision", "fp16", "--output", "logits", "--json"],
                          capture_output=True, text=True, timeout=120)
    if done.returncode:
        return "error", done.stderr.strip().splitlines()[-1]
    found = {row["node"]: row for row in json.loads(done.stdout)["nodes"]}
    row = found.get(node.name)
    return (row["result"], row["reason"]) if row else ("no row", "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("halfstep")
    parser.add_argument("--table", type=pathlib.Path, help="the file for the table (Markdown); default: standard output")
    parser.add_argument("--only", help="a part of the names")
    parser.add_argument("--keep", type=pathlib.Path, help="a folder for the exported files")
    args = parser.parse_args()
    binary = str(pathlib.Path(args.halfstep).resolve())
    exporters = ["default", "TorchScript"]
    names = {torch.float16: "f16", torch.float32: "f32"}
    lines = ["| operator | PyTorch writes | " + " | ".join(f"`torch` preset, {e} export" for e in exporters) + " |",
             "|---|---|" + "---|" * len(exporters)]
    counts = collections.Counter()
    with tempfile.TemporaryDirectory() as directory:
        for name, (shape, operation) in PROBES.items():
            if args.only and args.only not in name:
                continue
            x = torch.randn(2, *shape)
            module = operation if isinstance(operation, torch.nn.Module) else type("Operation", (torch.nn.Module,), {
                "forward": lambda self, x, f=operation: f(x)})()
            model = Probe(module).train()
            model(x)
            cells = []
            for exporter in exporters:
                path = str((args.keep or pathlib.Path(directory)) / f"{re.sub('[^a-z0-9]+', '_', name)}.{exporter}.onnx")
                try:
                    node = exported(model, x, exporter, path)
                    cells.append((node.op_type, *halfstep_type(binary, path, node)))
                except Exception as error:
                    cells.append(("not exported", type(error).__name__, str(error).splitlines()[0][:80]))
            want = names[torch_type(model, x)]
            text = []
            for op, got, why in cells:
                same = "not exported" if op == "not exported" else "same" if got == want else "differs"
                counts[same] += 1
                text.append("not exported" if op == "not exported" else f"{got}" if got == want else f"**{got}** ({op}: {why})")
                if same != "same":
                    print(f"{name}: PyTorch {want}, {op} {got}: {why}", file=sys.stderr)
            lines.append(f"| {name} | {want} | " + " | ".join(text) + " |")
    header = (f"PyTorch {torch.__version__} ({'on a GPU' if torch.cuda.is_available() else 'the policies of its header'}), onnx "
              f"{onnx.__version__}: " + ", ".join(f"{counts[k]} {k}" for k in ("same", "differs", "not exported")) + ".\n\n")
    text = header + "\n".join(lines) + "\n"
    args.table.write_text(text) if args.table else print(text)
    sys.exit(counts["differs"] > 0)


if __name__ == "__main__":
    main()
