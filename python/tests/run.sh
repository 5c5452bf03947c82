#!/usr/bin/env bash
# Builds a wheel on an installed build, installs it into an environment of its own and runs the tests there.
# usage: python/tests/run.sh BUILD_DIR [PYTEST_ARGUMENT ...]; ends with 77 where the headers of Python are missing, or what pip
# should fetch
set -euo pipefail
source=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$1" && pwd)
shift
own=$build/python # kept: what pip fetched and the module's object files

headers=$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')
if [ ! -e "$headers/Python.h" ]; then
  echo "python: skipped, there is no $headers/Python.h: install python3-dev" >&2
  exit 77
fi
python=$own/environment/bin/python
[ -x "$python" ] || python3 -m venv "$own/environment"
export PIP_DISABLE_PIP_VERSION_CHECK=1
if ! "$python" -m pip install --quiet -r "$source/python/tests/requirements.txt"; then
  echo "python: skipped, pip cannot fetch python/tests/requirements.txt" >&2
  exit 77
fi

rm -rf "$own/prefix" "$own/wheel"
cmake --install "$build" --prefix "$own/prefix" >/dev/null
"$python" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$own/wheel" \
  --config-settings=build-dir="$own/module" --config-settings=cmake.source-dir=python \
  --config-settings=cmake.define.halfstep_ROOT="$own/prefix" "$source"
"$python" -m pip install --quiet --no-deps --force-reinstall "$own"/wheel/halfstep-*.whl
export CUDA_VISIBLE_DEVICES= # on the CPU; test_gpu.py says how it is run
"$python" -m pytest -q -p no:cacheprovider "$source/python/tests" "$@"
