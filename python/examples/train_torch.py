"""Halfstep in a PyTorch training loop: train_torch.py MODEL.onnx DATA.npz OUT.onnx, the data x and labels."""
import sys

import halfstep
import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

model, data, out = sys.argv[1:4]
dataset = TensorDataset(*(torch.from_numpy(np.load(data)[name]) for name in ("x", "labels")))
loader = DataLoader(dataset, batch_size=64, shuffle=True, drop_last=True)
step = halfstep.compile(model, batch=64, precision="fp16", optimizer="adamw", learning_rate=0.001)
for epoch in range(5):
    for images, labels in loader:  # on the CPU, or on the GPU that the step runs on
        step.train_step(images=images, labels=labels)
    print(f"epoch {epoch + 1}: loss {step.loss:.4f}")
step.export(out)
