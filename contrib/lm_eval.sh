#!/usr/bin/env bash
# EleutherAI's lm-eval, unmodified, on a model that `nerve serve` answers for. From the root of the repository:
#
#   nerve serve last --port 8000 &
#   contrib/lm_eval.sh http://127.0.0.1:8000 --include_path assets/tasks --tasks nerve_hops,nerve_stories
#
# usage: contrib/lm_eval.sh ADDRESS ARGUMENTS OF lm_eval…
# needs: pip install "lm_eval[api]==0.4.13"
set -euo pipefail
address=${1:?the address of the server}
shift
# What stands before a text: lm-eval takes a token with the id 0 for none, so its id is given.
read -r model context start < <(python3 - "$address" <<'PYTHON'
import json, sys, urllib.request
def of(path):
    return json.load(urllib.request.urlopen(sys.argv[1] + path))
model = of("/v1/models")["data"][0]
start = of("/tokenizer_info")["start_of_texts_id"]
print(model["id"], model["max_model_len"], "none" if start is None else start)
PYTHON
)
arguments="model=$model,base_url=$address/v1/completions,tokenizer_backend=remote,max_length=$context"
[ "$start" = none ] || arguments+=",custom_prefix_token_id=$start"
# Data sets are local files; LM_EVAL_ARGS adds to the model's arguments, as num_concurrent=8.
export HF_DATASETS_OFFLINE=1 HF_HUB_OFFLINE=1
exec lm_eval --model local-completions --model_args "$arguments${LM_EVAL_ARGS:+,$LM_EVAL_ARGS}" "$@"
