#!/usr/bin/env bash
# Configures and builds into build/ (Release, Ninja). Arguments go to CMake, e.g. -DHALFSTEP_CUDA=OFF.
set -euo pipefail
cd "$(dirname "$0")/.."

options=(-G Ninja -DCMAKE_BUILD_TYPE=Release "$@")
if command -v ccache >/dev/null; then
  options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  export CCACHE_SLOPPINESS=${CCACHE_SLOPPINESS:-pch_defines,time_macros} # what ccache wants for precompiled headers
fi
cmake -S . -B build "${options[@]}"
cmake --build build
