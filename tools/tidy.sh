#!/usr/bin/env bash
# Runs clang-tidy 19 with the list in .clang-tidy, on the commands of build/.
# usage: tools/tidy.sh FILE.cpp ...       these
#        tools/tidy.sh N/M                every M-th source file from the N-th on: tools/tidy.sh 1/1 is all
set -euo pipefail
cd "$(dirname "$0")/.."
bash tools/install.sh clang-tidy-19
[ -e build/compile_commands.json ] || cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release >/dev/null

files=("$@")
if [[ ${1:-} =~ ^([0-9]+)/([0-9]+)$ ]]; then
  mapfile -t files < <(git ls-files '*.cpp' ':!tests/' ':!python/' ':!runtime/cuda/' |
    awk -v n="${BASH_REMATCH[1]}" -v m="${BASH_REMATCH[2]}" 'NR % m == n % m')
fi
[ ${#files[@]} -gt 0 ] || exit 0
printf '%s\0' "${files[@]}" | xargs -0 -n 1 -P "$(nproc)" clang-tidy-19 --quiet -p build --extra-arg=-w
