#!/usr/bin/env bash
# Installs a build and builds and runs two programs against it: a CMake project in C++ and a plain Makefile in C99.
# usage: tests/consumers/run.sh BUILD_DIR [FASHION_MNIST_DIR]
set -euo pipefail
source=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$1" && pwd)
data=${2:-/usr/share/datasets/fashion-mnist}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/prefix
export CUDA_VISIBLE_DEVICES= # on the CPU

cmake --install "$build" --prefix "$work/first" >/dev/null
mv "$work/first" "$prefix" # an installed tree can be moved
version=$(PKG_CONFIG_PATH=$prefix/lib/pkgconfig pkg-config --modversion halfstep-runtime)
[[ $("$prefix/bin/halfstep" --version) =~ ^"halfstep $version"(\ \([0-9a-f]+\))?$ ]]

# Two public libraries, each showing what api/symbols.txt says and nothing else.
diff <(cd "$prefix/lib" && ls -d -- *.so.?.?.? */ | sort) <(printf '%s\n' cmake/ halfstep/ libhalfstep-{compiler,runtime}.so."$version" pkgconfig/ | sort)
diff "$source/api/symbols.txt" <(for name in compiler runtime; do
  nm -D --defined-only "$prefix/lib/libhalfstep-$name.so" | awk -v name="$name" '$2 != "A" { print "libhalfstep-" name, $3 }'
done | sort)

cmake -S "$source/tests/consumers/cpp" -B "$work/cpp" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Debug \
  -DCMAKE_CXX_FLAGS="-Wall -Wextra -Werror -pedantic" >/dev/null
cmake --build "$work/cpp"
"$work/cpp/compile_model" "$source/models/mlp.onnx" "$work/mlp"
"$work/cpp/train_compiled" "$work/mlp" "$work/checkpoints"
if ldd "$work/cpp/train_compiled" | grep -E 'not found|LLVM|onnx|protobuf|halfstep_(frontend|codegen|passes)'; then
  echo "consumers: train_compiled needs more than the runtime" >&2
  exit 1
fi

cp -r "$source/tests/consumers/c" "$work/c"
PKG_CONFIG_PATH=$prefix/lib/pkgconfig make -C "$work/c"
"$work/c/lenet" "$source/models/lenet.onnx" "$data" "$work" 1 0.8
"$prefix/bin/halfstep" check "$work/lenet.trained.onnx" >/dev/null

# What was installed can be taken away again.
cmake --install "$build" --prefix "$work/gone" >/dev/null
cmake --build "$build" --target uninstall >/dev/null
[ -z "$(find "$work/gone" -not -type d)" ]
