#!/usr/bin/env bash
# Configures and builds into build/ (Release, Ninja).
# usage: tools/build.sh [-DOPTION=VALUE ...] [TARGET ...]
#   TARGET   what to build, e.g. halfstep_cli; without one everything, the tests too
set -euo pipefail
cd "$(dirname "$0")/.."

options=(-G Ninja -DCMAKE_BUILD_TYPE=Release)
targets=()
for argument in "$@"; do
  case $argument in
  -*) options+=("$argument") ;;
  *) targets+=("$argument") ;;
  esac
done
if command -v ccache >/dev/null; then
  options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  export CCACHE_SLOPPINESS=${CCACHE_SLOPPINESS:-pch_defines,time_macros} # what ccache wants for precompiled headers
fi
cmake -S . -B build "${options[@]}"
cmake --build build ${targets:+--target "${targets[@]}"}
