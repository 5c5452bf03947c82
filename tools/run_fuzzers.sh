#!/usr/bin/env bash
# Runs the fuzzers that tools/bundle_fuzzers.sh packed, beside this file; needs no more than glibc.
# usage: run.sh OUT SECONDS WORKERS [EARLIER ...]
#   WORKERS   processes of each target, which share its corpus
#   EARLIER   corpus.tar.xz of earlier runs, to go on from
# Every two minutes and at the end OUT gets table.txt, findings.tar.xz (logs and what failed) and corpus.tar.xz (where it
# is below 15 MB), whole at any time.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
seconds=$2 workers=$3
shift 3

ulimit -c 0
export LD_LIBRARY_PATH=$here/lib UBSAN_OPTIONS=print_stacktrace=1
work=$here/work
mkdir -p "$work/logs" "$work/found" "$work/tmp"
export TMPDIR=$work/tmp
for earlier in "$@"; do tar -C "$here" -xJf "$earlier"; done
mapfile -t targets < <(cd "$here/bin" && ls)

# Where no process may look at another, leaks cannot be looked for.
leaks='leaks are findings'
if "$here/bin/${targets[0]}" -runs=1 2>&1 | grep -q 'LeakSanitizer has encountered a fatal error'; then
  export ASAN_OPTIONS=detect_leaks=0
  leaks='leaks could not be looked for'
fi

# A finding ends a process, so the next one takes its place, up to five times.
worker() { # TARGET NUMBER
  local name=$1.$2 tries left
  for tries in 1 2 3 4 5; do
    left=$((end - $(date +%s)))
    [ "$left" -gt 1 ] || break
    "$here/bin/$1" -max_total_time="$left" -timeout=20 -rss_limit_mb=2048 -malloc_limit_mb=512 -max_len=65536 \
      -print_final_stats=1 -artifact_prefix="$work/found/$1-" "$here/corpus/$1" >>"$work/logs/$name" 2>&1 &
    echo $! >"$work/logs/$name.pid"
    if wait $!; then break; fi
    echo "run_fuzzers: failed, try $tries" >>"$work/logs/$name"
  done
}

# Processor seconds of each process, as far as they were seen.
note_times() {
  local file pid
  for file in "$work"/logs/*.pid; do
    pid=$(cat "$file")
    if [ -r "/proc/$pid/stat" ]; then
      awk '{ print ($14 + $15) / 100 }' "/proc/$pid/stat" >"${file%.pid}.cpu.$pid.new" 2>/dev/null &&
        mv "${file%.pid}.cpu.$pid.new" "${file%.pid}.cpu.$pid" || true
    fi
  done
}

table() {
  printf '%-16s %12s %12s %8s %9s %7s %9s\n' target 'cpu seconds' executions edges features inputs findings
  for target in "${targets[@]}"; do
    awk -v target="$target" -v cpu="$(cat "$work/logs/$target".*.cpu.* 2>/dev/null | awk '{ s += $1 } END { print s + 0 }')" \
      -v inputs="$(find "$here/corpus/$target" -type f | wc -l)" '
      function close_run() { runs += run; run = 0 }
      /^INFO: Seed:/ { close_run() }
      /^#[0-9]+/ { n = substr($1, 2) + 0; if (n > run) run = n }
      /number_of_executed_units/ { if ($2 + 0 > run) run = $2 + 0 }
      / cov: / { for (i = 1; i < NF; ++i) { if ($i == "cov:" && $(i + 1) + 0 > edges) edges = $(i + 1) + 0
                                            if ($i == "ft:" && $(i + 1) + 0 > features) features = $(i + 1) + 0 } }
      /^run_fuzzers: failed/ { ++findings }
      FNR == 1 { close_run() }
      END { close_run()
            printf "%-16s %12d %12d %8d %9d %7d %9d\n", target, cpu, runs, edges, features, inputs, findings }' \
      $(find "$work/logs" -name "$target.[0-9]*" ! -name '*.pid' ! -name '*.cpu.*')
  done
}

pack() {
  { table && echo "$leaks; $(nproc) processors"; } >"$out/table.new" && mv "$out/table.new" "$out/table.txt"
  rm -rf "$work/packed" && mkdir -p "$work/packed/logs" "$work/packed/found"
  cp "$out/table.txt" "$work/packed/"
  local file
  for file in $(find "$work/logs" -type f ! -name '*.pid' ! -name '*.cpu.*'); do
    tail -n 300 "$file" >"$work/packed/logs/$(basename "$file")"
    grep -A 120 -E '^==[0-9]+==|runtime error|ALARM|libFuzzer: ' "$file" | head -n 2000 \
      >"$work/packed/logs/$(basename "$file").failures" || true
  done
  find "$work/found" -type f -size -1000k | head -n 200 | xargs -r cp -t "$work/packed/found"
  tar -C "$work/packed" -cJf "$out/findings.new" . && mv "$out/findings.new" "$out/findings.tar.xz"
  # Inputs come and go meanwhile.
  tar -C "$here" --ignore-failed-read -cJf "$work/corpus.new" corpus 2>/dev/null || true
  if [ "$(stat -c %s "$work/corpus.new")" -lt 15000000 ]; then
    mv "$work/corpus.new" "$out/corpus.tar.xz"
  fi
}

end=$(($(date +%s) + seconds))
children=()
for target in "${targets[@]}"; do
  mkdir -p "$here/corpus/$target"
  for ((i = 0; i < workers; ++i)); do
    worker "$target" "$i" &
    children+=($!)
  done
done
packed=$(date +%s)
while [ "$(date +%s)" -lt "$end" ]; do
  sleep 5
  note_times
  if [ $(($(date +%s) - packed)) -ge 120 ]; then
    pack
    packed=$(date +%s)
  fi
done
note_times
wait "${children[@]}" || true
pack
rm -rf "$work/tmp"
cat "$out/table.txt"
