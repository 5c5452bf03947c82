#!/usr/bin/env bash
# Installs, builds and runs every test. Arguments go to ctest: `tools/test.sh -L passes` runs one folder's tests.
set -euo pipefail
cd "$(dirname "$0")/.."

bash tools/install.sh
bash tools/build.sh
ctest --test-dir build -j "$(nproc)" --output-on-failure --no-tests=error "$@"
