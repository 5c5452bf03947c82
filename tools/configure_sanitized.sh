#!/usr/bin/env bash
# Configures a build with sanitizers, any finding of which ends the process, and prints its directory.
# usage: tools/configure_sanitized.sh address|thread
#   address   AddressSanitizer and UndefinedBehaviorSanitizer, with the fuzzers of tests/libfuzzer: build-address/
#   thread    ThreadSanitizer: build-thread/
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:?address or thread}

flags='-w -O1 -g1 -fno-omit-frame-pointer'
# Without precompiled headers each source has to include what it uses.
options=(-G Ninja -DCMAKE_BUILD_TYPE=None -DHALFSTEP_CUDA=OFF -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON)
case $kind in
address)
  bash tools/install.sh clang-19 libclang-rt-19-dev libomp-19-dev
  flags+=' -fsanitize=fuzzer-no-link,address,undefined,float-cast-overflow -fno-sanitize=vptr -fno-sanitize-recover=all'
  flags+=' -D_GLIBCXX_ASSERTIONS'
  options+=(-DCMAKE_C_COMPILER=clang-19 -DCMAKE_CXX_COMPILER=clang++-19 -DHALFSTEP_FUZZERS=ON)
  ;;
thread)
  flags+=' -fsanitize=thread'
  ;;
*)
  echo "configure_sanitized: address or thread expected, found '$kind'" >&2
  exit 2
  ;;
esac
if command -v ccache >/dev/null; then
  options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
fi
cmake -S . -B "build-$kind" "${options[@]}" "-DCMAKE_CXX_FLAGS=$flags" "-DCMAKE_C_FLAGS=$flags" >&2
echo "build-$kind"
