#!/usr/bin/env bash
# Ours and the PyTorch equivalent in turns: ours, theirs, theirs, ours. On two threads of the CPU, or on a GPU, where theirs always
# uses CUDA.
#
# usage: bench/peers/compare.sh PYTHON [cpu|cuda|vulkan]
# PYTHON has torch: python3 -m venv peers && peers/bin/pip install -r bench/peers/requirements.txt, then peers/bin/python
set -euo pipefail
python=${1:?which Python has torch}
device=${2:-cpu}
cd "$(dirname "$0")/../.."
export RAYON_NUM_THREADS=2 MATMUL_NUM_THREADS=2 OMP_NUM_THREADS=2
features=()
[ "$device" = cpu ] || features=(--no-default-features --features "$device")

ours() { # BENCH ARGUMENT…
    local shown='^\| (path|[0-9])|time: +\[[0-9]|GFLOP/s|GB/s|^(decode|signal|kernels)'
    cargo bench -q -p bench ${features[@]+"${features[@]}"} --bench "$@" 2> /dev/null | grep -E "$shown" || true
}
theirs() { "$python" "bench/peers/$1.py" "${@:2}"; }

# Runs something, and says how much of the GPU's memory was in use at most meanwhile.
watched() {
    "$@" &
    local most=0 used
    while kill -0 $! 2> /dev/null; do
        used=$(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits | head -n 1)
        most=$((used > most ? used : most))
        sleep 0.2
    done
    echo "at most $most MiB of the GPU's memory"
}

on_gpu() {
    local shape=d768x12_b1x2048_h12_v32000 graph=v4000_13%/k400 dtype
    local dtypes="f32 bf16"
    [ "$device" = cuda ] || dtypes=f32
    for dtype in $dtypes; do
        dense() { NERVE_BENCH_SHAPES=$shape NERVE_BENCH_DTYPE=$dtype watched ours train_step -- baseline; }
        echo "baseline's train step, $shape, $dtype, ours (the first step tries kernels for minutes):" && dense
        echo "theirs:" && theirs dense $shape cuda $dtype eager && theirs dense $shape cuda $dtype compile
        echo "ours:" && dense
    done
    signal() { NERVE_BENCH_GRAPH=$graph watched ours signal -- signal_step; }
    echo "BriLLM's step, $graph, ours:" && signal
    echo "theirs:" && theirs graph $graph cuda dense && theirs graph $graph cuda sparse
    echo "ours:" && signal
    echo "kernels, and the same composed of Burn's operations:"
    NERVE_BENCH_SHAPES=$shape NERVE_BENCH_DTYPE=$dtype ours kernels
}

on_cpu() {
    local shape mode
    for shape in d128x4_b8x128_h4_v512 d768x2_b4x128_h12_v512; do
        dense() { NERVE_BENCH_SHAPES=$shape ours train_step -- baseline; }
        echo "baseline's train step, $shape, ours:" && dense
        echo "theirs:" && theirs dense $shape && theirs dense $shape
        echo "ours:" && dense
    done
    echo "routed train step, ours:" && ours routed -- train_step live8
    echo "theirs:" && theirs routed train_step && theirs routed train_step
    echo "ours:" && ours routed -- train_step live8
    echo "256 tokens, ours:" && ours decode
    echo "theirs:" && theirs routed decode
    echo "BriLLM's step, ours:" && ours signal -- signal_step/v
    for mode in dense sparse; do
        echo "theirs:" && theirs graph v256_100%/k100 cpu $mode && theirs graph v1000_20%/k400 cpu $mode
    done
}

if [ "$device" = cpu ]; then on_cpu; else on_gpu; fi
