#!/usr/bin/env bash
# Two programs in turns: how long a train step, an evaluated batch and a continued text take, and how much memory that needs. Prints
# the median ratio NEW / OLD and its 95 % interval (the median of pairs drawn again 10,000 times).
#
# usage: bash bench/compare.sh OLD NEW [PAIRS]
set -euo pipefail
old=$(realpath "$1")
new=$(realpath "$2")
pairs=${3:-15}
. "$(dirname "$0")/../tests/scripts/short_runs.sh"
prepare_data "$old"
for recipe in baseline/tiny brian/ladder brillm/tiny; do
    run=$(short_run "$old" "$recipe" 6)
    for pair in $(seq "$pairs"); do
        # Who is first changes, for the second finds a warmer machine.
        order="old new"
        ((pair % 2)) || order="new old"
        for which in $order; do
            echo "$recipe $which $pair $("${!which}" bench "$run" --json --rounds 15 | tr -d '\n')"
        done
    done
done >times
python3 - times <<'PYTHON'
import json, random, statistics, sys

found = {}
for line in open(sys.argv[1]):
    recipe, which, pair, answer = line.split(" ", 3)
    answer = json.loads(answer)
    numbers = {speed["what"]: speed["milliseconds"] for speed in answer["speeds"]}
    numbers["memory"] = answer["peak_memory_bytes"]
    for what, number in numbers.items():
        found.setdefault((recipe, what), {}).setdefault(pair, {})[which] = number
random.seed(1)
print(f"{'recipe':16} {'what':9} {'median':>7} {'95 % interval':>15}")
for (recipe, what), pairs in found.items():
    ratios = [both["new"] / both["old"] for both in pairs.values() if len(both) == 2]
    if not ratios:
        print(f"{recipe:16} {what:9} only one of the programs measures it")
        continue
    medians = sorted(statistics.median(random.choices(ratios, k=len(ratios))) for _ in range(10_000))
    low, high = medians[250], medians[9749]
    print(f"{recipe:16} {what:9} {statistics.median(ratios):7.3f} {low:7.3f} {high:7.3f}")
PYTHON
