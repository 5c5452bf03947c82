#!/usr/bin/env python3
"""Writes the conformance cases that the installed onnx package generates, for newer opsets than Debian's files have.

usage: tools/onnx_cases.py [DIR]        default: out
Prints the folder it made, DIR/onnx-VERSION, which `conformance_test FOLDER` takes.
"""

import argparse
import pathlib
import shutil

import onnx
from onnx.backend.test import cmd_tools

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("directory", nargs="?", type=pathlib.Path, default=pathlib.Path("out"))
folder = parser.parse_args().directory / f"onnx-{onnx.__version__}"

cmd_tools.generate_data(argparse.Namespace(output=str(folder)))
# Files that the package brings along rather than generates.
data = pathlib.Path(cmd_tools.__file__).parent / "data"
for kind in ("light", "pytorch-converted", "pytorch-operator", "simple"):
    if (data / kind).is_dir():
        shutil.copytree(data / kind, folder / kind, dirs_exist_ok=True)
print(folder)
