#!/usr/bin/env bash
# Trains five recipes for some steps, on one thread and on two, and prints a hash of the last weights and moments of each: what
# changes no result prints the same before and after.
#
# usage: bash tests/scripts/weights.sh NERVE [STEPS]
set -euo pipefail
nerve=$(realpath "$1")
steps=${2:-15}
. "$(dirname "$0")/short_runs.sh"
prepare_data "$nerve"
for recipe in baseline/tiny brian/tiny brian/ladder brian/ladder_parallel brillm/tiny; do
    for threads in 1 2; do
        run=$(RAYON_NUM_THREADS=$threads short_run "$nerve" "$recipe" "$steps")
        last=$(find "$run/ckpt" -mindepth 1 -maxdepth 1 -type d | sort | tail -n 1)
        hash=$(cd "$last" && find . -name '*.safetensors' -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16)
        echo "$recipe $threads $hash"
    done
done
