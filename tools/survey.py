"""Models of four libraries through Halfstep on the CPU: what trains as in PyTorch, what is refused, and why.

usage: python3 tools/survey.py [--jobs N] OUT_DIR [LIBRARY | LIBRARY/NAME ...]

Libraries: networks, transformers, torchvision, timm (models/survey_*.py). Each model is exported at batch 2 by the
default exporter (opset 20; unoptimized where that would fold batch norms) and by TorchScript (opset 17); `halfstep` (on the
PATH) reads both at batch 3 and computes loss and gradients of one batch in fp32. OUT_DIR/survey.md has a row a model,
OUT_DIR/NAME.json all numbers; a model that is there already is not run again.

  loss, gradient   |ours - PyTorch in fp64| / |PyTorch in fp64|: the loss, and the worst parameter that the file keeps (a
                   whole tensor, L2; against the largest norm times 1e-3 at least). PyTorch's own fp32 stands beside it
                   (0 where it has no fp64 to be held against).
  not the model's  parameters that are trained although the model has none of their values: what the exporter folded
"""
import argparse
import concurrent.futures
import copy
import json
import pathlib
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import torch

root = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(root / "models"), str(root / "tools")]
import compare_models  # noqa: E402
import families  # noqa: E402
import survey_models  # noqa: E402

warnings.filterwarnings("ignore")
BATCH, IGNORED, SECONDS = 3, -100, 900


def draw(inputs, batch, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn((batch, *shape), generator=generator) if bound is None else
            torch.randint(1, bound, (batch, *shape), generator=generator) for shape, bound in inputs.values()]


def loss_of(logits, labels):
    if logits.dim() == 3:
        logits, labels = logits.flatten(0, 1), labels.flatten()
    return torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED)


class Reference:
    """What PyTorch computes for one batch."""

    def __init__(self, module, inputs):
        self.module = survey_models.without_dropout(copy.deepcopy(module))
        self.x = draw(inputs, BATCH, 5)
        with torch.no_grad():
            shape = copy.deepcopy(self.module)(*draw(inputs, families.EXPORTED, 6)).shape
        self.sequence = len(shape) == 3
        classes, positions = (shape[-1], shape[1:-1]) if self.sequence else (shape[1], shape[2:])
        self.y = torch.randint(0, classes, (BATCH, *positions), generator=torch.Generator().manual_seed(7))
        loss, gradients = self.run(torch.float32)
        try:
            self.loss, self.gradients = self.run(torch.float64)
        except RuntimeError:  # kernels without a double form
            self.loss, self.gradients = loss, gradients
        largest = max(np.linalg.norm(g) for g in self.gradients.values())
        self.size = {key: max(np.linalg.norm(g), 1e-3 * largest) for key, g in self.gradients.items()}
        self.own_error = max(np.linalg.norm(gradients[key] - g) / self.size[key] for key, g in self.gradients.items())
        self.own_loss_error = abs(loss - self.loss) / abs(self.loss)

    def run(self, dtype):
        module = copy.deepcopy(self.module).to(dtype)
        loss = loss_of(module(*[x.to(dtype) if x.is_floating_point() else x for x in self.x]), self.y)
        loss.backward()
        return loss.item(), {key: p.grad.double().numpy() for key, p in module.named_parameters() if p.grad is not None}


def export(module, inputs, form, path):
    arguments = tuple(draw(inputs, families.EXPORTED, 6))
    names = dict(input_names=list(inputs), output_names=["logits"])
    if form == "torchscript":
        torch.onnx.export(copy.deepcopy(module), arguments, path, dynamo=False, opset_version=17, do_constant_folding=False,
                          training=torch.onnx.TrainingMode.TRAINING, **names)
    else:
        torch.onnx.export(copy.deepcopy(module), arguments, path, dynamo=True, external_data=False, opset_version=20,
                          optimize=not families.has_batch_norm(module), verbose=False, **names)


def compare(module, inputs, form, reference, directory):
    """One exported form: `exporter` or `refused` with a reason, or the distances."""
    path = str(directory / "model.onnx")
    try:
        export(module, inputs, form, path)
    except Exception as error:
        return dict(exporter=" ".join(str(error).split())[:200])
    np.savez(directory / "batch.npz", labels=reference.y.numpy(),
             **{key: x.numpy() for key, x in zip(inputs, reference.x)})
    options = ["--ignore_index", IGNORED, "--class_axis", -1] if reference.sequence else []
    done = subprocess.run(["halfstep", "gradients", path, "--data", directory / "batch.npz", "--batch", str(BATCH),
                           "--precision", "fp32", "--dropout", "0", "--device", "cpu", *map(str, options), "-o",
                           directory / "ours"], capture_output=True, text=True)
    if done.returncode:
        return dict(refused=(done.stderr or f"exit status {done.returncode}").strip()[:400], status=done.returncode)
    ours = compare_models.read_safetensors(directory / "ours")
    kept = families.places(module, path)
    distances = {}
    for key, truth in reference.gradients.items():
        stored = [ours["gradients/" + name].astype(np.float64).transpose(axes) if axes else
                  ours["gradients/" + name].astype(np.float64).reshape(truth.shape)
                  for name, axes in kept[key] if "gradients/" + name in ours]
        if stored:
            distances[key] = np.linalg.norm(sum(stored) - truth) / reference.size[key]
    known = {name for places in kept.values() for name, _ in places}
    trained = {key.removeprefix("gradients/") for key in ours if key.startswith("gradients/")}
    worst = max(distances, key=distances.get)
    return dict(loss=abs(float(ours["loss"].ravel()[0]) - reference.loss) / abs(reference.loss), worst=worst,
                gradient=distances[worst], compared=len(distances), others=sorted(trained - known))


def survey(name, out):
    torch.set_num_threads(1)
    module, inputs = survey_models.make(name)
    reference = Reference(module, inputs)
    row = dict(name=name, parameters=len(reference.gradients), batch_norm=families.has_batch_norm(module),
               own_loss_error=reference.own_loss_error, own_error=reference.own_error)
    for form in ("default", "torchscript"):
        with tempfile.TemporaryDirectory(dir=out) as folder:
            row[form] = compare(module, inputs, form, reference, pathlib.Path(folder))
    return row


def survey_in_a_process(name, out):
    """What breaks a process costs one row."""
    path = out / (name.replace("/", ".") + ".json")
    if not path.exists():
        try:
            done = subprocess.run([sys.executable, __file__, "--one", out, name], capture_output=True, text=True,
                                  timeout=SECONDS)
            reason = done.stderr.strip()[-300:]
        except subprocess.TimeoutExpired:
            reason = f"more than {SECONDS} s"
        if not path.exists():
            path.write_text(json.dumps(dict(name=name, failed=reason)))
    return json.loads(path.read_text())


def cell(form):
    if "exporter" in form:
        return "not exported"
    if "refused" in form:
        return "refused: " + form["refused"].replace("|", "\\|").splitlines()[0].removeprefix("halfstep: ")
    others = f"; {len(form['others'])} not the model's" if form["others"] else ""
    return f"{form['loss']:.0e}, {form['gradient']:.0e} ({form['compared']}{others})"


def table(rows):
    lines = ["| model | parameters | PyTorch fp32 | default exporter | TorchScript |", "|---|---|---|---|---|"]
    for row in rows:
        if "failed" in row:
            lines.append(f"| {row['name']} | | not run: {row['failed'].splitlines()[-1]} | | |")
        else:
            lines.append(f"| {row['name']} | {row['parameters']} | {row['own_loss_error']:.0e}, {row['own_error']:.0e} | "
                         f"{cell(row['default'])} | {cell(row['torchscript'])} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(usage="%(prog)s [--jobs N] OUT_DIR [LIBRARY | LIBRARY/NAME ...]")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("names", nargs="*", default=survey_models.LIBRARIES)
    arguments = parser.parse_args()
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    if arguments.one:
        name = arguments.names[0]
        (out / (name.replace("/", ".") + ".json")).write_text(json.dumps(survey(name, out), default=float))
        return
    names = [name for given in arguments.names
             for name in ([given] if "/" in given else survey_models.names(given))]
    rows = []
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for row in pool.map(lambda name: survey_in_a_process(name, out), names):
            rows.append(row)
            print(table([row]).splitlines()[-1], flush=True)
            (out / "survey.md").write_text(table(rows))


if __name__ == "__main__":
    main()
