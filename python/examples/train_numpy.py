"""Trains an ONNX classifier on NumPy arrays: train_numpy.py MODEL.onnx DATA.npz OUT.onnx, the data x and labels."""
import sys

import halfstep
import numpy as np

model, data, out = sys.argv[1:4]
x, labels = (np.load(data)[name] for name in ("x", "labels"))
batches = [(x[i:i + 64], labels[i:i + 64]) for i in range(0, len(x) - 63, 64)]
step = halfstep.compile(model, batch=64, precision="fp16", momentum=0.9, learning_rate=0.02)
trainer = halfstep.Trainer(step)
for epoch, metrics in enumerate(trainer.fit(batches, epochs=5)):
    print(f"epoch {epoch + 1}: loss {metrics['loss']:.4f}")
print(f"accuracy {trainer.evaluate(batches)['accuracy']:.4f}")
step.export(out)
