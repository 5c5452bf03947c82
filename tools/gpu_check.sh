#!/usr/bin/env bash
# Everything that only a machine with a GPU can show, from a bundle. A short table last; non-zero where a row failed.
# usage: tools/gpu_check.sh BUNDLE.tar.xz DATA_DIR [PART ...]
#   DATA_DIR: the four IDX files of Fashion-MNIST
#   PART: tests, conformance (needs Debian's libonnx-testdata installed), demo, losses, bench, peer, sanitize (the GPU
#   tests under compute-sanitizer); default: all but conformance and sanitize
# Logs and results go to $OUT, or to out/gpu; with bench and peer also side_by_side.md.
# shellcheck disable=SC2317 # the parts are called by name, through row
set -euo pipefail

bundle=$(realpath "$1")
data=$(realpath "$2")
shift 2
parts=("$@")
[ $# -gt 0 ] || parts=(tests demo losses bench peer)
tools=$(realpath "$(dirname "$0")")
out=$(realpath -m "${OUT:-$tools/../out/gpu}")
mkdir -p "$out"
table=$out/table.txt
: >"$table"
failed=0

in_bundle() { bash "$tools/run_bundle.sh" "$bundle" "$@"; }

# row PART TEXT COMMAND...: runs the command into $out/PART.log; the table gets the log's last line and how it ended.
# Commands are functions here, and bash does not stop a function at its first error under `||`: they chain with &&.
row() {
  local log=$out/$1.log text=$2 verdict=ok
  shift 2
  "$@" >"$log" 2>&1 || { verdict=FAILED && failed=1; }
  printf '%-6s %-22s %s\n' "$verdict" "$text" "$(tail -n 1 "$log" | cut -c1-200)" | tee -a "$table"
  [ $verdict = ok ] || tail -n 25 "$log" >&2
}

# On a machine with a GPU a skipped test is a failed one, except those of its absence.
# gpu_tests COMMAND...
gpu_tests() {
  in_bundle "$@" | tee "$out/gpu_test.txt" && ! grep -F '[  SKIPPED ]' "$out/gpu_test.txt" | grep -Ev 'WithoutGpu|listed below'
}

demo() {
  in_bundle env HALFSTEP=bin/halfstep DATA="$data" bash tools/demo.sh --device cuda --epochs 2
}

# losses PRECISION LIMIT: the first 100 steps on the CPU and on the GPU.
losses() {
  local device directory
  for device in cpu cuda; do
    directory=$out/losses.$1.$device
    rm -rf "$directory" && in_bundle halfstep train models/lenet.toml --data "$data" --device "$device" \
      --precision "$1" --max-steps 100 --out "$directory" || return 1
  done
  python3 "$tools/compare_losses.py" "$out/losses.$1.cuda/metrics.jsonl" "$out/losses.$1.cpu/metrics.jsonl" "$2"
}

bench() {
  in_bundle halfstep bench "models/$1.toml" --device cuda --precision "$2" --json >"$out/bench.$1.$2.json" &&
    python3 - "$out/bench.$1.$2.json" <<'PY'
import json, sys
b = json.load(open(sys.argv[1]))
print(f"median {b['median_ms']:.4f} ms, p90 {b['p90_ms']:.4f}, {b['samples_per_second']:.0f} images/s,"
      f" memory {b['measured_bytes'] / 2**20:.0f} MiB, compiled in {b.get('compile_seconds', 0):.2f} s")
PY
}

for part in "${parts[@]}"; do
  case $part in
    tests)
      row tests "gpu tests" gpu_tests bin/gpu_test
      row api "tensors of the API" gpu_tests bin/api_test --gtest_filter='*OnTheGpu'
      ;;
    conformance) row conformance "ONNX conformance" gpu_tests bin/conformance_test --gtest_filter='*OnTheGpu' ;;
    demo) row demo "demo, 2 epochs" demo ;;
    losses)
      row losses.fp32 "fp32 losses, GPU = CPU" losses fp32 1e-4
      row losses.fp16 "fp16 losses, GPU = CPU" losses fp16 5e-3
      ;;
    bench)
      for model in mlp lenet resnet18; do row "bench.$model" "step of $model" bench "$model" fp16; done
      ;;
    peer)
      for model in mlp lenet resnet18; do
        row "peer.$model" "PyTorch's $model" python3 "$tools/peer.py" --out "$out/peer.$model.json" "$model"
      done
      ;;
    sanitize)
      # The recorded models take minutes under the sanitizer; every kernel form and library call is in the rest. A kernel
      # is looked up in several modules, which the sanitizer would report as failed calls.
      row sanitize "compute-sanitizer" gpu_tests env GTEST_FILTER='-*Reference*:*TorchSteps*' \
        compute-sanitizer --error-exitcode 9 --report-api-errors no bin/gpu_test
      ;;
    *)
      echo "gpu_check: no part '$part'" >&2
      exit 2
      ;;
  esac
done

if compgen -G "$out/bench.*.json" >/dev/null && compgen -G "$out/peer.*.json" >/dev/null; then
  python3 "$tools/side_by_side.py" "$out" | tee "$out/side_by_side.md"
fi
printf '\n'
cat "$table"
exit $failed
