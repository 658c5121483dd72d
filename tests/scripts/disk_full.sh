#!/usr/bin/env bash
# Lets the disk fill up under `nerve fit`: it must exit 4, name the path, and leave the last checkpoint intact.
#
# usage: disk_full.sh NERVE RECIPE
# Two disks are tried: a file size limit, and a small tmpfs where mounting is allowed.
set -euo pipefail

nerve=$(realpath "$1")
recipe=$2
place=$(mktemp -d -t nerve-disk-full-XXXXXX)
small=$place/small

leave() {
    if mountpoint -q "$small"; then umount "$small"; fi
    rm -rf "$place"
}
trap leave EXIT

fail() {
    echo "disk_full: $*" >&2
    exit 1
}

# Starts a run and stops it once it has saved something, so that there is a last checkpoint to lose.
begin() { # ROOT
    "$nerve" fit "$recipe" --set "run.root=$1" --set run.name=run --render none >/dev/null 2>"$place/begin" &
    local process=$!
    until compgen -G "$1/run/ckpt/step-*[0-9]/manifest.json" >/dev/null; do
        kill -0 "$process" 2>/dev/null || fail "no checkpoint was written: $(cat "$place/begin")"
        sleep 0.01
    done
    kill -INT "$process" 2>/dev/null || true
    local code=0
    wait "$process" || code=$?
    [ "$code" = 130 ] || fail "exit $code after SIGINT, expected 130; does the recipe save early? $(cat "$place/begin")"
}

newest() { # RUN
    basename "$(printf '%s\n' "$1"/ckpt/step-* | grep -E '/step-[0-9]+$' | sort | tail -n 1)"
}

# Holds what must be true after `fit --resume` met the full disk with exit code $2.
check() { # RUN CODE NEWEST_BEFORE
    [ "$2" = 4 ] || fail "exit $2, expected 4: $(cat "$place/message")"
    grep -qF "$1/" "$place/message" || fail "the path is not named: $(cat "$place/message")"
    [ "$(newest "$1")" = "$3" ] || fail "the newest checkpoint is $(newest "$1"), expected $3"
    "$nerve" runs verify "$1" >/dev/null || fail "a checkpoint does not verify"
    ! compgen -G "$1/ckpt/*.tmp-*" >/dev/null || fail "something half-written is left"
    echo "disk_full: exit 4, $3 intact: $(grep -F "$1/" "$place/message" | tail -n 1)"
}

file_limit() {
    local run=$place/limited/run code=0
    begin "$place/limited"
    local last bytes
    last=$(newest "$run")
    bytes=$(stat -c %s "$run/ckpt/$last/optim-00001-of-00001.safetensors")
    # The shard is cut in its middle: the limit is in units of 1024 bytes.
    (
        ulimit -f $((bytes / 2048))
        exec "$nerve" fit --resume "$run" --render none
    ) >/dev/null 2>"$place/message" || code=$?
    check "$run" "$code" "$last"
    "$nerve" fit --resume "$run" --render none >/dev/null 2>&1 || fail "the run does not go on once there is room"
}

small_tmpfs() {
    local run=$small/run code=0
    mkdir "$small"
    if ! mount -t tmpfs -o size=1g tmpfs "$small" 2>/dev/null; then
        echo "disk_full: mounting is not allowed here, the tmpfs is left out"
        return
    fi
    begin "$small"
    local last used
    last=$(newest "$run")
    used=$(df --output=used -B1024 "$small" | tail -n 1)
    # Room for log lines and run.json, but for no further checkpoint.
    mount -o "remount,size=$((used + 32))k" "$small"
    "$nerve" fit --resume "$run" --render none >/dev/null 2>"$place/message" || code=$?
    check "$run" "$code" "$last"
    mount -o remount,size=1g "$small"
    "$nerve" fit --resume "$run" --render none >/dev/null 2>&1 || fail "the run does not go on once there is room"
}

file_limit
small_tmpfs
