#!/usr/bin/env bash
# Runs clang-tidy 19 with the list in .clang-tidy, on the commands of build/.
# usage: tools/tidy.sh FILE.cpp ...       these
#        tools/tidy.sh N/M                every M-th source file from the N-th on: tools/tidy.sh 1/1 is all
#        tools/tidy.sh day                a 16th, by the day of the year, and the 16 that changed last: some 3 minutes of 2 cores
set -euo pipefail
cd "$(dirname "$0")/.."
bash tools/install.sh clang-tidy-19
[ -e build/compile_commands.json ] || cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release >/dev/null

# Those that this build compiles: runtime/cuda/ where there is a toolkit.
sources() {
  local root
  root=$(sed -n 's/^CMAKE_HOME_DIRECTORY:INTERNAL=//p' build/CMakeCache.txt)
  git ls-files '*.cpp' ':!tests/' | grep -xFf <(sed -n 's|^ *"file": "'"$root"'/\(.*\)".*|\1|p' build/compile_commands.json)
}
slice() { sources | awk -v n="$1" -v m="$2" 'NR % m == n % m'; }
newest() { git log --format= --name-only | awk '!seen[$0]++' | grep -xFf <(sources) | sed -n "1,$1p"; }

files=("$@")
if [[ ${1:-} =~ ^([0-9]+)/([0-9]+)$ ]]; then
  mapfile -t files < <(slice "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}")
elif [ "${1:-}" = day ]; then
  day=$(date -u +%j)
  mapfile -t files < <({ slice "$((10#$day))" 16 && newest 16; } | sort -u)
fi
if [ ${#files[@]} -eq 0 ]; then
  echo "tidy: FILE.cpp ..., N/M or day expected; of '$*' this build compiles no source" >&2
  exit 2
fi
printf '%s\0' "${files[@]}" | xargs -0 -n 1 -P "$(nproc)" clang-tidy-19 --quiet -p build --extra-arg=-w
