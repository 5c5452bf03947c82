"""Puts our step times and PyTorch's of the same run into one Markdown table.

usage: python3 tools/side_by_side.py DIR      DIR holds bench.MODEL.fp16.json and peer.MODEL.json (tools/gpu_check.sh)
"""
import json
import pathlib
import sys


def peer_rows(path):
    """The rows of tools/peer.py by mode."""
    return {row["mode"]: row for row in json.loads(path.read_text())["rows"] if "median_ms" in row}


def main():
    directory = pathlib.Path(sys.argv[1])
    print("| model, batch | Halfstep ms | memory MiB | eager ms | compile ms | graphs ms | compile memory MiB | faster than the best |")
    print("|---|---|---|---|---|---|---|---|")
    for bench in sorted(directory.glob("bench.*.fp16.json")):
        model = bench.name.split(".")[1]
        ours = json.loads(bench.read_text())
        peer_file = directory / f"peer.{model}.json"
        if not peer_file.exists():
            continue
        peer = peer_rows(peer_file)
        times = [peer[mode]["median_ms"] for mode in ("eager", "compile", "graphs")]
        print(f"| {model}, {ours['batch']} | {ours['median_ms']:.4f} | {ours['measured_bytes'] / 2**20:.0f} | "
              + " | ".join(f"{time:.3f}" for time in times)
              + f" | {peer['compile']['peak_mib']:.0f} | {min(times) / ours['median_ms']:.2f}x |")


if __name__ == "__main__":
    main()
