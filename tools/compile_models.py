"""Checks and compiles every model of a folder for training, on both devices, and prints a table.

usage: python3 tools/compile_models.py DIR [NAME.onnx ...]

`halfstep` (on the PATH) is run once a row and device, fp16 AMP, fresh weights where a file has none. Seconds: import,
the compiler's own time, and the whole command with its start and the writing of the step's files. Fails if one does.
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import time


def halfstep(*arguments):
    started = time.time()
    done = subprocess.run(["halfstep", *map(str, arguments)], capture_output=True, text=True)
    seconds = time.time() - started
    if done.returncode:
        raise RuntimeError((done.stderr or done.stdout)[-300:])
    return json.loads(done.stdout), seconds


def row(path):
    report, _ = halfstep("check", path, "--init", "--json")
    cells = [path.name, str(report["nodes"])]
    imported = 0
    for device in ("cpu", "cuda"):
        with tempfile.TemporaryDirectory() as directory:
            result, seconds = halfstep("compile", path, "--init", "--device", device, "--time-passes", "--json", "-o",
                                       pathlib.Path(directory) / "step")
        imported = next(p["seconds"] for p in result["passes"] if p["pass"] == "import")
        cells.append(f"{result['seconds']:.2f} ({seconds:.2f})")
    return cells[:2] + [f"{imported:.3f}"] + cells[2:]


def main():
    folder = pathlib.Path(sys.argv[1])
    paths = [folder / name for name in sys.argv[2:]] or sorted(folder.glob("*.onnx"))
    failed = 0
    print("| model | nodes | import, s | CPU: compile (command), s | CUDA: compile (command), s |\n|---|---|---|---|---|")
    for path in paths:
        try:
            print("| " + " | ".join(row(path)) + " |", flush=True)
        except RuntimeError as error:
            failed += 1
            print(f"| {path.name} | failed: {str(error)!r} |", flush=True)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
