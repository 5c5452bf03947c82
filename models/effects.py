"""Writes the models and data of docs/mixed_precision.md's examples.

usage: python3 effects.py [OUT_DIR]     default: effects, beside this file

line.onnx     y[N,4] = x[N,8] w + b, with small weights
large.onnx    the same with weights about 8
sum.onnx      the sum of 512 numbers, which a loop adds up one after another
total.onnx    the same by ReduceSum
*.npz         points near a line with such weights; a 64 and 511 numbers below 0.03, and their sums
"""
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

COUNT = 512


def save(path, nodes, inputs, outputs, weights):
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    values = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in group.items()]
              for group in (inputs, outputs)]
    model = helper.make_model(helper.make_graph(nodes, path.stem, *values, tensors), ir_version=8,
                              opset_imports=[helper.make_opsetid("", 17)], producer_name="effects.py")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def linear(path, weight):
    rng = np.random.default_rng(1)
    weights = dict(w=(weight + 0.1 * rng.standard_normal((8, 4))).astype(np.float32), b=np.zeros(4, np.float32))
    save(path, [helper.make_node("Gemm", ["x", "w", "b"], ["y"], "gemm")], dict(x=["N", 8]), dict(y=["N", 4]), weights)


def sums(out):
    make = helper.make_node
    body = helper.make_graph(
        [make("Add", ["i", "one"], ["at"], "next"),
         make("Gather", ["x", "at"], ["number"], "take", axis=1),
         make("Add", ["so_far", "number"], ["sum"], "add"),
         make("Identity", ["go"], ["go_on"], "go")], "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("go", TensorProto.BOOL, []),
         helper.make_tensor_value_info("so_far", TensorProto.FLOAT, ["N"])],
        [helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
         helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["N"])])
    ends = [make("Mul", ["total", "gain"], ["y"], "gain")]
    factors = dict(gain=np.ones(1, np.float32))
    save(out / "sum.onnx",
         [make("Gather", ["x", "zero"], ["first"], "take_first", axis=1),
          make("Loop", ["rest", "yes", "first"], ["total"], "loop", body=body), *ends],
         dict(x=["N", COUNT]), dict(y=["N"]),
         dict(factors, zero=np.int64(0), one=np.int64(1), rest=np.int64(COUNT - 1), yes=np.bool_(True)))
    save(out / "total.onnx", [make("ReduceSum", ["x", "axes"], ["total"], "sum", keepdims=0), *ends],
         dict(x=["N", COUNT]), dict(y=["N"]), dict(factors, axes=np.array([1])))


def points(path, weight):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((256, 8)).astype(np.float32)
    line = (weight + (0.1 if weight else 1) * rng.standard_normal((8, 4))).astype(np.float32)
    np.savez(path, x=x, targets=x @ line + 0.02 * rng.standard_normal((256, 4)).astype(np.float32))


def main():
    out = pathlib.Path(sys.argv[1] if sys.argv[1:] else pathlib.Path(__file__).parent / "effects")
    out.mkdir(exist_ok=True)
    linear(out / "line.onnx", 0.0)
    linear(out / "large.onnx", 8.0)
    points(out / "line.npz", 0.0)
    points(out / "large.npz", 8.0)
    sums(out)
    numbers = 0.03 * np.random.default_rng(3).random((4, COUNT), np.float32)
    numbers[:, 0] = 64
    np.savez(out / "numbers.npz", x=numbers, targets=numbers.sum(1, np.float64).astype(np.float32))


if __name__ == "__main__":
    main()
