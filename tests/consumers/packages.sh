#!/usr/bin/env bash
# Packs the runtime, the compiler's library and the headers as Debian packages. Unpacks the first alone and trains a
# compiled LeNet with what is in it; then the three together, and builds a program against that root.
# usage: tests/consumers/packages.sh BUILD_DIR [FASHION_MNIST_DIR]
set -euo pipefail
source=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$1" && pwd)
data=${2:-/usr/share/datasets/fashion-mnist}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CUDA_VISIBLE_DEVICES= # on the CPU

(cd "$work" && cpack --config "$build/CPackConfig.cmake" -G DEB -D "CPACK_COMPONENTS_ALL=runtime;compiler;dev" >cpack.log 2>&1) ||
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

# Each file is in one package, the packages name each other by version, and together they are enough to build with.
version=$(dpkg-deb -f "$package" Version)
for name in compiler dev; do
  depends=$(dpkg-deb -f "$work"/halfstep-"$name"_*.deb Depends)
  [[ $depends == *"halfstep-runtime (= $version)"* ]] || { echo "packages: $name depends on: $depends" >&2; exit 1; }
done
for deb in "$work"/halfstep-*.deb; do dpkg-deb -c "$deb" | awk '$1 !~ /^d/ { print $6 }'; done | sort | uniq -d |
  { ! grep . || { echo "packages: these files are in two of them" >&2; exit 1; }; }
for deb in "$work"/halfstep-*.deb; do dpkg-deb -x "$deb" "$work/root"; done
cmake -S "$source/tests/consumers/cpp" -B "$work/cpp" -DCMAKE_PREFIX_PATH="$work/root/usr" -DCMAKE_BUILD_TYPE=Debug >/dev/null
cmake --build "$work/cpp" >/dev/null
"$work/cpp/compile_model" "$source/models/mlp.onnx" "$work/mlp" >/dev/null
"$work/cpp/train_compiled" "$work/mlp" "$work/checkpoints" >/dev/null
if readelf -d "$work"/cpp/train_compiled | grep -F RUNPATH | grep -F "$build"; then
  echo "packages: a program built with the packages finds the build's libraries" >&2
  exit 1
fi
