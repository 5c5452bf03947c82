#!/usr/bin/env python3
"""Writes the conformance cases that the installed onnx package generates, for newer opsets than Debian's files have.

usage: tools/onnx_cases.py [DIR]        default: out
Prints the folder it made, DIR/onnx-VERSION, which `conformance_test FOLDER` takes.
"""

import argparse
import pathlib
import shutil

import onnx
from onnx import numpy_helper
from onnx.backend.test import cmd_tools
from onnx.backend.test.case import model, node

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("directory", nargs="?", type=pathlib.Path, default=pathlib.Path("out"))
folder = parser.parse_args().directory / f"onnx-{onnx.__version__}"


def message(value, info):
    """The protobuf message of a value in the kind that the model declares."""
    if hasattr(value, "SerializeToString"):
        return value
    kind = info.type.WhichOneof("value")
    convert = {"sequence_type": numpy_helper.from_list, "optional_type": numpy_helper.from_optional}
    return convert.get(kind, numpy_helper.from_array)(value, info.name)


def write(case):
    directory = folder / case.kind / case.name
    data = directory / "test_data_set_0"
    data.mkdir(parents=True)
    (directory / "model.onnx").write_bytes(case.model.SerializeToString())
    inputs, outputs = case.data_sets[0]
    for kind, values, infos in (("input", inputs, case.model.graph.input), ("output", outputs, case.model.graph.output)):
        for i, (value, info) in enumerate(zip(values, infos)):
            (data / f"{kind}_{i}.pb").write_bytes(message(value, info).SerializeToString())


shutil.rmtree(folder, ignore_errors=True)
cases = {(case.kind, case.name): case for case in [*node.collect_testcases(), *model.collect_testcases()] if case.model}
for case in cases.values():
    write(case)
# Files that the package brings along rather than generates.
brought = pathlib.Path(cmd_tools.__file__).parent / "data"
for kind in ("pytorch-converted", "pytorch-operator", "simple"):
    if (brought / kind).is_dir():
        shutil.copytree(brought / kind, folder / kind, dirs_exist_ok=True)
print(folder)
