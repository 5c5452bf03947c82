#!/usr/bin/env python3
"""Writes the models and data of this folder, which docs/tasks.md trains.

usage: python3 models/tasks/tasks.py        needs torch, torchvision, transformers, onnx, onnxscript, tokenizers, numpy, Pillow

`networks(large)` are the same six by their file's name, small or of the sizes that tools/compare_tasks.py trains."""
import pathlib
import sys
import tempfile

import numpy as np
import onnx
import onnx.numpy_helper
import torch
from torch import nn

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent), str(pathlib.Path(__file__).resolve().parent.parent)]
import families  # noqa: E402
import task_data  # noqa: E402

F = nn.functional


class Classifier(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.m = model

    def forward(self, input_ids, attention_mask):
        return self.m(input_ids=input_ids, attention_mask=attention_mask).logits


class UNet(nn.Module):
    """Ronneberger et al. 2015 with batch norm and padded convolutions."""

    def __init__(self, widths, classes):
        super().__init__()

        def block(i, o):
            layers = [f(c) for c in (i, o) for f in (lambda c: nn.Conv2d(c, o, 3, padding=1, bias=False), lambda _: nn.BatchNorm2d(o), lambda _: nn.ReLU())]
            return nn.Sequential(*layers)

        self.down = nn.ModuleList(block(i, o) for i, o in zip([1, *widths], widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in widths[-2::-1])
        self.merge = nn.ModuleList(block(2 * w, w) for w in widths[-2::-1])
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x):
        kept = []
        for i, block in enumerate(self.down):
            x = block(x if i == 0 else F.max_pool2d(x, 2))
            kept.append(x)
        for up, merge, skip in zip(self.up, self.merge, kept[-2::-1]):
            x = merge(torch.cat([skip, up(x)], 1))
        return self.head(x)


def mlp(inputs, hidden, outputs):
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def networks(large=False):
    """{file: (makes the module, shapes of a sample by input, bounds of ids, exporter)}"""
    import transformers as tf
    from torchvision.models import mobilenetv2

    def mobilenet():
        classes = 7 if large else len(task_data.BASE)
        small = dict(width_mult=0.25, round_nearest=4, inverted_residual_setting=[[1, 16, 1, 1], [4, 24, 2, 2], [4, 32, 1, 2]])
        return mobilenetv2.MobileNetV2(num_classes=classes, **({} if large else small))

    def bert():
        sizes = dict(vocab_size=8000, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024) if large else dict(
            vocab_size=200, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
        config = tf.BertConfig(**sizes, max_position_embeddings=length, num_labels=8 if large else 2)
        return Classifier(tf.BertForSequenceClassification(config))

    def gpt2():
        sizes = dict(n_embd=256, n_layer=4, n_head=4) if large else dict(n_embd=32, n_layer=2, n_head=2)
        config = tf.GPT2Config(vocab_size=256, n_positions=window, attn_pdrop=0, use_cache=False, bos_token_id=0, eos_token_id=0, **sizes)
        return families.Logits(tf.GPT2LMHeadModel(config), use_cache=False)

    side, length, window = (64, 32, 128) if large else (32, 24, 64)
    hidden = 128 if large else 32
    return {
        "mobilenet": (mobilenet, dict(images=(3, side, side)), {}, "ts17"),
        "labels": (lambda: mlp(8, hidden, 3), dict(x=(8,)), {}, "ts17"),
        "unet": (lambda: UNet([16, 32, 64, 128] if large else [8, 16], 4), dict(images=(1, side, side)), {}, "ts17"),
        "bert": (bert, dict(input_ids=(length,), attention_mask=(length,)), dict(input_ids=8000 if large else 200, attention_mask=2), "ts17"),
        "gpt2": (gpt2, dict(input_ids=(window,)), dict(input_ids=256), "dynamo"),
        "values": (lambda: mlp(10, hidden, 1), dict(x=(10,)), {}, "ts17"),
    }


def make(name, seed, large=False):
    torch.manual_seed(seed)
    model = networks(large)[name][0]().train()
    # The exporter merges parameters of equal values, such as fresh biases and norms, into one.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(1e-4 * torch.randn_like(parameter))
    return model


def export(name, model, path, large=False):
    """As docs/tasks.md says: in training mode, with an open batch."""
    _, shapes, bounds, exporter = networks(large)[name]
    inputs = tuple(torch.randint(bounds[n], (2, *shape)) if n in bounds else torch.randn(2, *shape) for n, shape in shapes.items())
    state = {key: value.clone() for key, value in model.state_dict().items()}
    output = "logits"
    if exporter == "ts17":
        torch.onnx.export(model, inputs, str(path), dynamo=False, opset_version=17, do_constant_folding=False, training=torch.onnx.TrainingMode.TRAINING,
                          input_names=list(shapes), output_names=[output], dynamic_axes={n: {0: "batch"} for n in [*shapes, output]})
    else:
        with tempfile.TemporaryDirectory() as scratch:
            torch.onnx.export(model, inputs, f"{scratch}/model.onnx", dynamo=True, external_data=False, input_names=list(shapes), output_names=[output], verbose=False)
            families.strip(f"{scratch}/model.onnx", str(path))
    # The exporter ran the model, which moved running statistics by a tenth of what these inputs have, in the file too.
    model.load_state_dict(state)
    file = onnx.load(str(path))
    for tensor in file.graph.initializer:
        if tensor.name in state and "running_" in tensor.name:
            tensor.CopyFrom(onnx.numpy_helper.from_array(state[tensor.name].numpy(), tensor.name))
    onnx.save(file, str(path))


def learnt_before(model, images, labels, epochs, batch, device="cpu"):
    """Trains a network of images, 3 channels of (x / 255 - 0.45) / 0.25 as the page's commands say, on grey u8 [N, H, W]."""
    model.to(device).train()
    steps = epochs * (len(labels) // batch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
    x = (torch.from_numpy(images).to(device).float()[:, None] / 255 - 0.45) / 0.25
    y = torch.from_numpy(labels).to(device)
    for _ in range(epochs):
        order = torch.randperm(len(y), device=device)
        for at in order[:len(y) // batch * batch].split(batch):
            side = 64 if len(y) > 5000 else 32
            pictures = F.interpolate(x[at], (side, side), mode="bilinear", align_corners=False).expand(-1, 3, -1, -1)
            loss = F.cross_entropy(model(pictures), y[at])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    print(f"learnt before: loss {loss.item():.3f} on the last batch", flush=True)
    return model.cpu()


def base_pictures(files=None):
    """What mobilenet.onnx learns before it is fine-tuned: (images, labels)."""
    sprites = task_data.Sprites(files, dict(train=200))
    kinds = [kind for kind in task_data.GARMENTS if kind not in task_data.HARD] if files else task_data.BASE
    pictures = [sprites.of(kind, "train") for kind in kinds]
    return np.concatenate(pictures), np.repeat(np.arange(len(kinds)), [len(p) for p in pictures])


def main():
    here = pathlib.Path(__file__).resolve().parent
    task_data.write(here)
    for name in networks():
        model = make(name, 0)
        if name == "mobilenet":
            model = learnt_before(model, *base_pictures(), epochs=8, batch=25)
        export(name, model, here / f"{name}.onnx")


if __name__ == "__main__":
    main()
