#!/usr/bin/env bash
# Asks `nerve serve` with stock lm-eval and with OpenAI's Python client, and holds lm-eval's figures against `nerve eval --tasks`.
#
# usage: ecosystem.sh NERVE RUN [TASKS.toml INCLUDE_PATH TASK,TASK…]
# Packages are installed once, into ~/.cache/nerve/ecosystem or $NERVE_ECOSYSTEM.
set -euo pipefail
cd "$(dirname "$0")/../.."
nerve=$1 run=$2
tasks=${3:-assets/tasks/packs.toml} include=${4:-assets/tasks}
names=${5:-nerve_hops,nerve_arithmetic,nerve_copying,nerve_cloze,nerve_stories}
environment=${NERVE_ECOSYSTEM:-$HOME/.cache/nerve/ecosystem}
if [ ! -x "$environment/bin/lm_eval" ]; then
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet "lm_eval[api]==0.4.13" openai
fi
export PATH=$environment/bin:$PATH
place=$(mktemp -d -t nerve-ecosystem-XXXXXX)
trap 'kill "$server" 2>/dev/null || true; rm -rf "$place"' EXIT
"$nerve" serve "$run" --port 0 >"$place/address" 2>"$place/said" &
server=$!
for _ in $(seq 600); do [ -s "$place/address" ] && break; sleep 0.1; done
address=$(cat "$place/address")
limit=$(python3 -c 'import sys, tomllib; print(tomllib.load(open(sys.argv[1], "rb")).get("limit", ""))' "$tasks")
"$nerve" eval "$run" --tasks "$tasks" --json >"$place/ours.json"
# Batches of 1 and 16, one and eight requests at a time.
for setting in "1 1" "16 1" "1 8" "16 8"; do
    read -r batch concurrent <<<"$setting"
    LM_EVAL_ARGS="num_concurrent=$concurrent" bash contrib/lm_eval.sh "$address" --include_path "$include" --tasks "$names" \
        --batch_size "$batch" --output_path "$place/$batch-$concurrent" --log_samples ${limit:+--limit "$limit"} \
        >"$place/$batch-$concurrent.log" 2>&1 || { tail -n 20 "$place/$batch-$concurrent.log"; exit 1; }
done
python3 tests/scripts/ecosystem.py "$address" "$place"
