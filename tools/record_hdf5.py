"""Records an HDF5 file as h5py writes it, and what h5py reads of it, for tests/data: tests/references/hdf5.json.

usage: python3 tools/record_hdf5.py OUT.json
"""
import base64
import json
import pathlib
import sys
import tempfile

import h5py
import numpy as np


def arrays():
    count = np.arange(24)
    yield "images", (count * 11 % 256).astype(np.uint8).reshape(4, 3, 2), dict(chunks=(1, 3, 2), compression="gzip")
    yield "labels", np.array([3, -1, 2**40, 0]), {}
    yield "half", (count[:8] / 8).astype(np.float16).reshape(4, 2), {}
    yield "big_endian", (count[:8] / 3).astype(">f4").reshape(4, 2), {}
    yield "double", (count[:8] / 3).reshape(4, 2), dict(chunks=(3, 2), shuffle=True, compression="gzip")
    yield "flags", np.array([[True, False]] * 4), {}
    yield "short", (count[:8] * 3000).astype(np.uint16).reshape(4, 2), {}
    yield "signed", (count[:8] - 4).astype(np.int8).reshape(4, 2), {}
    yield "group/inner", count[:4].astype(np.int32), {}


def main():
    result = dict(h5py=h5py.__version__, datasets={})
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "all.h5"
        with h5py.File(path, "w", libver=("earliest", "v110")) as file:
            for name, values, options in arrays():
                file.create_dataset(name, data=values, **options)
            file["texts"] = ["a", "b", "c", "d"]
            file["wide"] = np.zeros(4, np.uint64)
            colours = h5py.enum_dtype(dict(red=0, green=1, blue=2), basetype="u1")
            file.create_dataset("colours", data=np.array([0, 1, 2, 2], np.uint8), dtype=colours)
            file.create_dataset("unwritten", (4, 1000000), np.float32, chunks=(1, 1000000))
        with h5py.File(path) as file:
            for name, *_ in arrays():
                result["datasets"][name] = dict(shape=list(file[name].shape),
                                                values=file[name][()].astype(np.float64).flatten().tolist())
        result["file"] = base64.b64encode(path.read_bytes()).decode()
    pathlib.Path(sys.argv[1]).write_text(json.dumps(result, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
