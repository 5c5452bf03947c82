#!/usr/bin/env bash
# Trains LeNet on Fashion-MNIST in fp16: on the GPU where there is one, else on the CPU. Leaves its results in out/demo.
# Arguments go to `halfstep train`, e.g. --epochs 2. HALFSTEP names an executable that is built already, and DATA the
# directory of the four IDX files; without them both are installed and built.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${HALFSTEP:-}" ]; then
  bash tools/install.sh
  bash tools/build.sh halfstep_cli >&2
  HALFSTEP=build/bin/halfstep
fi
data=${DATA:-$(dirname "$(dpkg -L dataset-fashion-mnist | grep -m1 train-images)")}

rm -rf out/demo
exec "$HALFSTEP" train models/lenet.toml --data "$data" --out out/demo "$@"
