#!/usr/bin/env bash
# Builds the fuzzers of tests/libfuzzer and packs them with their seeds and the libraries they need but glibc's, for a
# machine with more cores: out/fuzzers.tar.xz, which holds fuzz/run.sh (tools/run_fuzzers.sh).
# usage: tools/bundle_fuzzers.sh
set -euo pipefail
cd "$(dirname "$0")/.."
build=$(bash tools/configure_sanitized.sh address)
mapfile -t targets < <(sed -nE 's/^halfstep_fuzzer\(([a-z_]+).*/\1/p' tests/libfuzzer/CMakeLists.txt)
cmake --build "$build" --target fuzz_seeds "${targets[@]/#/fuzz_}"

rm -rf out/fuzz
mkdir -p out/fuzz/bin out/fuzz/lib
mapfile -t models < <(find models -name '*.onnx' -size -65536c)
"$build/bin/fuzz_seeds" out/fuzz/corpus "${models[@]}"
cp tools/run_fuzzers.sh out/fuzz/run.sh
for target in "${targets[@]}"; do
  # Symbols stay for the traces; lines are those of the build's own files at the same addresses.
  strip -g -o "out/fuzz/bin/$target" "$build/bin/fuzz_$target"
done
ldd "${targets[@]/#/$build/bin/fuzz_}" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
  grep -vE '/(libc|libm|libdl|librt|libpthread|ld-linux[^/]*|libresolv)\.so' | while read -r library; do
  strip -g -o "out/fuzz/lib/$(basename "$library")" "$library"
done
tar -C out -cJf out/fuzzers.tar.xz fuzz
ls -l out/fuzzers.tar.xz
