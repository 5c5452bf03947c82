#!/usr/bin/env bash
# What takes longer than a change may wait: clang-tidy, tests under sanitizers, fuzzers, coverage.
# usage: tools/extra_checks.sh [tidy|address|thread|libfuzzer|coverage ...]      default: all but coverage
set -euo pipefail
cd "$(dirname "$0")"
parts=("$@")
if [ $# -eq 0 ]; then parts=(tidy thread libfuzzer address); fi
for part in "${parts[@]}"; do
  case $part in
  tidy) bash tidy.sh 1/1 ;;
  address | thread) bash sanitize.sh "$part" ;;
  libfuzzer | coverage) bash "$part.sh" ;;
  *)
    echo "extra_checks: tidy, address, thread, libfuzzer or coverage expected, found '$part'" >&2
    exit 2
    ;;
  esac
done
