# To be sourced: trains bundled recipes for some steps, in an empty folder. It becomes the working directory and goes in the end.

place=$(mktemp -d -t nerve-short-XXXXXX)
trap 'rm -rf "$place"' EXIT
ln -s "$(realpath "$(dirname "${BASH_SOURCE[0]}")/../../assets")" "$place/assets"
cd "$place"

prepare_data() { # NERVE
    {
        "$1" data prepare assets/samples/stories.jsonl --output data/stories --tokenizer assets/tokenizers/story_bpe.json
        "$1" data prepare assets/samples/routing.jsonl --output data/routing --tokenizer assets/tokenizers/byte.json
        "$1" data bigrams data/stories/train.bin --output data/stories/bigrams.safetensors
    } >log 2>&1 || { cat log; exit 1; }
}

# So many steps of every stage. Prints the run.
short_run() { # NERVE RECIPE STEPS
    local file=${2//\//-}.toml sets
    # The program's own, for recipes have a format; without gates, which ask for more than so few steps can give.
    "$1" config new "${2%/*}" --size "${2#*/}" | grep -v '^gate = ' >"$file"
    mapfile -t sets < <(awk -F'"' -v steps="$3" '
        /^\[\[stage\]\]/ { is_stage = 1 }
        is_stage && /^name = / {
            stage = "stage." $2; is_stage = 0
            print "--set"; print stage ".steps=" steps
            print "--set"; print stage ".learning_rate.warmup_steps=5"
        }
    ' "$file")
    "$1" fit "$file" --render none --set "run.root=$place/runs" "${sets[@]}" 2>log || { echo "$2: $(tail -n 1 log)" >&2; exit 1; }
}
