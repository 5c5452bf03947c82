#!/bin/bash
# The ranges that a profiler sees of a step on the GPU: the model's names, as often begun as ended, and a loss that does not change by it.
# usage: check.sh HALFSTEP MODEL, with nvtx3's headers in CPATH or CUDA's include folder. Exits with 77 where there is no GPU or compiler.
set -euo pipefail
halfstep=$1 model=$2
here=$(cd "$(dirname "$0")" && pwd) work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
{ command -v cc && [ -e /dev/nvidia0 ]; } > /dev/null || exit 77
cc -shared -fPIC -I "${CUDA_HOME:-/usr/local/cuda}/include" -o "$work/listener.so" "$here/listener.c" || exit 77
run() { "$halfstep" bench "$model" --batch 8 --device cuda --repeats 3 --calls; }
run > "$work/plain.txt"
NVTX_INJECTION64_PATH=$work/listener.so HALFSTEP_NVTX_LOG=$work/log run > "$work/heard.txt"
begun=$(grep -c '^push' "$work/log") ended=$(grep -c '^pop' "$work/log")
[ "$begun" -gt 0 ] && [ "$begun" -eq "$ended" ] || { echo "failed: $begun ranges begun, $ended ended"; exit 1; }
# Each node of the table of calls is a range by its name.
names=$(awk '/^ *--/ {table = 1} table && NF > 5 && $1 + 0 > 0 {print $NF}' "$work/heard.txt" | grep -v '[()]' | sort -u)
[ -n "$names" ] || { echo "failed: no table of calls"; exit 1; }
while read -r name; do
  grep -qF "$name" "$work/log" || { echo "failed: no range of '$name'"; exit 1; }
done <<< "$names"
grep -q '^start feed train' "$work/log" || { echo "failed: no range of feeding"; exit 1; }
echo "$begun ranges, $(wc -l <<< "$names") names"
