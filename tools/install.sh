#!/usr/bin/env bash
# Installs what building, testing and the demo need on Debian 12, as root or through sudo. Arguments: further packages.
# Does nothing where everything is there, so the other scripts call it first.
set -euo pipefail

packages=(
  cmake g++ ninja-build make pkg-config
  llvm-19-dev liblld-19-dev libzstd-dev zlib1g-dev # the LLVM libraries name the last two as theirs
  libprotobuf-dev protobuf-compiler libonnx-dev
  libdnnl-dev
  libmimalloc-dev
  libpng-dev libjpeg62-turbo-dev # images of data sets
  libhdf5-103-1 # loaded to read HDF5 files; without it their tests are left out
  libcli11-dev libfmt-dev nlohmann-json3-dev libtomlplusplus-dev
  libgraphviz-dev # inspect's page
  libgtest-dev libgmock-dev
  python3-dev python3-venv # the test of the Python package fetches its tools itself: python/tests/requirements.txt
  libssl3 dpkg-dev # loaded to check signatures; the test of the packages
  dataset-fashion-mnist libonnx-testdata
  "$@"
)

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" -eq 0 ]; then
  as_root=(env)
elif command -v sudo >/dev/null; then
  as_root=(sudo env)
else
  echo "install: these packages are missing, and there is neither root nor sudo: ${missing[*]}" >&2
  exit 1
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() {
  "${as_root[@]}" DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" >"$log" 2>&1 </dev/null
}

echo "install: ${missing[*]}" >&2
if ! { apt update && apt install -y --no-install-recommends "${missing[@]}"; }; then
  tail -n 20 "$log" >&2
  cat >&2 <<'TXT'
install: apt failed. Is the network there, and does no other apt hold the lock? All of the packages are in Debian 12,
component main; LLVM 19 came with a point release, so a mirror or image of the first days lacks it.
TXT
  exit 1
fi
