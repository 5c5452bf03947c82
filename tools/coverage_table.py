#!/usr/bin/env python3
"""Sums what gcov counted in a build with --coverage: lines run of lines there are, a folder of the sources each.

usage: tools/coverage_table.py BUILD_DIR
"""
import collections
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def counted(build):
    """{(file, line): whether it ran}; a header's line ran if any file that includes it ran it."""
    ran = {}
    for data in sorted(build.rglob("*.gcda")):
        text = subprocess.run(["gcov", "--stdout", "--json-format", data], capture_output=True, check=True, cwd=build).stdout
        for line in text.splitlines():
            for file in json.loads(line)["files"]:
                path = (build / file["file"]).resolve()
                if path.is_relative_to(ROOT):
                    for row in file["lines"]:
                        key = path.relative_to(ROOT), row["line_number"]
                        ran[key] = ran.get(key, False) or row["count"] > 0
    return ran


def main():
    folders = collections.defaultdict(lambda: [0, 0])
    for (path, _), is_run in counted(pathlib.Path(sys.argv[1]).resolve()).items():
        if path.parts[0] not in ("tests", "build-coverage"):
            for folder in (path.parts[0], "all"):
                folders[folder][0] += is_run
                folders[folder][1] += 1
    for folder, (run, lines) in sorted(folders.items(), key=lambda row: (row[0] == "all", row[0])):
        print(f"{folder:10} {run:6} of {lines:6} lines  {100 * run / lines:5.1f} %")


if __name__ == "__main__":
    main()
