#!/usr/bin/env bash
# The whole path on bundled data: text → tokens → two stages of training → loss → sample. About a minute on two CPU
# cores after the build. Leaves data/stories and a run directory below runs/.
#
# usage: bash assets/demo.sh
set -euo pipefail
cd "$(dirname "$0")/.."

# cargo finds the program wherever the target directory is.
nerve() {
    cargo run --release --quiet -- "$@"
}

cargo build --release

# The same texts give the same bytes, so a second demo changes nothing for the runs of the first.
nerve data prepare assets/samples/stories.jsonl --output data/stories --tokenizer assets/tokenizers/story_bpe.json --force

# Stage "baseline": all blocks in a row. Stage "fixed": the same weights, walked through the pool in order.
run=$(nerve fit assets/recipes/brian/tiny.toml)

nerve eval "$run"
nerve sample "$run" --prompt "Once " --tokens 80 --temperature 0.8
echo "The run: $run. Continue a text of your own with: cargo run --release -- sample $run --prompt \"The \""
