"""Time and memory of `check` (and `compile`) on models of many nodes and of many bytes: chains, weights and wide graphs
of 10^3 to 10^5 nodes, and matrices in an external file.

usage: python3 tools/large_models.py build/bin/halfstep [--most 100000] [--gibibytes 1]
needs: numpy, onnx
"""
import argparse
import multiprocessing
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LOSS = ["--loss", "mean_squared_error"]


def save(path, nodes, initializers, output, width=8):
    graph = helper.make_graph(nodes, "large", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, width])],
                              [helper.make_tensor_value_info(output, TensorProto.FLOAT, [4, width])], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def chain(count):
    """One product, then pointwise operators one after the other."""
    operators = ["Relu", "Tanh", "Sigmoid"]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["v0"])]
    nodes += [helper.make_node(operators[i % 3], [f"v{i - 1}"], [f"v{i}"], name=f"n{i}") for i in range(1, count)]
    return nodes, [numpy_helper.from_array(np.eye(8, dtype=np.float32), "w")], f"v{count - 1}"


def weights(count):
    """Each node adds or multiplies a vector of its own."""
    values = [numpy_helper.from_array(np.full(8, 1 + i % 7, np.float32), f"b{i}") for i in range(count)]
    nodes = [helper.make_node("Add" if i % 2 else "Mul", [f"v{i - 1}" if i else "x", f"b{i}"], [f"v{i}"], name=f"n{i}")
             for i in range(count)]
    return nodes, values, f"v{count - 1}"


def wide(count):
    """One value read by all nodes but the last, which sums what they make of it."""
    values = [numpy_helper.from_array(np.float32(i + 0.5), f"s{i}") for i in range(count)]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["v"])]
    nodes += [helper.make_node("Mul", ["v", f"s{i}"], [f"m{i}"], name=f"m{i}") for i in range(count)]
    nodes.append(helper.make_node("Sum", [f"m{i}" for i in range(count)], ["y"]))
    return nodes, values + [numpy_helper.from_array(np.eye(8, dtype=np.float32), "w")], "y"


def external(path, gibibytes):
    """Matrices of 64 MiB in a file beside the model."""
    size, count = 4096, round(gibibytes * 16)
    generator = np.random.default_rng(0)
    initializers, nodes = [], []
    with open(path.with_suffix(".bin"), "wb") as data:
        for i in range(count):
            tensor = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[size, size], data_location=TensorProto.EXTERNAL)
            for key, value in ("location", path.stem + ".bin"), ("offset", data.tell()), ("length", 4 * size * size):
                tensor.external_data.add(key=key, value=str(value))
            data.write((generator.standard_normal((size, size), dtype=np.float32) / 64).tobytes())
            initializers.append(tensor)
            nodes.append(helper.make_node("MatMul", [f"v{i - 1}" if i else "x", f"w{i}"], [f"v{i}"], name=f"n{i}"))
    save(path, nodes, initializers, f"v{count - 1}", size)


def apart(function, *arguments):
    """In a process of its own: a child's resident size starts at its parent's."""
    process = multiprocessing.Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode != 0:
        sys.exit("cannot write the model")


def save_made(path, make, count):
    save(path, *make(count))


def run(command):
    """Processor seconds and the largest resident size in MiB."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    error = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)} failed:\n{error}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("halfstep")
    parser.add_argument("--most", type=int, default=100_000, help="nodes of the largest graph")
    parser.add_argument("--gibibytes", type=float, default=1, help="of external weights")
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.onnx"
        print("| check | nodes | processor s | tenfold | MiB |\n|---|---|---|---|---|")
        for make in chain, weights, wide:
            before = None
            count = 1000
            while count <= args.most:
                apart(save_made, path, make, count)
                seconds, memory = run([args.halfstep, "check", str(path), *LOSS])
                print(f"| {make.__name__} | {count:,} | {seconds:.2f} | {f'{seconds / before:.1f}x' if before else ''} "
                      f"| {memory:.0f} |", flush=True)
                before, count = seconds, count * 10
        apart(external, path, args.gibibytes)
        size = path.with_suffix(".bin").stat().st_size / 2**20
        print(f"\n| external weights of {size:.0f} MiB | processor s | MiB | of the weights |\n|---|---|---|---|")
        compiled = ["--device", "cpu", "--batch", "4", "-o", folder + "/step"]
        for name, command in ("check", ["check"]), ("compile, fp32", ["compile", *compiled, "--precision", "fp32"]), \
                ("compile, fp16", ["compile", *compiled]):
            seconds, memory = run([args.halfstep, *command, str(path), *LOSS])
            print(f"| {name} | {seconds:.2f} | {memory:.0f} | {memory / size:.2f} |", flush=True)


if __name__ == "__main__":
    main()
