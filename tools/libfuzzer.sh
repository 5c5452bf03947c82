#!/usr/bin/env bash
# Builds the fuzzers of tests/libfuzzer with clang's libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer and runs
# each for some seconds. What fails is left in out/libfuzzer, what was found worth keeping in out/libfuzzer/corpus.
# usage: tools/libfuzzer.sh [SECONDS [TARGET ...]]      default: 20, all nine
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-20}
shift || true
targets=("$@")
if [ $# -eq 0 ]; then
  targets=(onnx_bytes onnx_structure external_data safetensors checkpoint arrays tables recipe program)
fi

build=$(bash tools/configure_sanitized.sh address)
cmake --build "$build" --target fuzz_seeds "${targets[@]/#/fuzz_}"

out=out/libfuzzer
mkdir -p "$out"
most=65536
mapfile -t models < <(find models -name '*.onnx' -size "-${most}c")
"$build/bin/fuzz_seeds" "$out/corpus" "${models[@]}"
export UBSAN_OPTIONS=print_stacktrace=1
code=0
for target in "${targets[@]}"; do
  log=$out/$target.log
  # Inputs that take more than 20 s or leak, allocations above 512 MB and processes above 2 GB fail too.
  if ! "$build/bin/fuzz_$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -malloc_limit_mb=512 \
    -max_len=$most -print_final_stats=1 -artifact_prefix="$out/$target-" "$out/corpus/$target" >"$log" 2>&1; then
    echo "libfuzzer: $target failed; see $log" >&2
    code=1
  fi
  awk -v target="$target" '
    /number_of_executed_units/ { runs = $2 }
    / cov: / { for (i = 1; i < NF; ++i) if ($i == "cov:") edges = $(i + 1); else if ($i == "ft:") features = $(i + 1) }
    END { printf "%-15s %9d executions, %6d edges, %6d features\n", target, runs, edges, features }' "$log"
done
exit $code
