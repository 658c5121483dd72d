#!/usr/bin/env python3
"""Kills `nerve fit` with SIGKILL at random moments, resumes it each time, and compares with a run never killed.

usage: kill.py NERVE RECIPE [KILLS] [SEED]

About half of the kills wait for a checkpoint to be half-written. The final weights and optimizer must be equal to
the byte, and `metrics.jsonl` must hold the same lines in the same order, clock readings apart. Exit 0 if so.
"""

import hashlib
import json
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

CLOCK_READINGS = {"wall_s", "tokens_per_second", "peak_memory_mb"}


def fit(nerve, recipe, run):
    """The command that begins the run, or goes on with it if it has come as far as having a directory."""
    if (run / "run.json").exists():
        return [nerve, "fit", "--resume", str(run), "--render", "none"]
    places = ["--set", f"run.root={run.parent}", "--set", f"run.name={run.name}"]
    return [nerve, "fit", recipe, *places, "--render", "none"]


def checkpoints(run):
    """The complete checkpoints, oldest first."""
    complete = [path for path in run.glob("ckpt/step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(complete, key=lambda path: int(path.name[5:]))


def newest_step(run):
    found = checkpoints(run)
    return int(found[-1].name[5:]) if found else 0


def half_written(run):
    return any(run.glob("ckpt/step-*.tmp-*"))


def weights(run):
    """SHA-256 of the model and optimizer files of the last checkpoint."""
    files = sorted(checkpoints(run)[-1].glob("*.safetensors"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def metrics(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCK_READINGS} for line in lines]


def finish(nerve, recipe, run):
    """Lets the run come to its end."""
    done = subprocess.run(fit(nerve, recipe, run), capture_output=True, text=True)
    if done.returncode != 0:
        fail(run, f"exit {done.returncode}: {done.stderr.strip()[-2000:]}")
    printed = done.stdout.strip().splitlines()[-1:]
    if [pathlib.Path(line).resolve() for line in printed] != [run.resolve()]:
        fail(run, f"the last line on stdout is {printed}, expected the run directory")


def kill_once(nerve, recipe, run, moment_s, amid_write):
    """Starts or resumes the run and kills it; returns whether it was still alive."""
    with tempfile.TemporaryFile("w+") as messages:
        process = subprocess.Popen(fit(nerve, recipe, run), stdout=subprocess.DEVNULL, stderr=messages)
        began = time.monotonic()
        while process.poll() is None:
            late = time.monotonic() - began >= moment_s
            if late and (not amid_write or half_written(run)):
                break
            # A checkpoint of a small model is written within milliseconds.
            time.sleep(0.0002 if late else 0.001)
        process.kill()
        code = process.wait()
        if code not in (0, -9):
            messages.seek(0)
            fail(run, f"exit {code}: {messages.read().strip()[-2000:]}")
        return code == -9


def compare(run, expected):
    for number, (found, line) in enumerate(zip(metrics(run), metrics(expected)), start=1):
        if found != line:
            fail(run, f"metrics.jsonl line {number}: found {found}, expected {line}")
    if len(metrics(run)) != len(metrics(expected)):
        fail(run, f"found {len(metrics(run))} lines of metrics, expected {len(metrics(expected))}")
    if weights(run) != weights(expected):
        fail(run, f"the final weights differ from those in {expected}")


def fail(run, why):
    sys.exit(f"kill: {run}: {why}")


def main(nerve, recipe, kills=20, seed=0):
    draw = random.Random(int(seed))
    nerve = str(pathlib.Path(nerve).resolve())
    root = pathlib.Path(tempfile.mkdtemp(prefix="nerve-kill-"))
    whole = root / "whole"
    began = time.monotonic()
    finish(nerve, recipe, whole)
    expected_s = time.monotonic() - began
    killed = amid_writes = lost = runs = 0
    while killed < int(kills):
        runs += 1
        run = root / f"killed-{runs}"
        alive = True
        while alive and killed < int(kills):
            before = newest_step(run)
            alive = kill_once(nerve, recipe, run, draw.uniform(0, expected_s), draw.random() < 0.5)
            killed += alive
            amid_writes += alive and half_written(run)
            lost += newest_step(run) < before
        finish(nerve, recipe, run)
        compare(run, whole)
        shutil.rmtree(run)
    if lost:
        fail(root, f"{lost} times a complete checkpoint was gone after a kill")
    print(f"kill: {killed} kills in {runs} runs, {amid_writes} during checkpoint writes, {lost} lost, "
          f"weights equal, {len(metrics(whole))} lines equal (seed {seed})")
    shutil.rmtree(root)


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
