#!/usr/bin/env bash
# Builds with sanitizers and runs tests under them; the first finding fails a test.
# usage: tools/sanitize.sh address|thread [FOLDER ...]      e.g. tools/sanitize.sh address data program
#   address   default: every folder, without the heaviest tests
#   thread    default: feed, executor, trainer, the C API's steps on several threads, and what they stand on
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:?address or thread}
shift

folders=(base ir frontend passes codegen program runtime data training compiler cli untrusted api)
if [ "$kind" = thread ]; then
  folders=(base data runtime training api)
fi
if [ $# -gt 0 ]; then folders=("$@"); fi

build=$(bash tools/configure_sanitized.sh "$kind")
cmake --build "$build" --target "${folders[@]/%/_test}"

export ASAN_OPTIONS=strict_string_checks=1:detect_stack_use_after_return=1:quarantine_size_mb=16
export LSAN_OPTIONS=suppressions=$PWD/tools/sanitize_leaks.txt:print_suppressions=0
export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=suppressions=$PWD/tools/sanitize_threads.txt
# Whole models, which the plain tests run too; limits of time and memory, which a sanitizer multiplies; libraries that are
# loaded before the sanitizer's; programs and packages that are built without it.
heavy='Reference|Families|Limits|Scaling|Malformed|^Untrusted\.|AHandlerEveryMillisecond|^(StopCampaign|TrainingGraphsInOnnxRuntime|Consumers|Packages|Python|Abi)$'
ctest --test-dir "$build" -j "$(nproc)" -L "^($(IFS='|' && echo "${folders[*]}"))$" -E "$heavy" --timeout 1200 \
  --output-on-failure --no-tests=error
