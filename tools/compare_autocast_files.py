#!/usr/bin/env python3
"""Compares the preset `torch` with PyTorch's autocast in whole models, operator by operator.

usage: tools/compare_autocast_files.py HALFSTEP --shared DIR            NAME.autocast.onnx beside NAME.raw.onnx
       tools/compare_autocast_files.py HALFSTEP --fresh [NAME ...]      small models (models/families.py), exported here
       tools/compare_autocast_files.py HALFSTEP --families [NAME ...] [--record FILE]
                                                                        models/families/NAME.raw.onnx, autocast exported here
       tools/compare_autocast_files.py HALFSTEP --pair PLAIN AUTOCAST
needs onnx; --fresh and --families also torch, torchvision, transformers, onnxscript

A file that is exported under autocast("cuda", float16) holds PyTorch's decisions: the type of each node's result. The
same model exported without goes through `inspect --preset torch`. Both have the same nodes in the same order but for the
casts that autocast added; each node that gives floating values which depend on the model's inputs is compared.
"""
import argparse
import collections
import difflib
import json
import pathlib
import subprocess
import sys
import tempfile

import onnx

TYPES = {onnx.TensorProto.FLOAT: "f32", onnx.TensorProto.FLOAT16: "f16", onnx.TensorProto.BFLOAT16: "bf16",
         onnx.TensorProto.DOUBLE: "f64"}
# What else a decomposition writes to make a constant's type that of what it meets.
CASTS = ("Cast", "CastLike")


class Nodes:
    """The nodes of a file's main graph with the types that shape inference finds."""

    def __init__(self, model):
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        graph = model.graph
        self.types = {}
        for value in (*graph.input, *graph.value_info, *graph.output):
            self.types[value.name] = value.type.tensor_type.elem_type
        for value in graph.initializer:
            self.types.setdefault(value.name, value.data_type)
        inputs = {value.name for value in graph.input} - {value.name for value in graph.initializer}
        depends = set(inputs)
        self.nodes = [node for node in graph.node if not self.is_cast(node)]
        for node in graph.node:
            if any(name in depends for name in node.input):
                depends.update(node.output)
        self.depends = depends

    def is_cast(self, node):
        return node.op_type in CASTS and self.types.get(node.input[0]) in TYPES and self.types.get(node.output[0]) in TYPES

    def type_of(self, node):
        """Of its first result; None: not floating, or of no input."""
        name = next((o for o in node.output if o), "")
        return TYPES.get(self.types.get(name)) if name in self.depends else None


def rows(binary, path, options):
    command = [binary, "inspect", str(path), "--preset", "torch", "--precision", "fp16", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return {row["node"]: row for row in json.loads(done.stdout)["nodes"] if row["phase"] == "forward"}


class Comparison:
    def __init__(self):
        self.same = self.differs = self.unmatched = self.folded = 0
        self.lines, self.kinds, self.wanted = [], collections.Counter(), {"f16": [], "f32": []}


def compare(binary, path, plain, cast, options=()):
    result = Comparison()
    found = rows(binary, path, options)
    ours, theirs = Nodes(plain), Nodes(cast)
    matcher = difflib.SequenceMatcher(None, [n.op_type for n in ours.nodes], [n.op_type for n in theirs.nodes],
                                      autojunk=False)
    partner = {}
    for block in matcher.get_matching_blocks():
        for i in range(block.size):
            partner[block.a + i] = theirs.nodes[block.b + i]
    for i, node in enumerate(ours.nodes):
        if ours.type_of(node) is None:
            continue
        row = found.get(node.name)
        want = theirs.type_of(partner[i]) if i in partner else None
        if want is None:
            result.unmatched += 1
            result.lines.append(f"    {node.name} {node.op_type}: has no partner")
            continue
        if row is None or row["fate"] in ("folded", "unused", "inlined"):
            result.folded += 1
            continue
        result.wanted[want].append(node.name)
        if row["result"] == want:
            result.same += 1
            continue
        result.differs += 1
        result.kinds[node.op_type, row["fate"], want] += 1
        result.lines.append(f"    {node.name} {node.op_type}: PyTorch {want}, {row['fate']} {row['result']}: {row['reason']}")
    return result


def fresh(names, plain):
    """Name, plain file (exported here if `plain`), file under autocast; of small models."""
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "models"))
    import families
    import under_autocast

    for name in names or [*families.image_families(), *families.text_families()]:
        model, inputs = families.make(name), families.draw(name, families.EXPORTED)
        yield name, under_autocast.exported(model, inputs, None) if plain else None, under_autocast.exported(model, inputs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("halfstep")
    parser.add_argument("--shared", type=pathlib.Path)
    parser.add_argument("--fresh", nargs="*")
    parser.add_argument("--families", nargs="*")
    parser.add_argument("--record", type=pathlib.Path, help="writes PyTorch's type of each node of --families")
    parser.add_argument("--pair", nargs=2, type=pathlib.Path)
    parser.add_argument("--keep", type=pathlib.Path, help="a folder for the files that --fresh exports")
    parser.add_argument("--all", action="store_true", help="name every node that differs")
    args = parser.parse_args()
    binary = str(pathlib.Path(args.halfstep).resolve())
    total = Comparison()
    failed, recorded = False, []

    def tell(name, path, plain, cast):
        nonlocal failed
        try:
            c = compare(binary, path, plain, cast)
        except RuntimeError as error:
            failed = True
            print(f"{name}: {error}", flush=True)
            return
        compared = c.same + c.differs
        print(f"{name}: {c.same} of {compared} same ({100 * c.same / max(compared, 1):.1f}%), {c.folded} folded, "
              f"{c.unmatched} without a partner", flush=True)
        shown = c.lines if args.all else [f"    {n} {op} ({fate}): PyTorch {want}" for (op, fate, want), n in c.kinds.most_common()]
        print("\n".join(shown), flush=True) if shown else None
        total.same, total.differs = total.same + c.same, total.differs + c.differs
        total.unmatched += c.unmatched
        recorded.extend(f"{path.name} {kind} {' '.join(nodes)}" for kind, nodes in c.wanted.items() if nodes)

    def load(path):
        return onnx.load(path, load_external_data=False)

    for path in sorted(args.shared.glob("*.autocast.onnx")) if args.shared else []:
        plain = path.with_name(path.name.replace(".autocast.", ".raw."))
        tell(path.name.split(".")[0], plain, load(plain), load(path))
    if args.pair:
        tell(args.pair[0].name, args.pair[0], load(args.pair[0]), load(args.pair[1]))
    if args.fresh is not None:
        with tempfile.TemporaryDirectory() as scratch:
            folder = args.keep or pathlib.Path(scratch)
            folder.mkdir(parents=True, exist_ok=True)
            for name, plain, cast in fresh(args.fresh, plain=True):
                path = folder / f"{name}.raw.onnx"
                onnx.save(plain, path), onnx.save(cast, folder / f"{name}.autocast.onnx")
                tell(name, path, plain, cast)
    if args.families is not None:
        folder = pathlib.Path(__file__).resolve().parent.parent / "models/families"
        for name, _, cast in fresh(args.families, plain=False):
            path = folder / f"{name}.raw.onnx"
            tell(path.name, path, load(path), cast)
    if args.record:
        args.record.write_text("# The type that PyTorch gives each node's result under autocast(\"cuda\", float16); made by\n# "
                               "tools/compare_autocast_files.py --families --record\n" + "\n".join(recorded) + "\n")
    print(f"total: {total.same} of {total.same + total.differs} same, {total.unmatched} without a partner")
    sys.exit(failed or total.differs > 0)


if __name__ == "__main__":
    main()
