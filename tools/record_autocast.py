#!/usr/bin/env python3
"""Records what PyTorch's dispatcher does under autocast("cuda", float16) with every operator of its lists.

usage: tools/record_autocast.py OUT_DIR          (tests/references/torch_autocast)
needs torch, onnx, onnxscript

The lists are those of the header of the torch that is installed (ATen/autocast_mode.h). Each operator is called on fake
CUDA tensors (tools/under_autocast.py) with operands of fp16, of fp32, and where it takes several with one of each; the
type of its result is recorded. The same calls, behind a linear layer where they read fp16, are exported into one file an
exporter.
OUT_DIR/operators.txt has a row for each: policy, operator, operands, the type of the result, and the node of each file
that gives it (-: not exported, with the reason behind #).
"""
import contextlib
import dis
import io
import pathlib
import re
import sys
import warnings

import onnx
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import under_autocast

warnings.filterwarnings("ignore")
F, nn = torch.nn.functional, torch.nn
POLICIES = ["LOWER_PRECISION_FP", "FP32", "FP32_SET_OPT_DTYPE", "DIFFERENT_REDISPATCH_SIGNATURE", "PROMOTE"]
BATCH, ROWS, WIDTH, CHANNELS, SIDE = 2, 6, 8, 4, 8


def lists():
    """(policy, operator) in the header's order, without overloads."""
    text = (pathlib.Path(torch.__file__).parent / "include/ATen/autocast_mode.h").read_text()
    result = {}
    for policy in POLICIES:
        body = re.search(rf"#define AT_FORALL_{policy}\(_\)((?:.*\\\n)*.*)", text).group(1)
        for name in re.findall(r"_\((?:ADD_NS\()?(\w+)", body):
            # The three forms of `norm` take the policy at their call (autocast_mode.cpp): fp32_append_dtype.
            result.setdefault(name, "fp32_append_dtype" if name == "norm" else policy.lower())
    return [(policy, name) for name, policy in result.items()]


class Weights(nn.Module):
    """Weights of the operators, f32 as a model's are."""

    def __init__(self):
        super().__init__()
        def p(*shape):
            return nn.Parameter(torch.full(shape, 0.1))
        self.c1, self.c2, self.c3 = p(4, 4, 3), p(4, 4, 3, 3), p(4, 4, 3, 3, 3)
        self.square, self.bias, self.vector, self.slope = p(8, 8), p(8), p(8), p(1)
        self.batch_square, self.bilinear = p(BATCH, 8, 8), p(5, 8, 8)
        self.channels = p(4)
        self.lstm = [p(32, 8), p(32, 8), p(32), p(32)]
        self.gru = [p(24, 8), p(24, 8), p(24), p(24)]
        self.rnn = [p(8, 8), p(8, 8), p(8), p(8)]
        for k in ("lstm", "gru", "rnn"):
            setattr(self, k + "_", nn.ParameterList(getattr(self, k)))
            delattr(self, k)


def row(v):
    return v[0, 0]  # [8]


def first(v):
    return v[0]  # [6, 8]


def positive(v):
    return v.abs() + 1


def unit(v):
    return v.clamp(-0.5, 0.5)


def loss(function, **options):
    return lambda w, a, b: function(a, b, **options)


def classes(v):
    return torch.zeros(v.shape[0], dtype=torch.int64, device=v.device)


A, B = "rows", "image"
# Operator: what it is given (rows [2, 6, 8], image [2, 4, 8, 8]), and the call on weights and two such tensors. A text:
# why it is not called.
CALLS = {
    "_convolution": "what conv2d and the others call",
    "convolution": "what conv2d and the others call",
    "conv1d": (A, lambda w, a, b: F.conv1d(a[:, :4], w.c1)),
    "conv2d": (B, lambda w, a, b: F.conv2d(a, w.c2)),
    "conv3d": (B, lambda w, a, b: F.conv3d(a.reshape(BATCH, 4, 4, 4, 4), w.c3)),
    "conv_tbc": "no ONNX operator",
    "conv_transpose1d": (A, lambda w, a, b: F.conv_transpose1d(a[:, :4], w.c1)),
    "conv_transpose2d": (B, lambda w, a, b: F.conv_transpose2d(a, w.c2)),
    "conv_transpose3d": (B, lambda w, a, b: F.conv_transpose3d(a.reshape(BATCH, 4, 4, 4, 4), w.c3)),
    "prelu": (A, lambda w, a, b: F.prelu(a, w.slope)),
    "addmm": (A, lambda w, a, b: torch.addmm(w.bias, first(a), w.square)),
    "addmv": (A, lambda w, a, b: torch.addmv(w.bias, w.square, row(a))),
    "addr": (A, lambda w, a, b: torch.addr(w.square, row(a), w.vector)),
    "matmul": (A, lambda w, a, b: torch.matmul(a, b.transpose(1, 2))),
    "einsum": (A, lambda w, a, b: torch.einsum("brc,cd->brd", a, w.square)),
    "mm": (A, lambda w, a, b: torch.mm(first(a), w.square)),
    "mv": (A, lambda w, a, b: torch.mv(w.square, row(a))),
    "linalg_vecdot": (A, lambda w, a, b: torch.linalg.vecdot(a, w.vector)),
    "linear": (A, lambda w, a, b: F.linear(a, w.square, w.bias)),
    "addbmm": (A, lambda w, a, b: torch.addbmm(w.square, a[:, :, :8].transpose(1, 2), b)),
    "baddbmm": (A, lambda w, a, b: torch.baddbmm(w.batch_square, a.transpose(1, 2), b)),
    "bmm": (A, lambda w, a, b: torch.bmm(a, w.batch_square)),
    "chain_matmul": (A, lambda w, a, b: torch.chain_matmul(first(a), w.square, w.square)),
    "linalg_multi_dot": (A, lambda w, a, b: torch.linalg.multi_dot([first(a), w.square, w.square])),
    "_thnn_fused_lstm_cell": "what lstm_cell calls",
    "_thnn_fused_gru_cell": "what gru_cell calls",
    "lstm_cell": (A, lambda w, a, b: torch.lstm_cell(first(a), [first(b), first(b)], *w.lstm_)[0]),
    "gru_cell": (A, lambda w, a, b: torch.gru_cell(first(a), first(b), *w.gru_)),
    "rnn_tanh_cell": (A, lambda w, a, b: torch.rnn_tanh_cell(first(a), first(b), *w.rnn_)),
    "rnn_relu_cell": (A, lambda w, a, b: torch.rnn_relu_cell(first(a), first(b), *w.rnn_)),
    "_scaled_dot_product_flash_attention": "what scaled_dot_product_attention calls",
    "scaled_dot_product_attention": (B, lambda w, a, b: F.scaled_dot_product_attention(a, b, b)),
    "acos": (A, lambda w, a, b: torch.acos(unit(a))),
    "asin": (A, lambda w, a, b: torch.asin(unit(a))),
    "cosh": (A, lambda w, a, b: torch.cosh(a)),
    "erfinv": (A, lambda w, a, b: torch.erfinv(unit(a))),
    "exp": (A, lambda w, a, b: torch.exp(a)),
    "expm1": (A, lambda w, a, b: torch.expm1(a)),
    "log": (A, lambda w, a, b: torch.log(positive(a))),
    "log10": (A, lambda w, a, b: torch.log10(positive(a))),
    "log2": (A, lambda w, a, b: torch.log2(positive(a))),
    "log1p": (A, lambda w, a, b: torch.log1p(a.abs())),
    "reciprocal": (A, lambda w, a, b: torch.reciprocal(positive(a))),
    "rsqrt": (A, lambda w, a, b: torch.rsqrt(positive(a))),
    "sinh": (A, lambda w, a, b: torch.sinh(a)),
    "tan": (A, lambda w, a, b: torch.tan(a)),
    "pow": (A, lambda w, a, b: torch.pow(positive(a), b)),
    "softplus": (A, lambda w, a, b: F.softplus(a)),
    "layer_norm": (A, lambda w, a, b: F.layer_norm(a, (8,), w.vector, w.bias)),
    "native_layer_norm": "what layer_norm calls",
    "group_norm": (B, lambda w, a, b: F.group_norm(a, 2, w.channels, w.channels)),
    "frobenius_norm": "what torch.norm(p='fro') calls: linalg_vector_norm",
    "nuclear_norm": "no ONNX operator",
    "cosine_similarity": (A, lambda w, a, b: F.cosine_similarity(a, b, -1)),
    "poisson_nll_loss": (A, loss(F.poisson_nll_loss)),
    "cosine_embedding_loss": (A, lambda w, a, b: F.cosine_embedding_loss(
        first(a), first(b), torch.ones(6, device=a.device))),
    "nll_loss": (A, lambda w, a, b: F.nll_loss(first(a), classes(first(a)))),
    "nll_loss2d": "what nll_loss calls",
    "hinge_embedding_loss": (A, loss(F.hinge_embedding_loss)),
    "kl_div": (A, loss(F.kl_div, reduction="sum")),
    "l1_loss": (A, loss(F.l1_loss)),
    "smooth_l1_loss": (A, loss(F.smooth_l1_loss)),
    "huber_loss": (A, loss(F.huber_loss)),
    "mse_loss": (A, loss(F.mse_loss)),
    "margin_ranking_loss": (A, lambda w, a, b: F.margin_ranking_loss(a, b, torch.ones(a.shape, device=a.device))),
    "multilabel_margin_loss": "no ONNX operator",
    "soft_margin_loss": (A, loss(F.soft_margin_loss)),
    "triplet_margin_loss": (A, lambda w, a, b: F.triplet_margin_loss(a, b, b + 1)),
    "multi_margin_loss": "no ONNX operator",
    "binary_cross_entropy_with_logits": (A, loss(F.binary_cross_entropy_with_logits)),
    "dist": (A, lambda w, a, b: torch.dist(a, b + 1)),
    "pdist": "no ONNX operator",
    "cdist": (A, lambda w, a, b: torch.cdist(a, b + 1)),
    "renorm": "no ONNX operator",
    "logsumexp": (A, lambda w, a, b: torch.logsumexp(a, -1)),
    "upsample_nearest1d": (A, lambda w, a, b: F.interpolate(a, scale_factor=2, mode="nearest")),
    "_upsample_nearest_exact1d": (A, lambda w, a, b: F.interpolate(a, scale_factor=2, mode="nearest-exact")),
    "upsample_nearest2d": (B, lambda w, a, b: F.interpolate(a, scale_factor=2, mode="nearest")),
    "_upsample_nearest_exact2d": (B, lambda w, a, b: F.interpolate(a, scale_factor=2, mode="nearest-exact")),
    "upsample_nearest3d": (B, lambda w, a, b: F.interpolate(a.reshape(BATCH, 4, 4, 4, 4), scale_factor=2)),
    "_upsample_nearest_exact3d": (B, lambda w, a, b: F.interpolate(
        a.reshape(BATCH, 4, 4, 4, 4), scale_factor=2, mode="nearest-exact")),
    "upsample_linear1d": (A, lambda w, a, b: F.interpolate(a, scale_factor=2, mode="linear")),
    "upsample_bilinear2d": (B, lambda w, a, b: F.interpolate(a, scale_factor=2, mode="bilinear")),
    "_upsample_bilinear2d_aa": (B, lambda w, a, b: F.interpolate(a, scale_factor=2, mode="bilinear", antialias=True)),
    "upsample_trilinear3d": (B, lambda w, a, b: F.interpolate(
        a.reshape(BATCH, 4, 4, 4, 4), scale_factor=2, mode="trilinear")),
    "upsample_bicubic2d": (B, lambda w, a, b: F.interpolate(a, scale_factor=2, mode="bicubic")),
    "_upsample_bicubic2d_aa": (B, lambda w, a, b: F.interpolate(a, scale_factor=2, mode="bicubic", antialias=True)),
    "prod": (A, lambda w, a, b: a.prod(-1)),
    "softmax": (A, lambda w, a, b: a.softmax(-1)),
    "log_softmax": (A, lambda w, a, b: a.log_softmax(-1)),
    "cumprod": (A, lambda w, a, b: a.cumprod(-1)),
    "cumsum": (A, lambda w, a, b: a.cumsum(-1)),
    "linalg_vector_norm": (A, lambda w, a, b: torch.linalg.vector_norm(a, dim=-1)),
    "linalg_matrix_norm": (A, lambda w, a, b: torch.linalg.matrix_norm(a)),
    "sum": (A, lambda w, a, b: a.sum(-1)),
    "norm": (A, lambda w, a, b: torch.norm(a)),
    "addcdiv": (A, lambda w, a, b: torch.addcdiv(a, b, b * b + 1)),
    "addcmul": (A, lambda w, a, b: torch.addcmul(a, b, b)),
    "atan2": (A, lambda w, a, b: torch.atan2(a, b)),
    "bilinear": (A, lambda w, a, b: F.bilinear(a, b, w.bilinear)),
    "cross": (A, lambda w, a, b: torch.cross(a[..., :3], b[..., :3], dim=-1)),
    "dot": (A, lambda w, a, b: torch.dot(row(a), row(b))),
    "vdot": (A, lambda w, a, b: torch.vdot(row(a), row(b))),
    "grid_sampler": (B, lambda w, a, b: F.grid_sample(a, unit(b).reshape(BATCH, 8, 16, 2), align_corners=False)),
    "index_put": (A, lambda w, a, b: a.index_put((torch.tensor([0], device=a.device),), b[:1])),
    "tensordot": (A, lambda w, a, b: torch.tensordot(a, b, dims=([2], [2]))),
    "scatter_add": (A, lambda w, a, b: a.scatter_add(1, torch.zeros(a.shape, dtype=torch.int64, device=a.device), b)),
}
# It has no form for tensors without data.
torch.library.impl("aten::_thnn_fused_gru_cell", "Meta")(
    lambda gates, hidden, h, *biases: (torch.empty_like(h), torch.empty_like(hidden)))
OPERANDS = ["f16", "f32", "f16, f32"]
SHAPES = {A: (BATCH, ROWS, WIDTH), B: (BATCH, CHANNELS, SIDE, SIDE)}


def kinds(call):
    """Both, or mixed operands too where the call reads both."""
    reads_second = any(i.argval == "b" and i.opname.startswith("LOAD") for i in dis.get_instructions(call[1]))
    return OPERANDS if reads_second else OPERANDS[:2]


def operands(kind, low, wide):
    return {"f16": (low, low), "f32": (wide, wide), "f16, f32": (low, wide)}[kind]


def dispatched(mode, weights, kind, call):
    """The type of what PyTorch's dispatcher makes of it."""
    given, function = call
    with mode, torch.autocast("cuda", torch.float16):
        low = torch.empty(SHAPES[given], dtype=torch.float16, device="cuda")
        wide = torch.empty(SHAPES[given], device="cuda")
        result = function(weights, *operands(kind, low, wide))
    return {torch.float16: "f16", torch.float32: "f32"}[result.dtype]


class Probes(nn.Module):
    """All calls in one model; fp16 is what a linear layer or a convolution gives."""

    def __init__(self, probes):
        super().__init__()
        self.probes, self.weights = probes, Weights()
        self.rows, self.image, self.head = nn.Linear(8, 8), nn.Conv2d(4, 4, 1), nn.Linear(8, 3)

    def forward(self, rows, image):
        low = {A: self.rows(rows), B: self.image(image)}
        wide = {A: rows, B: image}
        logits, results = self.head(low[A][:, 0]), []
        for name, kind in self.probes:
            given, function = CALLS[name]
            results.append(function(self.weights, *operands(kind, low[given], wide[given])))
            logits = logits + results[-1].sum()
        return logits, *results


def exported(probes, exporter):
    torch.manual_seed(0)
    inputs = (torch.rand(SHAPES[A]), torch.rand(SHAPES[B]))
    names = ["logits"] + [f"probe_{i}" for i in range(len(probes))]
    options = dict(input_names=["rows", "image"], output_names=names)
    written = io.BytesIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        if exporter == "default":
            program = torch.onnx.export(Probes(probes).train(), inputs, dynamo=True, verbose=False, **options)
            return program.model_proto
        torch.onnx.export(Probes(probes).train(), inputs, written, dynamo=False, opset_version=17,
                          do_constant_folding=False, training=torch.onnx.TrainingMode.TRAINING, **options)
    return onnx.load_from_string(written.getvalue())


def stripped(model):
    """Without what names the exporting machine, and values, which do not matter here."""
    for graph in (model.graph, *model.functions):
        for node in graph.node:
            node.ClearField("metadata_props"), node.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.ClearField("metadata_props"), value.ClearField("doc_string")
    model.ClearField("metadata_props"), model.graph.ClearField("value_info"), model.graph.ClearField("metadata_props")
    return model


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    listed = lists()
    names = [name for _, name in listed]
    assert sorted(CALLS) == sorted(names), set(CALLS) ^ set(names)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    weights = under_autocast.on_fake_cuda(mode, Weights())
    probes, types = [], {}
    for policy, name in listed:
        if isinstance(CALLS[name], str):
            continue
        for kind in kinds(CALLS[name]):
            types[name, kind] = dispatched(mode, weights, kind, CALLS[name])
            probes.append((name, kind))
    nodes, why = {}, {}
    for exporter, file in (("default", "default.onnx"), ("TorchScript", "torchscript.onnx")):
        kept = []
        for name in dict.fromkeys(name for name, _ in probes):
            mine = [p for p in probes if p[0] == name]
            try:
                exported(mine, exporter)
                kept += mine
            except Exception as error:
                why[name, exporter] = f"{type(error).__name__}"
        model = stripped(exported(kept, exporter))
        onnx.save(model, out / file)
        by_result = {result: node.name for node in model.graph.node for result in node.output}
        for i, probe in enumerate(kept):
            nodes[probe, exporter] = by_result[f"probe_{i}"]
        print(f"{file}: {len(model.graph.node)} nodes, {(out / file).stat().st_size} bytes", flush=True)
    lines = [f"# What PyTorch {torch.__version__} does under autocast(\"cuda\", float16) with the operators of its lists; made by",
             "# tools/record_autocast.py. policy | operator | its operands | its result | node of default.onnx | of torchscript.onnx"]
    for policy, name in listed:
        if isinstance(CALLS[name], str):
            lines.append(f"{policy} | {name} | - | - | - | - # {CALLS[name]}")
            continue
        for kind in kinds(CALLS[name]):
            cells = [nodes.get(((name, kind), e), "-") for e in ("default", "TorchScript")]
            missing = ", ".join(f"{e}: {why[name, e]}" for e in ("default", "TorchScript") if (name, e) in why)
            lines.append(" | ".join([policy, name, kind, types[name, kind], *cells]) + (f" # {missing}" if missing else ""))
    (out / "operators.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
