"""Small models of the families that people export, in the forms that exporters write, with what PyTorch computes.

usage: python3 families.py OUT_DIR [NAME ...]

OUT_DIR/NAME.FORM.onnx holds the weights; it is exported at batch 2. Forms:
  dynamo    the default exporter (opset 20), optimized: batch norms folded into convolutions
  dynamo23  the same at opset 23: Attention and RMSNormalization are operators
  raw       the default exporter with optimize=False: batch norms and shape arithmetic kept
  ts17      the TorchScript exporter, opset 17, TrainingMode.TRAINING, no constant folding
  fresh     the default exporter, of the model as it is initialised: parameters of equal values merged, biases of zeros
            removed; modules and calls stand beside the nodes as the exporter wrote them. Only its losses are recorded
OUT_DIR/NAME.json records, at batch 3, in fp64 (the truth) and fp32: logits, losses of ten SGD steps on one batch, and of
the first step norm, sum and sampled elements of every parameter's gradient; and where each form keeps each parameter.
Batch norm is in training mode; dropout and stochastic depth are off (the exported files have them on).

Inputs are philox.tensor(name, ...); ids and labels floor(bound * u), where every fifth label of a language model is
ignored (-100).
"""
import copy
import json
import os
import pathlib
import sys
import tempfile
import warnings
import zlib

import numpy as np
import onnx
import onnx.numpy_helper
import torch

import philox
from record_references import relative, sample_indices, tidy, write

warnings.filterwarnings("ignore")
nn, F = torch.nn, torch.nn.functional
EXPORTED, RECORDED = 2, 3  # batch sizes
STEPS = 10
IGNORED = -100
FRESH = ["bert", "convnext", "densenet", "gpt2", "swin", "vit"]
NOTES = ["pkg.torch.onnx.name_scopes", "pkg.torch.onnx.fx_node"]  # of the exporter, kept in fresh files
ATTENTION = ["vit", "bert", "distilbert", "gpt2", "llama", "t5"]  # exported with Attention as an operator too


class Logits(nn.Module):
    """A model of the transformers library that takes tensors and gives its logits."""

    def __init__(self, model, **options):
        super().__init__()
        self.m, self.options = model, options

    def forward(self, *inputs):
        return self.m(*inputs, **self.options).logits


class Translator(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.m = model

    def forward(self, ids, decoder_ids):
        return self.m(input_ids=ids, decoder_input_ids=decoder_ids, use_cache=False).logits


class Recurrent(nn.Module):
    def __init__(self, kind, vocabulary=50, width=12, hidden=16, classes=5):
        super().__init__()
        self.e = nn.Embedding(vocabulary, width)
        self.l = kind(width, hidden, 2, batch_first=True, bidirectional=True)
        self.f = nn.Linear(2 * hidden, classes)

    def forward(self, ids):
        h, _ = self.l(self.e(ids))
        return self.f(h[:, -1])


class UNet(nn.Module):
    """Two levels; one way up by a transposed convolution, one by bilinear interpolation."""

    def __init__(self, width=8, classes=4):
        super().__init__()

        def block(i, o):
            return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.GroupNorm(2, o), nn.SiLU(),
                                 nn.Conv2d(o, o, 3, padding=1), nn.InstanceNorm2d(o, affine=True), nn.LeakyReLU(0.1))

        self.down1, self.down2, self.middle = block(3, width), block(width, 2 * width), block(2 * width, 4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.merge2, self.merge1 = block(4 * width, 2 * width), block(3 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, images):
        a = self.down1(images)
        b = self.down2(F.max_pool2d(a, 2))
        c = self.middle(F.avg_pool2d(b, 2))
        b = self.merge2(torch.cat([self.up2(c), b], 1))
        b = F.interpolate(b, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.head(self.merge1(torch.cat([b, a], 1)))


def small_resnet(block, width=8, classes=10):
    return nn.Sequential(
        nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        block(width, width // block.expansion),
        block(width, 2 * width // block.expansion, 2,
              nn.Sequential(nn.Conv2d(width, 2 * width, 1, 2, bias=False), nn.BatchNorm2d(2 * width))),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, classes))


def image_families():
    import torchvision.models as tv
    from torchvision.models import convnext, densenet, efficientnet, mobilenetv2, mobilenetv3, regnet, resnet
    from torchvision.models import shufflenetv2, squeezenet, swin_transformer, vision_transformer

    norm = nn.BatchNorm2d

    def mobilenet_v2():
        return mobilenetv2.MobileNetV2(num_classes=10, width_mult=0.25, round_nearest=4,
                                       inverted_residual_setting=[[1, 16, 1, 1], [4, 24, 2, 2], [4, 32, 1, 2]])

    def mobilenet_v3():
        conf = lambda *a: mobilenetv3.InvertedResidualConfig(*a, 1, 1.0)
        return mobilenetv3.MobileNetV3([conf(8, 3, 16, 8, True, "RE", 2), conf(8, 5, 24, 12, True, "HS", 2),
                                        conf(12, 5, 36, 12, True, "HS", 1)], 32, num_classes=10)

    def efficientnet_small():
        conf = efficientnet.MBConvConfig
        return efficientnet.EfficientNet([conf(1, 3, 1, 8, 8, 1), conf(4, 3, 2, 8, 12, 2), conf(4, 5, 2, 12, 16, 1)],
                                         dropout=0.2, stochastic_depth_prob=0.2, num_classes=10, last_channel=48)

    def convnext_small():
        block = convnext.CNBlockConfig
        return convnext.ConvNeXt([block(8, 16, 1), block(16, 32, 2), block(32, None, 1)], stochastic_depth_prob=0.1,
                                 num_classes=10)

    def swin_small():
        return swin_transformer.SwinTransformer([4, 4], 16, [2, 2], [2, 4], [4, 4], num_classes=10,
                                                stochastic_depth_prob=0.1)

    def regnet_small():
        params = regnet.BlockParams.from_init_params(depth=4, w_0=16, w_a=8.0, w_m=2.0, group_width=8, se_ratio=0.25)
        return regnet.RegNet(params, num_classes=10, stem_width=8)

    def vit_small():
        return vision_transformer.VisionTransformer(32, 8, 2, 2, 32, 64, dropout=0.1, attention_dropout=0.1,
                                                    num_classes=10)

    def squeezenet_small():
        fire = squeezenet.Fire
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, ceil_mode=True), fire(16, 4, 16, 16),
            fire(32, 4, 16, 16), nn.MaxPool2d(3, 2, ceil_mode=True), fire(32, 8, 24, 24), nn.Dropout(0.5),
            nn.Conv2d(48, 10, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    return {
        "resnet": lambda: small_resnet(resnet.BasicBlock),
        "resnet_bottleneck": lambda: small_resnet(resnet.Bottleneck, 16),
        "mobilenet_v2": mobilenet_v2,
        "mobilenet_v3": mobilenet_v3,
        "efficientnet": efficientnet_small,
        "convnext": convnext_small,
        "swin": swin_small,
        "densenet": lambda: densenet.DenseNet(8, (2, 2), 16, bn_size=2, num_classes=10),
        "regnet": regnet_small,
        "vit": vit_small,
        "shufflenet_v2": lambda: shufflenetv2.ShuffleNetV2([1, 2, 1], [8, 16, 32, 32, 64], num_classes=10),
        "squeezenet": squeezenet_small,
        "unet": UNet,
    }


def text_families():
    import transformers as tf

    V, S = 64, 16
    common = dict(vocab_size=V)
    bert = lambda: tf.BertConfig(**common, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                                 intermediate_size=64, max_position_embeddings=S)
    distilbert = lambda: tf.DistilBertConfig(**common, dim=32, n_layers=2, n_heads=2, hidden_dim=64, num_labels=4,
                                             max_position_embeddings=S)
    gpt2 = lambda: tf.GPT2Config(**common, n_embd=32, n_layer=2, n_head=2, n_positions=S, use_cache=False,
                                 bos_token_id=0, eos_token_id=0)
    llama = lambda: tf.LlamaConfig(**common, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                   num_key_value_heads=2, intermediate_size=64, max_position_embeddings=S,
                                   use_cache=False, bos_token_id=0, eos_token_id=0)
    t5 = lambda: tf.T5Config(**common, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, num_decoder_layers=2,
                             use_cache=False, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)
    return {
        "bert": (lambda: Logits(tf.BertForMaskedLM(bert())), [V], S),
        "distilbert": (lambda: Logits(tf.DistilBertForSequenceClassification(distilbert())), [V], S),
        "gpt2": (lambda: Logits(tf.GPT2LMHeadModel(gpt2()), use_cache=False), [V], S),
        "llama": (lambda: Logits(tf.LlamaForCausalLM(llama()), use_cache=False), [V], S),
        "t5": (lambda: Translator(tf.T5ForConditionalGeneration(t5())), [V, V], S),
        "lstm": (lambda: Recurrent(nn.LSTM), [50], 8),
        "gru": (lambda: Recurrent(nn.GRU), [50], 8),
    }


INPUT_NAMES = {"t5": ["input_ids", "decoder_input_ids"]}


def input_specs(name):
    """Of every data input, in order: its shape without the batch, and the bound of ids or None for images."""
    if name in image_families():
        return {"images": ((3, 32, 32), None)}
    _, bounds, length = text_families()[name]
    return {n: ((length,), bound) for n, bound in zip(INPUT_NAMES.get(name, ["input_ids"]), bounds)}


def initialise(name):
    """The model in training mode with seeded weights."""
    torch.manual_seed(zlib.crc32(name.encode()))
    families = image_families()
    model = families[name]() if name in families else text_families()[name][0]()
    return model.train()


def make(name):
    """The model with weights no two of which are equal and none 0 or 1."""
    model = initialise(name)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn_like(p))
    return model


def draw(name, batch):
    """The model's inputs at a batch size."""
    tensors = []
    for key, (shape, bound) in input_specs(name).items():
        if bound is None:
            tensors.append(torch.from_numpy(philox.tensor(key, (batch, *shape), -1.0, 1.0)))
        else:
            u = philox.uniform(zlib.crc32(key.encode()), batch * int(np.prod(shape)))
            tensors.append(torch.from_numpy(np.floor(np.float32(bound) * u).astype(np.int64).reshape(batch, *shape)))
    return tensors


def draw_labels(logits):
    """[N], [N, S] or [N, H, W] for logits [N, C], [N, S, C] or [N, C, H, W]; every fifth of [N, S] is ignored."""
    classes = logits.shape[1] if logits.dim() == 4 else logits.shape[-1]
    shape = (logits.shape[0], *logits.shape[2:]) if logits.dim() == 4 else tuple(logits.shape[:-1])
    u = philox.uniform(zlib.crc32(b"labels"), int(np.prod(shape)))
    labels = np.floor(np.float32(classes) * u).astype(np.int64)
    if logits.dim() == 3:
        labels[4::5] = IGNORED
    return torch.from_numpy(labels.reshape(shape)), classes


def loss_of(logits, labels):
    if logits.dim() == 3:
        logits, labels = logits.flatten(0, 1), labels.flatten()
    return F.cross_entropy(logits, labels, ignore_index=IGNORED)


def without_dropout(model):
    """Dropout and stochastic depth off; batch norm keeps training."""
    for module in model.modules():
        if isinstance(module, nn.Dropout) or type(module).__name__ == "StochasticDepth":
            module.p = 0.0
        for key in ("dropout", "attention_dropout", "dropout_rate", "attention_dropout_p"):
            if isinstance(getattr(module, key, None), float):
                setattr(module, key, 0.0)
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    return model


def rate(name):
    """At which the loss of one small batch falls and fp32 stays near fp64."""
    return dict(shufflenet_v2=0.001).get(name, 0.01 if name in image_families() else 0.1)


class Run:
    """Ten SGD steps on one batch: logits and gradients of the first, losses of all."""

    def __init__(self, name, dtype, making=make):
        model = without_dropout(making(name)).to(dtype)
        inputs = [x.to(dtype) if x.is_floating_point() else x for x in draw(name, RECORDED)]
        optimizer = torch.optim.SGD(model.parameters(), lr=rate(name), momentum=0.9)
        self.losses = []
        for step in range(STEPS):
            logits = model(*inputs)
            labels, _ = draw_labels(logits)
            loss = loss_of(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            self.losses.append(loss.item())
            if step == 0:
                self.logits = logits.detach()
                self.gradients = {key: p.grad.detach().clone() if p.grad is not None else torch.zeros_like(p)
                                  for key, p in model.named_parameters()}
            optimizer.step()
        assert np.isfinite(self.losses).all(), (name, self.losses)

    def distance(self, truth):
        return dict(
            logits=relative(self.logits, truth.logits),
            losses=tidy([abs(a - b) / abs(b) for a, b in zip(self.losses, truth.losses)]),
            gradients={key: tidy((g.double() - truth.gradients[key]).norm().item() /
                                 max(truth.gradients[key].norm().item(), 1e-30))
                       for key, g in self.gradients.items()})


def recorded_gradients(run):
    result = {}
    for key, gradient in run.gradients.items():
        flat = gradient.double().flatten()
        indices = sample_indices(flat.numel())
        result[key] = dict(shape=list(gradient.shape), norm=tidy(flat.norm().item()), sum=tidy(flat.sum().item()),
                           indices=indices, values=tidy(flat[indices].tolist()))
    return result


def places(model, path):
    """Where an exported file keeps each parameter: {name: [[initializer, permutation or null], ...]}; [] if nowhere.

    A tied weight may have become two initializers. Exporters rename and transpose, so parameters are found by value.
    """
    initializers = {i.name: onnx.numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}
    result = {}
    for key, p in model.named_parameters():
        value = p.detach().numpy()
        found = []
        for name, array in initializers.items():
            if array.size != value.size or array.dtype != value.dtype:
                continue
            if array.shape == value.shape and np.array_equal(array, value):
                found.append([name, None])
            elif value.ndim == 2 and array.shape == value.T.shape and np.array_equal(array, value.T):
                found.append([name, [1, 0]])
            elif np.array_equal(array.ravel(), value.ravel()):
                found.append([name, None])
        result[key] = found
    return result


def has_batch_norm(model):
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def forms(name):
    return ["dynamo", "dynamo23", "raw", "ts17"] if name in ATTENTION else ["dynamo", "raw", "ts17"]


def strip(path, out, kept=()):
    """Drops what names the exporting machine, and everything that is not the model."""
    model = onnx.load(path)
    model.ClearField("metadata_props")
    for graph in (model.graph, *model.functions):
        for node in graph.node:
            notes = [note for note in node.metadata_props if note.key in kept]
            node.ClearField("metadata_props")
            node.metadata_props.extend(notes)
            node.ClearField("doc_string")
    model.graph.ClearField("metadata_props")
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    model.graph.ClearField("value_info")
    onnx.save(model, out)


def export(name, form, out):
    model, inputs = initialise(name) if form == "fresh" else make(name), tuple(draw(name, EXPORTED))
    names = list(input_specs(name))
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "model.onnx")
        if form == "ts17":
            torch.onnx.export(model, inputs, path, dynamo=False, opset_version=17, do_constant_folding=False,
                              training=torch.onnx.TrainingMode.TRAINING, input_names=names, output_names=["logits"])
        else:
            torch.onnx.export(model, inputs, path, dynamo=True, external_data=False, optimize=form != "raw",
                              opset_version=23 if form == "dynamo23" else 20, input_names=names,
                              output_names=["logits"], verbose=False)
        strip(path, out, NOTES if form == "fresh" else ())
    return places(model, out)


def record(name, out):
    kept = {}
    for form in forms(name):
        path = out / f"{name}.{form}.onnx"
        try:
            kept[form] = export(name, form, path)
            print(f"{path.name}: {path.stat().st_size} bytes", flush=True)
        except Exception as error:
            path.unlink(missing_ok=True)
            print(f"{path.name}: not exported: {str(error)[:200]!r}", flush=True)
    fresh = {}
    if name in FRESH:
        export(name, "fresh", out / f"{name}.fresh.onnx")
        fresh = dict(fresh_losses=tidy(Run(name, torch.float64, initialise).losses))
    truth, single = Run(name, torch.float64), Run(name, torch.float32)
    labels, classes = draw_labels(truth.logits)
    inputs = {key: dict(shape=[RECORDED, *shape], **(dict(low=-1.0, high=1.0) if bound is None else dict(bound=bound)))
              for key, (shape, bound) in input_specs(name).items()}
    write(out / f"{name}.json", dict(
        model=name, torch=torch.__version__, inputs=inputs, batch_norm=has_batch_norm(make(name)),
        labels=dict(shape=list(labels.shape), classes=classes, ignored=IGNORED, values=labels.flatten().tolist()),
        sgd=dict(lr=rate(name), momentum=0.9), losses=tidy(truth.losses),
        logits=tidy(truth.logits.flatten().tolist()) if truth.logits.numel() <= 4096 else None,
        logits_norm=tidy(truth.logits.norm().item()),
        gradients=recorded_gradients(truth), fp32_error=single.distance(truth), parameters=kept, **fresh))


def main():
    philox.check()
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or [*image_families(), *text_families()]:
        record(name, out)


if __name__ == "__main__":
    main()
