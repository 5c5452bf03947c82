#!/usr/bin/env bash
# Prints the share of lines that the tests run, a folder of the sources each.
# usage: tools/coverage.sh [FOLDER ...]      tests of these folders, default: all; builds into build-coverage/
set -euo pipefail
cd "$(dirname "$0")/.."

# Without -fno-ipa-cp GCC 12 ends by a signal in data/mix.cpp.
options=(-G Ninja -DCMAKE_BUILD_TYPE=None -DHALFSTEP_CUDA=OFF "-DCMAKE_CXX_FLAGS=-w -O1 -fno-ipa-cp --coverage -fprofile-update=atomic")
if command -v ccache >/dev/null; then
  options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
fi
cmake -S . -B build-coverage "${options[@]}" >/dev/null
targets=(all)
labels=.
if [ $# -gt 0 ]; then
  targets=("${@/%/_test}")
  labels="^($(IFS='|' && echo "$*"))$"
fi
cmake --build build-coverage --target "${targets[@]}"
find build-coverage -name '*.gcda' -delete
ctest --test-dir build-coverage -j "$(nproc)" -L "$labels" --no-tests=error >build-coverage/ctest.log || true
tail -n 5 build-coverage/ctest.log >&2
python3 tools/coverage_table.py build-coverage
