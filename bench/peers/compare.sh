#!/usr/bin/env bash
# Ours and the PyTorch equivalent in turns, on two threads: ours, theirs, theirs, ours.
# Needs a Python with torch: python3 -m venv peers && peers/bin/pip install torch==2.15.*, then bench/peers/compare.sh peers/bin/python
set -euo pipefail
python=${1:?which Python has torch}
cd "$(dirname "$0")/../.."
export RAYON_NUM_THREADS=2 MATMUL_NUM_THREADS=2 OMP_NUM_THREADS=2
ours() { cargo bench -q -p bench --bench "$@" 2> /dev/null | grep -E '^\| (path|[0-9])|time: +\[[0-9]|^decode' || true; }
theirs() { "$python" "bench/peers/$1.py" "${@:2}"; }
for shape in d128x4_b8x128_h4_v512 d768x2_b4x128_h12_v512; do
    dense() { NERVE_BENCH_SHAPES=$shape ours train_step -- baseline; }
    echo "baseline's train step, $shape, ours:" && dense
    echo "theirs:" && theirs dense "$shape" && theirs dense "$shape"
    echo "ours:" && dense
done
echo "routed train step, ours:" && ours routed -- train_step live8
echo "theirs:" && theirs routed train_step && theirs routed train_step
echo "ours:" && ours routed -- train_step live8
echo "256 tokens, ours:" && ours decode
echo "theirs:" && theirs routed decode
