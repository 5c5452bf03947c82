"""Exports the byte-level language models of this folder from their reference implementation, with fresh seeded weights.

usage: python3 export_text.py [OUT_DIR [NAME ...]]     default: this folder; gpt2_tiny

gpt2_tiny.onnx (4 layers, 64 wide, windows of 64 bytes) is checked in; gpt2_small (6 layers, 384 wide, windows of 256
bytes, 43 MB) is not. Exported by PyTorch 2.11 from transformers 5.17.
"""
import os
import pathlib
import sys
import tempfile

import torch
import transformers

import families

BYTES = 256
CONFIGURATIONS = {
    "gpt2_tiny": dict(n_embd=64, n_layer=4, n_head=2, n_positions=64, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0),
    "gpt2_small": dict(n_embd=384, n_layer=6, n_head=6, n_positions=256),
}


def make(name):
    torch.manual_seed(0)
    configuration = transformers.GPT2Config(vocab_size=BYTES, use_cache=False, bos_token_id=0, eos_token_id=0,
                                            **CONFIGURATIONS[name])
    model = families.Logits(transformers.GPT2LMHeadModel(configuration), use_cache=False).train()
    # The exporter merges parameters of equal values, such as fresh biases and norms, into one.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(1e-4 * torch.randn_like(parameter))
    return model


def export(name, out):
    ids = torch.randint(BYTES, (2, CONFIGURATIONS[name]["n_positions"]))
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "model.onnx")
        torch.onnx.export(make(name), (ids,), path, dynamo=True, external_data=False, input_names=["input_ids"],
                          output_names=["logits"], verbose=False)
        families.strip(path, out)


def main():
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent
    for name in sys.argv[2:] or ["gpt2_tiny"]:
        export(name, str(out / f"{name}.onnx"))


if __name__ == "__main__":
    main()
