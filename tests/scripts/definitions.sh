#!/usr/bin/env bash
# Trains three recipes for 20 steps of every stage, with the fused versions and with the definitions alone, and compares every loss
# of the logs: sums have another order, so the numbers are near and not equal.
#
# usage: bash tests/scripts/definitions.sh NERVE [STEPS]
set -euo pipefail
nerve=$(realpath "$1")
steps=${2:-20}
. "$(dirname "$0")/short_runs.sh"
prepare_data "$nerve"
for recipe in brian/tiny brian/ladder brillm/tiny; do
    fused=$(short_run "$nerve" "$recipe" "$steps")
    composed=$(NERVE_COMPOSED=1 short_run "$nerve" "$recipe" "$steps")
    python3 - "$recipe" "$fused" "$composed" <<'PYTHON'
import json, sys

def losses(run):
    rows = map(json.loads, open(f"{run}/metrics.jsonl"))
    return [row["loss/lm"] for row in rows if "loss/lm" in row]

recipe, fused, composed = sys.argv[1], *map(losses, sys.argv[2:])
assert fused and len(fused) == len(composed), f"{recipe}: {len(fused)} losses and {len(composed)}"
furthest = max(abs(one - other) for one, other in zip(fused, composed))
print(f"{recipe}: {len(fused)} losses, furthest apart {furthest:.1e}")
assert furthest < 1e-2, f"{recipe}: definitions train otherwise than their fused versions"
PYTHON
done
