#!/usr/bin/env python3
"""Trains small classifiers as other libraries export them, and compares losses with ONNX Runtime's.

usage: tools/compare_exporters.py HALFSTEP [NAME ...] [--table FILE] [--keep DIR]
needs numpy, onnx, onnxruntime, and of tensorflow + keras + tf2onnx, jax + jax2onnx, scikit-learn + skl2onnx, paddlepaddle +
paddle2onnx and spox what is to be compared; the rest is left out by name.

Each file is trained in fp32 and in fp16 with AMP, on points that a random linear map labels. Cross-entropy over all samples:
before, of the file; after, of the file that training wrote; each by `halfstep eval` and by ONNX Runtime, which runs the files
in fp32 and takes probabilities for what they are. A row agrees if both pairs are within 1e-5 (fp32) or 5e-3 (fp16) of the
larger, and the loss fell by a third.
"""

import argparse
import importlib.metadata
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np

LIMITS = {"fp32": 1e-5, "fp16": 5e-3}
SAMPLES, FEATURES, SIDE, CLASSES = 512, 16, 8, 4


# ---- the models: each writes a file with a free batch axis ----

def keras_model(kind):
    import os
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras
    keras.utils.set_random_seed(1)
    layers = keras.layers
    if kind == "mlp":
        parts = [layers.Input((FEATURES,)), layers.Dense(32, activation="relu"),
                 layers.Dense(CLASSES, activation="softmax")]
    else:
        norm = [layers.BatchNormalization()] if kind == "cnn_bn" else []
        parts = [layers.Input((SIDE, SIDE, 1)), layers.Conv2D(8, 3, padding="same"), *norm, layers.Activation("relu"),
                 layers.MaxPooling2D(), layers.Conv2D(16, 3, activation="relu"), layers.Flatten(),
                 layers.Dropout(0.1), layers.Dense(CLASSES, activation="softmax")]
    model = keras.Sequential(parts)
    model(np.zeros((1, *model.input_shape[1:]), np.float32))
    return model


def keras_export(kind, path):
    model = keras_model(kind)
    model.predict(np.zeros((2, *model.input_shape[1:]), np.float32), verbose=0)
    model.export(path, format="onnx", verbose=False)


def tf2onnx_convert(kind, path):
    import tensorflow as tf
    import tf2onnx
    model = keras_model(kind)
    signature = (tf.TensorSpec(model.input_shape, tf.float32, name="x"),)
    function = tf.function(lambda x: model(x, training=False), input_signature=signature, autograph=False)
    tf2onnx.convert.from_function(function, input_signature=signature, opset=17, output_path=path)


def jax2onnx_export(kind, path):
    import jax
    import jax.numpy as jnp
    import jax2onnx
    import onnx
    random = np.random.default_rng(1)

    def weight(*shape):
        return jnp.asarray(random.normal(0, 1 / np.sqrt(np.prod(shape[:-1])), shape).astype(np.float32))

    if kind == "mlp":
        w1, b1, w2, b2 = weight(FEATURES, 32), jnp.zeros(32), weight(32, CLASSES), jnp.zeros(CLASSES)

        def model(x):
            return jax.nn.softmax(jax.nn.relu(x @ w1 + b1) @ w2 + b2)

        shape = ("B", FEATURES)
    else:
        k1, k2 = weight(3, 3, 1, 8), weight(3, 3, 8, 16)
        b1, b2, w, b = jnp.zeros(8), jnp.zeros(16), weight(64, CLASSES), jnp.zeros(CLASSES)

        def convolution(x, k, stride):
            return jax.lax.conv_general_dilated(x, k, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

        def model(x):
            x = jax.nn.relu(convolution(x, k1, 2) + b1)
            x = jax.nn.gelu(convolution(x, k2, 2) + b2)
            return x.reshape(x.shape[0], 64) @ w + b

        shape = ("B", SIDE, SIDE, 1)
    file = jax2onnx.to_onnx(model, [shape])
    onnx.save(file, path)


def skl2onnx_convert(kind, path):
    import warnings
    import skl2onnx
    from sklearn.neural_network import MLPClassifier
    warnings.filterwarnings("ignore")
    random = np.random.default_rng(2)
    x, labels = random.normal(size=(SAMPLES, FEATURES)).astype(np.float32), random.integers(0, CLASSES, SAMPLES)
    classifier = MLPClassifier((32, 16), max_iter=1, random_state=1).fit(x, labels)
    file = skl2onnx.to_onnx(classifier, x[:1], options={"zipmap": False})
    pathlib.Path(path).write_bytes(file.SerializeToString())


def paddle_export(kind, path):
    import paddle
    nn = paddle.nn
    paddle.seed(1)
    if kind == "mlp":
        model = nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Linear(32, CLASSES), nn.Softmax())
        shape = [None, FEATURES]
    else:
        model = nn.Sequential(nn.Conv2D(1, 8, 3, padding=1), nn.BatchNorm2D(8), nn.ReLU(), nn.MaxPool2D(2), nn.Conv2D(8, 16, 3),
                              nn.Hardswish(), nn.Flatten(), nn.Linear(64, CLASSES))
        shape = [None, 1, SIDE, SIDE]
    model.eval()
    paddle.onnx.export(model, path.removesuffix(".onnx"), input_spec=[paddle.static.InputSpec(shape, "float32", "x")],
                       opset_version=15)


def spox_build(kind, path):
    import onnx
    import spox.opset.ai.onnx.v17 as op
    from spox import Tensor, argument, build
    random = np.random.default_rng(1)

    def weight(*shape):
        return op.constant(value=random.normal(0, 0.3, shape).astype(np.float32))

    if kind == "mlp":
        x = argument(Tensor(np.float32, ("N", FEATURES)))
        y = op.matmul(op.relu(op.add(op.matmul(x, weight(FEATURES, 32)), weight(32))), weight(32, CLASSES))
    else:
        x = argument(Tensor(np.float32, ("N", 1, SIDE, SIDE)))
        y = op.relu(op.conv(x, weight(8, 1, 3, 3), weight(8), strides=[2, 2]))
        y = op.gemm(op.flatten(y), weight(72, CLASSES), weight(CLASSES))
    onnx.save(build({"x": x}, {"probabilities": op.softmax(y)}), path)


MAKERS = {  # exporter: how, packages, kinds
    "keras": (keras_export, ("keras", "tensorflow-cpu", "tf2onnx"), ("mlp", "cnn", "cnn_bn")),
    "tf2onnx": (tf2onnx_convert, ("tf2onnx", "tensorflow-cpu"), ("mlp", "cnn", "cnn_bn")),
    "jax2onnx": (jax2onnx_export, ("jax2onnx", "jax"), ("mlp", "cnn")),
    "skl2onnx": (skl2onnx_convert, ("skl2onnx", "scikit-learn"), ("mlp",)),
    "paddle": (paddle_export, ("paddle2onnx", "paddlepaddle"), ("mlp", "cnn")),
    "spox": (spox_build, ("spox",), ("mlp", "cnn")),
}


# ---- what they compute ----

def session_of(path):
    import onnxruntime
    onnxruntime.set_default_logger_severity(3)
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def points(path):
    """Samples of the model's input, labelled by a random linear map: (input name, x, labels)."""
    session = session_of(path)
    info = session.get_inputs()[0]
    random = np.random.default_rng(3)
    x = random.normal(size=(SAMPLES, *info.shape[1:])).astype(np.float32)
    labels = (x.reshape(SAMPLES, -1) @ random.normal(size=(int(np.prod(x.shape[1:])), CLASSES))).argmax(1)
    return info.name, x, labels.astype(np.int64)


def runtime_loss(path, x, labels):
    """(the output that has the classes, cross-entropy)"""
    session = session_of(path)
    for info, value in zip(session.get_outputs(), session.run(None, {session.get_inputs()[0].name: x})):
        if value.dtype != np.float32 or value.shape != (SAMPLES, CLASSES):
            continue
        value = value.astype(np.float64)
        logits = np.log(value) if (value >= 0).all() and np.allclose(value.sum(1), 1, atol=1e-4) else value
        shifted = logits - logits.max(1, keepdims=True)
        return info.name, float((np.log(np.exp(shifted).sum(1)) - shifted[np.arange(SAMPLES), labels]).mean())
    raise ValueError(f"{path} has no output [{SAMPLES}, {CLASSES}]")


def halfstep(binary, *arguments):
    done = subprocess.run([binary, *map(str, arguments), "--json"], capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(" ".join((done.stderr + done.stdout).split())[:300])
    return json.loads(done.stdout)


def compare(binary, path, precision, folder):
    """(before: ours, ONNX Runtime's; after: ours, ONNX Runtime's)"""
    name, x, labels = points(path)
    np.savez(folder / "data.npz", **{name: x, "labels": labels})
    output, before = runtime_loss(path, x, labels)
    common = [path, "--data", folder / "data.npz", "--test_data", folder / "data.npz", "--batch", 32, "--output", output,
              "--precision", precision, "--device", "cpu"]
    ours = halfstep(binary, "eval", *common)["loss"]
    out = folder / precision
    shutil.rmtree(out, ignore_errors=True)
    halfstep(binary, "train", *common, "--epochs", 40, "--optimizer", "adam", "--learning_rate", 0.005, "--seed", 1, "--out", out)
    trained = halfstep(binary, "eval", *common, "--checkpoint", out / "checkpoints")["loss"]
    return ours, before, trained, runtime_loss(next(out.glob("*.onnx")), x, labels)[1]


def versions(packages):
    found = []
    for package in packages:
        for name in {package, package.removesuffix("-cpu")}:
            try:
                found.append(f"{name} {importlib.metadata.version(name)}")
            except importlib.metadata.PackageNotFoundError:
                pass
    return ", ".join(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("halfstep", nargs="?")
    parser.add_argument("names", nargs="*", help="of " + ", ".join(MAKERS))
    parser.add_argument("--table", type=pathlib.Path, help="the file for the table (Markdown); default: standard output")
    parser.add_argument("--keep", type=pathlib.Path, help="a folder for the files")
    parser.add_argument("--make", nargs=3, metavar=("EXPORTER", "KIND", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make:
        exporter, kind, path = args.make
        return MAKERS[exporter][0](kind, path)
    binary = str(pathlib.Path(args.halfstep).resolve())
    lines = ["| exporter | model | precision | loss before: ours, ONNX Runtime's | after: ours, ONNX Runtime's | |", "|---|---|---|---|---|---|"]
    failed = 0
    with tempfile.TemporaryDirectory() as directory:
        for exporter, (_, packages, kinds) in MAKERS.items():
            if args.names and exporter not in args.names:
                continue
            for kind in kinds:
                folder = (args.keep or pathlib.Path(directory)) / f"{exporter}_{kind}"
                folder.mkdir(parents=True, exist_ok=True)
                path = folder / "model.onnx"
                made = subprocess.run([sys.executable, __file__, "--make", exporter, kind, path], capture_output=True, text=True)
                if not path.exists():
                    why = (made.stderr.strip().splitlines() or ["nothing written"])[-1][:160]
                    print(f"{exporter} {kind}: not exported: {why}", file=sys.stderr)
                    lines.append(f"| {exporter} | {kind} | | | | not exported: {why} |")
                    continue
                for precision, limit in LIMITS.items():
                    try:
                        ours, before, trained, after = compare(binary, path, precision, folder)
                        off = max(abs(ours - before) / max(ours, before), abs(trained - after) / max(trained, after))
                        bad = "" if off <= limit else f"off by {off:.1e}"
                        bad = bad or ("" if after < before * 2 / 3 else "the loss did not fall")
                        row = f"{ours:.6f}, {before:.6f} | {trained:.6f}, {after:.6f} | {bad or f'agrees ({off:.0e})'}"
                    except Exception as error:
                        bad = str(error).splitlines()[0][:300]
                        row = f" | | {bad.replace('|', ',')}"
                    failed += bool(bad)
                    if bad:
                        print(f"{exporter} {kind} {precision}: {bad}", file=sys.stderr)
                    lines.append(f"| {exporter} | {kind} | {precision} | {row} |")
    text = "Packages: " + "; ".join(versions(p) for _, p, _ in MAKERS.values()) + f"; {versions(('onnxruntime',))}.\n\n"
    text += "\n".join(lines) + "\n"
    args.table.write_text(text) if args.table else print(text)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
