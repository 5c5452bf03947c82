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

# CUDA's libraries come from the system, a toolkit or pip's packages, in this order. Prints the directory of the first.
directory_of() {
  local name=$1 candidate
  if PATH=$PATH:/sbin ldconfig -p | grep "^[[:space:]]*$name " >/dev/null; then
    return # the loader finds it
  fi
  for candidate in /usr/local/cuda*/lib64 /usr/local/cuda*/targets/*/lib $(pip_directories); do
    if [ -e "$candidate/$name" ]; then
      echo "$candidate"
      return
    fi
  done
  echo "run_bundle: no $name here: --device cuda will not work" >&2
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
