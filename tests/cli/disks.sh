#!/usr/bin/env bash
# A disk that is full, a directory that is read-only when a run starts and one that becomes so while it trains: the old
# checkpoint stays as it was, the error says what is wrong, and the run goes on from it afterwards.
# usage: tests/cli/disks.sh HALFSTEP; ends with 77 where a user may not mount anything, not even for himself
set -euo pipefail
halfstep=$(realpath "$1")
source=$(cd "$(dirname "$0")/../.." && pwd)
if [ "${2:-}" != mounted ]; then
  # What is done below, on a directory of its own.
  if ! unshare --map-root-user --mount bash -ec 'd=$(mktemp -d); mount -t tmpfs none "$d"; mount --bind "$d" "$d"
      mount -o remount,bind,ro "$d"; ! touch "$d/file" 2>/dev/null; umount -l "$d"' 2>/dev/null; then
    echo "disks: skipped, file systems cannot be mounted here" >&2
    exit 77
  fi
  exec unshare --map-root-user --mount bash "$0" "$halfstep" mounted
fi
work=$(mktemp -d)
trap 'umount -l "$work/disk"; rm -rf "$work"' EXIT
mkdir "$work/disk"
mount -t tmpfs -o size=16m none "$work/disk"
cd "$work/disk"

images=/usr/share/datasets/fashion-mnist/t10k
train() { # OUT ARGUMENT ...
  CUDA_VISIBLE_DEVICES='' "$halfstep" train "$source/models/lenet.toml" --batch 16 --optimizer adam --keep 1 --metrics_every 1 \
    --data "images=$images-images-idx3-ubyte.gz,labels=$images-labels-idx1-ubyte.gz" --out "$@" >"$work/out" 2>"$work/err"
}
ends() { train "$@" || { cat "$work/err" >&2 && exit 1; }; }
fails() { # PART COMMAND ...
  local part=$1 code=0
  shift
  "$@" || code=$?
  if [ $code -ne 1 ] || ! grep -qF -- "$part" "$work/err"; then
    echo "disks: exit code 1 and '$part' expected, found $code and:" >&2
    cat "$work/err" >&2
    exit 1
  fi
}
same() { diff -r "$work/kept" run/checkpoints; }

ends "$work/whole" --max_steps 4
ends run --max_steps 2
cp -r run/checkpoints "$work/kept"
resume=(run --resume run/checkpoints)

# Full, but for 100 KB, while a checkpoint takes 5 MB.
cat /dev/zero >filler 2>/dev/null || true
truncate -s -100K filler
fails 'No space left on device' train "${resume[@]}" --max_steps 4
same
rm filler
ends "${resume[@]}" --max_steps 4
diff -r "$work/whole/checkpoints" run/checkpoints

rm -r "$work/kept"
cp -r run/checkpoints "$work/kept"
mount --bind run/checkpoints run/checkpoints
read_only() { mount -o remount,bind,ro run/checkpoints; }
read_only
fails 'Read-only file system' train "${resume[@]}" --max_steps 8
same
mount -o remount,bind,rw run/checkpoints

rm run/metrics.jsonl
train "${resume[@]}" --checkpoint_every 1000000 --epochs 100000 &
run=$!
while [ ! -s run/metrics.jsonl ] && kill -0 $run 2>/dev/null; do sleep 0.01; done
read_only
kill -TERM "$(cat run/.lock)"
fails 'Read-only file system' wait $run
same
echo "disks: a full one and a read-only one"
