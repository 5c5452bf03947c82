#!/usr/bin/env bash
# What a program that was linked before relies on: the tables, structs and constants of halfstep.h, compared by libabigail
# with those of api/abi/halfstep.abi. Ends with 77 where abidiff is not installed.
# usage: tests/api/abi/abi.sh; with UPDATE_EXPECTED=1 it writes the file, for a release or where a table grew at its end
set -euo pipefail
cd "$(dirname "$0")/../../.."
if ! command -v abidiff >/dev/null; then
  echo "abi: skipped, there is no abidiff: install abigail-tools" >&2
  exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
g++ -std=c++20 -g -O0 -fPIC -shared -Iinclude tests/api/abi/abi.cpp -o "$work/abi.so"
if [ "${UPDATE_EXPECTED:-}" = 1 ]; then
  abidw --no-corpus-path --no-show-locs --no-comp-dir-path --no-elf-needed --no-architecture --no-parameter-names \
    --drop-undefined-syms --out-file api/abi/halfstep.abi "$work/abi.so"
fi
compare() { abidiff --no-architecture --no-corpus-path --harmless --leaf-changes-only api/abi/halfstep.abi "$1"; }
if ! compare "$work/abi.so"; then
  echo "abi: programs that were linked before may not run. What only adds at the end of a table is written by" \
    "UPDATE_EXPECTED=1 tests/api/abi/abi.sh" >&2
  exit 1
fi

# The comparison can fail: a table whose first function has gone is another one.
mkdir "$work/halfstep"
sed 's/^  const char\* (\*version)(void);//' include/halfstep/halfstep.h >"$work/halfstep/halfstep.h"
g++ -std=c++20 -g -O0 -fPIC -shared -I"$work" tests/api/abi/abi.cpp -o "$work/other.so"
if compare "$work/other.so" >/dev/null; then
  echo "abi: a changed table went unnoticed" >&2
  exit 1
fi
