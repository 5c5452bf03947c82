#!/usr/bin/env bash
# Unpacks a bundle (once) and runs a command in it, with the bundle's executables on the PATH.
# usage: tools/run_bundle.sh BUNDLE.tar.xz COMMAND [ARGUMENT ...]      e.g. ... halfstep info
# BUNDLE_DIR is where it is unpacked; default: a directory beside the bundle.
set -euo pipefail

bundle=$(realpath "$1")
shift
root=${BUNDLE_DIR:-${bundle%.tar.xz}}

if [ ! -e "$root/.complete" ] || [ "$bundle" -nt "$root/.complete" ]; then
  rm -rf "$root"
  mkdir -p "$root"
  tar -C "$root" -xJf "$bundle"
  touch "$root/.complete"
fi

# CUDA's libraries come from the system, a toolkit or pip's packages: prints the directory of the newest NAME.
directory_of() {
  local name=$1 newest
  newest=$(
    {
      PATH=$PATH:/sbin ldconfig -p | awk -v name="$name" '$1 == name { print $NF }'
      for directory in /usr/local/cuda*/lib64 /usr/local/cuda*/targets/*/lib $(pip_directories); do
        echo "$directory/$name"
      done
    } | while read -r file; do
      if [ -e "$file" ]; then printf '%s\t%s\n' "$(basename "$(realpath "$file")")" "$(dirname "$file")"; fi
    done | sort -V | tail -n 1 | cut -f 2
  )
  [ -n "$newest" ] || echo "run_bundle: no $name here: --device cuda will not work" >&2
  echo "$newest"
}

pip_directories() {
  python3 - 2>/dev/null <<'PY' || true
import glob, sys
print(*(d for p in sys.path if p for d in glob.glob(p + "/nvidia/*/lib")), sep="\n")
PY
}

paths=$(for name in libcudart.so.13 libcublasLt.so.13 libcudnn.so.9; do directory_of "$name"; done |
  sort -u | paste -sd:)
if [ -n "$paths" ]; then
  export LD_LIBRARY_PATH=$paths${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi
export PATH=$root/bin:$PATH
cd "$root"
exec "$@"
