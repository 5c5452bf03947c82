"""Exports the models of this folder from PyTorch, with fresh seeded weights inside.

usage: python3 export.py [OUT_DIR [NAME ...]]     default: this folder; mlp lenet

mlp.onnx and lenet.onnx are checked in, exported by PyTorch 2.11. A model with batch norm (resnet18, resnet50) goes
through the TorchScript exporter: the default one folds batch norms into convolutions, which loses them for training.
"""
import pathlib
import sys

import onnx
import torch

import zoo


def drop_stack_traces(path):
    """The default exporter notes in every node which files of the exporting machine it came from."""
    model = onnx.load(path)
    for node in model.graph.node:
        kept = [entry for entry in node.metadata_props if "stack_trace" not in entry.key]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
        node.ClearField("doc_string")
    onnx.save(model, path)


def export(name, path):
    torch.manual_seed(0)
    model = zoo.make(name)
    images = torch.randn(2, *zoo.image_shape(name))
    names = dict(input_names=["images"], output_names=["logits"])
    if any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in model.modules()):
        torch.onnx.export(model, (images,), path, dynamo=False, training=torch.onnx.TrainingMode.TRAINING,
                          do_constant_folding=False, **names)
    else:
        torch.onnx.export(model, (images,), path, dynamo=True, external_data=False, **names)
    drop_stack_traces(path)


def main():
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent
    for name in sys.argv[2:] or ["mlp", "lenet"]:
        export(name, str(out / f"{name}.onnx"))


if __name__ == "__main__":
    main()
