#!/usr/bin/env bash
# Ours and the PyTorch equivalent in turns, on two threads: ours, theirs, theirs, ours.
# Needs a Python with torch: python3 -m venv peers && peers/bin/pip install torch, then bench/peers/compare.sh peers/bin/python
set -euo pipefail
python=${1:?which Python has torch}
cd "$(dirname "$0")/../.."
export RAYON_NUM_THREADS=2 MATMUL_NUM_THREADS=2 OMP_NUM_THREADS=2
ours() { cargo bench -q -p bench --bench "$@" 2> /dev/null | grep -E '^\| (path|[0-9])|time:|^decode' || true; }
theirs() { "$python" bench/peers/routed.py "$1"; }
echo "train step, ours:" && ours routed -- train_step live8
echo "theirs:" && theirs train_step && theirs train_step
echo "ours:" && ours routed -- train_step live8
echo "256 tokens, ours:" && ours decode
echo "theirs:" && theirs decode
