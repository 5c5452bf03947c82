#!/usr/bin/env bash
# Packs a build into one file that runs on another machine: executables, tests, the shared libraries they need, models
# and test data. The C library, the driver and CUDA's libraries are the target's; tools/run_bundle.sh finds them there.
# usage: tools/bundle.sh [OUT.tar.xz [BUILD_DIR]]      default: out/halfstep.tar.xz build
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-out/halfstep.tar.xz}
build=${2:-build}

bash tools/install.sh patchelf xz-utils
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir -p "$stage/bin" "$stage/lib" "$(dirname "$out")"

cp "$build"/bin/halfstep "$build"/bin/fuzz_graphs "$build"/bin/*_test "$stage/bin/"
cp "$build"/lib/libhalfstep*.so "$build"/lib/libhalfstep-*.so.? "$stage/lib/"

# What the loader would take from this machine, less what the target has to bring.
theirs='^(ld-linux.*|lib(c|m|dl|rt|pthread)\.so.*|lib(cuda|cudart|cublas|cublasLt|cudnn.*|nvrtc.*|nccl)\.so.*)$'
ldd "$stage"/bin/* "$build"/lib/libhalfstep*.so | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
  while read -r library; do
    name=$(basename "$library")
    if [[ ! $name =~ $theirs && ! -e $stage/lib/$name ]]; then cp -L "$library" "$stage/lib/$name"; fi
  done

strip --strip-unneeded "$stage"/bin/* "$stage"/lib/*
# Every file names its neighbours itself: an executable's search path does not reach the libraries of its libraries.
for file in "$stage"/bin/*; do patchelf --set-rpath "\$ORIGIN/../lib" "$file"; done
for file in "$stage"/lib/*; do patchelf --set-rpath "\$ORIGIN" "$file"; done

# The tests read their data from the source tree, so the bundle is one: models/, tests/, tools/ and generated pages.
git ls-files -z models tests tools docs/conformance.md | tar --null --files-from=- -c | tar -C "$stage" -x
tar -C "$stage" --sort=name --owner=0 --group=0 -c . | xz -T0 -6 >"$out"

size=$(stat -c %s "$out")
echo "$out: $((size / 1024)) KiB" >&2
if [ "$size" -gt $((40 * 1024 * 1024)) ]; then
  echo "bundle: more than 40 MiB; the largest files are" >&2
  find "$stage" -type f -printf '%s %P\n' | sort -rn | head -n 8 >&2
fi
