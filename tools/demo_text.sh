#!/usr/bin/env bash
# Trains a byte-level GPT-2 on the King James Bible in fp16: on the GPU where there is one, else on the CPU. Leaves its
# results in out/demo_text. Arguments go to `halfstep train`, e.g. --epochs 2. HALFSTEP names an executable that is built
# already, and DATA a text file; without them both are installed and built.
set -euo pipefail
cd "$(dirname "$0")/.."

rm -rf out/demo_text
mkdir -p out/demo_text
if [ -z "${DATA:-}" ]; then
  bash tools/install.sh bible-kjv
  DATA=out/demo_text/kjv.txt
  bible gen1:1-rev22:21 >"$DATA" </dev/null
fi
if [ -z "${HALFSTEP:-}" ]; then
  bash tools/install.sh
  bash tools/build.sh halfstep_cli >&2
  HALFSTEP=build/bin/halfstep
fi

exec "$HALFSTEP" train models/gpt2_tiny.toml --data "$DATA" --out out/demo_text "$@"
