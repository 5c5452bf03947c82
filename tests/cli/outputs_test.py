"""halfstep export --outputs: a loss in the graph is taken out again, held to onnx.checker and ONNX Runtime.

usage: python3 outputs_test.py HALFSTEP
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

RANDOM = np.random.default_rng(5)


def value(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes, inputs, outputs, weights):
    tensors = [numpy_helper.from_array(RANDOM.normal(size=shape).astype(np.float32), name)
               if isinstance(shape, tuple) else numpy_helper.from_array(shape, name) for name, shape in weights.items()]
    graph = helper.make_graph(nodes, "m", inputs, outputs, tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made


def trunk(classes):
    return [helper.make_node("Gemm", ["x", "w1"], ["h"], transB=1, name="fc1"),
            helper.make_node("Tanh", ["h"], ["t"], name="tanh"),
            helper.make_node("Gemm", ["t", "w2"], ["logits"], transB=1, name="fc2")], dict(w1=(8, 4), w2=(classes, 8))


def cross_entropy():
    """A loss beside the logits, which are an output already."""
    nodes, weights = trunk(3)
    nodes.append(helper.make_node("SoftmaxCrossEntropyLoss", ["logits", "labels", "class_weights"], ["loss"], name="loss"))
    weights["class_weights"] = np.array([1, 2, 3], np.float32)
    inputs = [value("x", TensorProto.FLOAT, ["N", 4]), value("labels", TensorProto.INT64, ["N"])]
    outputs = [value("loss", TensorProto.FLOAT, []), value("logits", TensorProto.FLOAT, ["N", 3])]
    return model(nodes, inputs, outputs, weights), ["logits"], ["labels"], ["loss"]


def written_out():
    """A loss of which the logits are no output, and whose type the file does not say."""
    nodes, weights = trunk(1)
    nodes += [helper.make_node("Sub", ["logits", "targets"], ["d"]), helper.make_node("Mul", ["d", "d"], ["s"]),
              helper.make_node("ReduceMean", ["s"], ["loss"], keepdims=0)]
    inputs = [value("x", TensorProto.FLOAT, [4, 4]), value("targets", TensorProto.FLOAT, [4, 1])]
    return model(nodes, inputs, [value("loss", TensorProto.FLOAT, [])], weights), ["logits", "t"], ["targets"], ["loss"]


def in_a_branch():
    """A branch reads a value of the graph outside, which stays."""
    nodes, weights = trunk(3)
    branch = lambda name, op: helper.make_graph([helper.make_node(op, ["t"], [name])], name, [],
                                                [value(name, TensorProto.FLOAT, None)])
    nodes += [helper.make_node("If", ["choice"], ["chosen"], then_branch=branch("a", "Abs"), else_branch=branch("b", "Neg")),
              helper.make_node("ReduceSum", ["chosen", "axes"], ["score"], keepdims=0),
              helper.make_node("SoftmaxCrossEntropyLoss", ["logits", "labels"], ["loss"])]
    weights.update(choice=np.array(True), axes=np.array([1]))
    inputs = [value("x", TensorProto.FLOAT, ["N", 4]), value("labels", TensorProto.INT64, ["N"])]
    return (model(nodes, inputs, [value("loss", TensorProto.FLOAT, []), value("score", TensorProto.FLOAT, ["N"])], weights),
            ["score"], ["labels"], ["loss"])


def run(path, outputs, feeds):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    wanted = {i.name for i in session.get_inputs()}
    return session.run(outputs, {name: array for name, array in feeds.items() if name in wanted})


def main():
    halfstep = sys.argv[1]
    feeds = dict(x=RANDOM.normal(size=(4, 4)).astype(np.float32), labels=np.array([0, 2, 1, 1]),
                 targets=RANDOM.normal(size=(4, 1)).astype(np.float32))
    with tempfile.TemporaryDirectory() as folder:
        whole, cut = pathlib.Path(folder) / "whole.onnx", pathlib.Path(folder) / "cut.onnx"
        for make in (cross_entropy, written_out, in_a_branch):
            made, kept, inputs, outputs = make()
            onnx.save(made, whole)
            for name in kept:  # so that the whole model gives them too
                if name not in [o.name for o in made.graph.output]:
                    made.graph.output.append(value(name, TensorProto.FLOAT, None))
            expected = onnxruntime.InferenceSession(made.SerializeToString()).run(kept, {
                i.name: feeds[i.name] for i in made.graph.input})
            for precision, tolerance in [(None, 1e-6), ("fp16", 5e-3)]:
                options = ["--precision", precision] if precision else []
                said = json.loads(subprocess.run(
                    [halfstep, "export", whole, "--outputs", ",".join(kept), "-o", cut, "--json", *options], check=True,
                    capture_output=True, text=True).stdout)
                assert said["cut"]["inputs"] == inputs and said["cut"]["outputs"] == outputs, said
                found = onnx.load(cut)
                onnx.checker.check_model(found, full_check=True)
                assert [o.name for o in found.graph.output] == kept, found.graph.output
                assert [i.name for i in found.graph.input] == ["x"], found.graph.input
                read = {name for node in found.graph.node for name in node.input}
                assert all(w.name in read for w in found.graph.initializer), [w.name for w in found.graph.initializer]
                for a, b in zip(run(cut, kept, feeds), expected):
                    assert a.shape == b.shape and a.dtype == b.dtype, (a.shape, b.shape, a.dtype)
                    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
                print(make.__name__, precision or "as it is", "agrees")
        failed = subprocess.run([halfstep, "export", whole, "--outputs", "logit,loss,loss", "-o", cut], capture_output=True,
                                text=True)
        assert failed.returncode == 1 and "did you mean 'logits'?" in failed.stderr and "named twice" in failed.stderr, failed


if __name__ == "__main__":
    main()
