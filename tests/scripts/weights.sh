#!/usr/bin/env bash
# Trains five recipes for some steps, on one thread and on two, and prints a hash of the last weights and moments of each: what
# changes no result prints the same before and after.
#
# usage: bash tests/scripts/weights.sh NERVE [STEPS]
set -euo pipefail
nerve=$(realpath "$1")
steps=${2:-15}
root=$(realpath "$(dirname "$0")/../..")
place=$(mktemp -d -t nerve-weights-XXXXXX)
trap 'rm -rf "$place"' EXIT
cd "$place"
ln -s "$root/assets" assets

"$nerve" data prepare "assets/samples/stories.jsonl" --output data/stories \
    --tokenizer "assets/tokenizers/story_bpe.json" >/dev/null 2>&1
"$nerve" data prepare "assets/samples/routing.jsonl" --output data/routing \
    --tokenizer "assets/tokenizers/byte.json" >/dev/null 2>&1
"$nerve" data bigrams data/stories/train.bin --output data/stories/bigrams.safetensors >/dev/null 2>&1

for recipe in baseline/tiny brian/tiny brian/ladder brian/ladder_parallel brillm/tiny; do
    file=assets/recipes/$recipe.toml
    # Gates ask for more than so few steps can give.
    mapfile -t sets < <(awk -F'"' -v steps="$steps" '
        /^\[\[stage\]\]/ { is_stage = 1 }
        is_stage && /^name = / {
            stage = "stage." $2; is_stage = 0
            print "--set"; print stage ".steps=" steps
            print "--set"; print stage ".learning_rate.warmup_steps=5"
        }
        /^gate = .*at_most/ { print "--set"; print stage ".gate.at_most=1000.0" }
        /^gate = .*at_least/ { print "--set"; print stage ".gate.at_least=0.0" }
    ' "$file")
    for threads in 1 2; do
        run=$(RAYON_NUM_THREADS=$threads "$nerve" fit "$file" --render none --set "run.root=$place/runs" "${sets[@]}" 2>>"$place/log") ||
            { echo "$recipe failed:"; tail -n 5 "$place/log"; exit 1; }
        last=$(find "$run/ckpt" -mindepth 1 -maxdepth 1 -type d | sort | tail -n 1)
        hash=$(cd "$last" && find . -name '*.safetensors' -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16)
        echo "$recipe $threads $hash"
    done
done
