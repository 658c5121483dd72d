#!/usr/bin/env bash
# Builds the tests for 64-bit Arm and runs those whose numbers a processor could change. Elsewhere than on such a machine the
# programs run in qemu: a build like any other, then about an hour on two cores.
#
# usage: bash tests/scripts/aarch64.sh
#
# Debian and Ubuntu: apt-get install g++-aarch64-linux-gnu qemu-user binfmt-support qemu-user-binfmt
set -euo pipefail
cd "$(dirname "$0")/../.."
target=aarch64-unknown-linux-gnu

if [ "$(uname -m)" != aarch64 ]; then
    command -v aarch64-linux-gnu-gcc >/dev/null || { echo "aarch64-linux-gnu-gcc: not found; see the head of $0"; exit 1; }
    rustup target add "$target"
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    # Where the interpreter and the libraries of such a program lie.
    export QEMU_LD_PREFIX=/usr/aarch64-linux-gnu
    echo "runs are resumed from three of their checkpoints, not from all: this machine only pretends to be one with Arm"
    export NERVE_EMULATED=1
fi

build=(cargo test --release --target "$target" -p brian -p brillm -p tests --lib --test it)
"${build[@]}" --no-run
program=${CARGO_TARGET_DIR:-target}/$target/release/nerve-under-test
# Tests start the program by its name, so it is the kernel that has to know how.
if ! "$program" --version; then
    echo "$program: does not start; register qemu-aarch64 with binfmt_misc (qemu-user-binfmt does)"
    exit 1
fi
"${build[@]}" -- ops kernel parity causality decode execution determinism
