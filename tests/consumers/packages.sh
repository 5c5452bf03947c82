#!/usr/bin/env bash
# Packs the runtime as a Debian package, unpacks that alone and trains a compiled LeNet with what is in it.
# usage: tests/consumers/packages.sh BUILD_DIR [FASHION_MNIST_DIR]
set -euo pipefail
source=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$1" && pwd)
data=${2:-/usr/share/datasets/fashion-mnist}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CUDA_VISIBLE_DEVICES= # on the CPU

(cd "$work" && cpack --config "$build/CPackConfig.cmake" -G DEB -D CPACK_COMPONENTS_ALL=runtime >cpack.log 2>&1) ||
  { cat "$work/cpack.log" >&2; exit 1; }
package=$(ls "$work"/halfstep-runtime_*.deb)
dpkg-deb -x "$package" "$work/device"
run=$work/device/usr/bin/halfstep-run
depends=$(dpkg-deb -f "$package" Depends)
if grep -Ei 'llvm|onnx|protobuf|absl' <<<"$depends"; then
  echo "packages: the runtime depends on a compiler's library: $depends" >&2
  exit 1
fi

# Every library that a process of it has, those loaded later among them.
mapfile -t files < <(find "$work/device/usr" -name '*.so*' -type f)
libraries=$(ldd "$run" "${files[@]}")
if grep -Ei 'not found|LLVM|onnx|protobuf|halfstep_(ir|frontend|passes|codegen|compiler)' <<<"$libraries"; then
  echo "packages: the runtime needs more than it may" >&2
  exit 1
fi

"$build/bin/halfstep" compile "$source/models/lenet.toml" -o "$work/lenet.step" >/dev/null 2>&1
(cd "$work" && "$run" train lenet.step --data "$data" --max_steps 40 --out alone --json >alone.json)
(cd "$work" && "$build/bin/halfstep" train lenet.step --data "$data" --max_steps 40 --out whole --json >whole.json)
cmp "$work"/{alone,whole}/checkpoints/step-000000040/weights.safetensors

# What goes to a device: the executable, its libraries (stripped, as packed), those of the system that it loads but for
# the C and C++ libraries, and the step.
ours=$(du -cb "$run" "${files[@]}" | tail -n 1 | cut -f 1)
step=$(du -sb "$work/lenet.step" | cut -f 1)
dnnl=$(awk '/libdnnl/ { print $3; exit }' <<<"$libraries" | xargs stat -Lc %s)
others=$(awk '$3 ~ /^\// { print $3 }' <<<"$libraries" | sort -u |
  grep -Ev "^$work|/(libc|libm|libstdc\+\+|libgcc_s|libdnnl)\.so" | xargs stat -Lc %s | awk '{ s += $1 } END { print s }')
printf 'halfstep-run and its libraries %d KB, the step %d KB, fmt, zlib, OpenMP and what oneDNN links %d KB: %d KB; oneDNN %d KB\n' \
  $((ours / 1000)) $((step / 1000)) $((others / 1000)) $(((ours + step + others) / 1000)) $((dnnl / 1000))
[ $((ours + step + others)) -lt 10000000 ] || { echo "packages: 10 MB is the limit" >&2; exit 1; }
