#!/usr/bin/env python3
"""Runs of several ranks against runs of one: equal bits, kills, faults, differences at the start, memory of a shared table, counting, speed.

usage: ranks.py NERVE [same] [kills] [faults] [differences] [memory] [counting] [speed] [--kills N] [--pairs N] [--seed N] [--bytes N]
       [--other NERVE]

NERVE is built with `--features mpi`; `mpirun` is that of the MPI it was built with. Without a part named, all run. `--other` is a
program that differs in its features or version, to be told apart. `--bytes` of random text are counted: 120000000 have more than 10^8
distinct 5-grams. Exit 0 if everything holds.
"""

import argparse
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import kill

ROOT = pathlib.Path(__file__).resolve().parents[2]
kill.CLOCK_READINGS.add("exchange_seconds")
ONE_THREAD = {**os.environ, "RAYON_NUM_THREADS": "1"}
RECIPES = ["baseline/tiny", "brian/ladder", "brian/ladder_parallel", "brillm/tiny"]


def fail(why):
    sys.exit(f"ranks: {why}")


class Place:
    """A folder with data and recipes; commands run in it."""

    def __init__(self, nerve):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="nerve-ranks-"))
        self.nerve = nerve
        (self.path / "assets").symlink_to(ROOT / "assets")
        self.run([nerve, *"data prepare assets/samples/stories.jsonl --output data/stories --tokenizer assets/tokenizers/story_bpe.json".split()])
        self.run([nerve, *"data prepare assets/samples/routing.jsonl --output data/routing --tokenizer assets/tokenizers/byte.json".split()])
        self.run([nerve, *"data bigrams data/stories/train.bin --output data/stories/bigrams.safetensors".split()])

    def run(self, command, code=0, env=ONE_THREAD, timeout=600):
        done = subprocess.run(command, cwd=self.path, env=env, capture_output=True, text=True, timeout=timeout)
        if code is not None and done.returncode != code:
            fail(f"{' '.join(map(str, command))}: exit {done.returncode}, expected {code}: {done.stderr[-2000:]}")
        return done

    def recipe(self, name, steps, accumulate=12, sequences=1):
        """A bundled recipe without gates, with so many steps of every stage."""
        family, size = name.split("/")
        text = self.run([self.nerve, "config", "new", family, "--size", size]).stdout
        text = "".join(line for line in text.splitlines(True) if not line.startswith("gate = "))
        stages = re.findall(r'^\[\[stage\]\]\n(?:#.*\n)*name = "(\w+)"', text, re.M)
        if not stages:
            fail(f"{name}: no stages in its recipe")
        source = self.path / f"{family}-{size}.toml"
        source.write_text(text)
        sets = [f"batch.accumulate={accumulate}", f"batch.sequences={sequences}", "watch.log_every_steps=1",
                "watch.valid_every_steps=3", "watch.valid_tokens=1024", "checkpoint.every_steps=2"]
        sets += [f"stage.{stage}.{what}" for stage in stages for what in (f"steps={steps}", "learning_rate.warmup_steps=2")]
        shown = self.run([self.nerve, "config", "show", source.name, *(word for one in sets for word in ("--set", one))]).stdout
        path = self.path / f"{family}-{size}-short.toml"
        path.write_text(shown)
        return path

    def begin(self, recipe, name):
        return [self.nerve, "fit", str(recipe), "--render", "none", "--set", f"run.root={self.path}/runs", "--set", f"run.name={name}"]

    def resume(self, name):
        return [self.nerve, "fit", "--resume", str(self.path / "runs" / name), "--render", "none"]

    def at(self, name):
        return self.path / "runs" / name


def on(ranks, command):
    return ["mpirun", "-n", str(ranks), *command]


def same(place, _):
    """1, 2, 3 and 4 ranks, and the program without a launcher, give the same weights, moments and metrics."""
    for recipe in RECIPES:
        # With 7 some ranks have a micro-batch less.
        for accumulate in (12, 7):
            file = place.recipe(recipe, 4, accumulate)
            whole = f"{file.stem}-{accumulate}-alone"
            place.run(place.begin(file, whole))
            for ranks in (1, 2, 3, 4):
                name = f"{file.stem}-{accumulate}-{ranks}"
                place.run(on(ranks, place.begin(file, name)))
                kill.compare(place.at(name), place.at(whole))
            print(f"same: {recipe}, {accumulate} micro-batches: 1 to 4 ranks equal to one process in weights, moments and "
                  f"{len(kill.metrics(place.at(whole)))} lines", flush=True)


def ranks_of(launcher):
    """The process ids of a launcher's ranks, youngest last."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                found.append((int(entry.name), int(fields[1]), (entry / "exe").resolve().name))
            except OSError:
                continue
    below, grew = {launcher}, True
    while grew:
        more = {pid for pid, parent, _ in found if parent in below} - below
        below |= more
        grew = bool(more)
    return sorted(pid for pid, _, name in found if pid in below and name.startswith("nerve"))


def start(place, ranks, command):
    return subprocess.Popen(on(ranks, command), cwd=place.path, env=ONE_THREAD, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kills(place, arguments):
    """A random rank dies at a random moment; the run is resumed with a random number of ranks."""
    draw = random.Random(arguments.seed)
    # Every other run is one whose table the ranks share out.
    files = [place.recipe("brian/ladder", 6, 6), place.recipe("brillm/tiny", 60, 6)]
    expected_s = []
    for file in files:
        began = time.monotonic()
        place.run(on(2, place.begin(file, f"whole-{file.stem}")))
        expected_s.append(time.monotonic() - began)
    killed = lost = runs = 0
    while killed < arguments.kills:
        file, longest_s = files[runs % 2], expected_s[runs % 2]
        runs += 1
        name, alive = f"killed-{runs}", True
        while alive and killed < arguments.kills:
            run = place.at(name)
            before = kill.newest_step(run)
            ranks = draw.randint(2, 4)
            launcher = start(place, ranks, place.resume(name) if (run / "run.json").exists() else place.begin(file, name))
            time.sleep(draw.uniform(0.05, longest_s))
            victims = ranks_of(launcher.pid)
            alive = launcher.poll() is None and bool(victims)
            if alive:
                try:
                    os.kill(draw.choice(victims), signal.SIGKILL)
                except ProcessLookupError:
                    alive = False
            _, errors = launcher.communicate(timeout=60)
            if alive and launcher.returncode == 0:
                alive = False
            elif not alive and launcher.returncode != 0:
                fail(f"kills: exit {launcher.returncode}: {errors[-2000:]}")
            killed += alive
            lost += kill.newest_step(run) < before
        ranks = draw.randint(1, 4)
        run = place.at(name)
        place.run(on(ranks, place.resume(name) if (run / "run.json").exists() else place.begin(file, name)))
        kill.compare(run, place.at(f"whole-{file.stem}"))
    if lost:
        fail(f"kills: {lost} times a complete checkpoint was gone")
    print(f"kills: {killed} kills of a rank in {runs} runs of 2 to 4 ranks, every other one of a shared table, resumed with 1 to 4, none lost, "
          f"all equal to the bit (seed {arguments.seed})", flush=True)


def faults(place, _):
    """Stops, stalls, numbers that are none: one end, in time, with its exit code."""
    file = place.recipe("baseline/tiny", 400, 4)
    # A signal to one rank.
    launcher = start(place, 3, place.begin(file, "stopped"))
    wait_for_steps(place, "stopped", 2)
    os.kill(ranks_of(launcher.pid)[1], signal.SIGTERM)
    _, errors = launcher.communicate(timeout=60)
    status = json.loads((place.at("stopped") / "run.json").read_text())["status"]
    said = [line for line in errors.splitlines() if "stopped by SIGTERM" in line]
    if launcher.returncode != 143 or status != "stopped" or len(said) != 1:
        fail(f"faults: a signal to one rank: exit {launcher.returncode}, status {status}: {errors[-1000:]}")
    # A rank that stands still.
    launcher = start(place, 2, [*place.begin(file, "stalled"), "--rank-timeout", "3"])
    wait_for_steps(place, "stalled", 2)
    victim = ranks_of(launcher.pid)[1]
    os.kill(victim, signal.SIGSTOP)
    began = time.monotonic()
    _, errors = launcher.communicate(timeout=60)
    took = time.monotonic() - began
    if launcher.returncode != 7 or took > 15 or not re.search(r"step \d+ of stage \w+: waited 3 s for rank 1", errors):
        fail(f"faults: a rank that stands still: exit {launcher.returncode} after {took:.1f} s: {errors[-1000:]}")
    # A norm that is finite, so that it is read, and whose products are not.
    run = place.at("stopped")
    newest = kill.checkpoints(run)[-1]
    spoil(newest)
    done = place.run(on(3, place.resume("stopped")), code=6)
    if len([line for line in done.stderr.splitlines() if "expected finite numbers" in line]) != 1:
        fail(f"faults: a loss that is no number: {done.stderr[-1000:]}")
    # A recipe that cannot be read on any rank, and a file that only one does not find.
    done = place.run(on(2, [*place.begin(file, "none"), "--set", "batch.sequences=0"]), code=2)
    if done.stderr.count("batch.sequences") != 1:
        fail(f"faults: a wrong recipe: {done.stderr[-1000:]}")
    disk = full_disk(place, file)
    print(f"faults: {disk}, a signal to one rank 143, a rank that stands still 7 after {took:.1f} s, no number 6, a wrong recipe 2, each said once", flush=True)


def full_disk(place, file):
    """The disk of the first rank fills up under a run: exit 4, one line, the last checkpoint whole, and the run goes on."""
    small = place.path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", small], capture_output=True).returncode != 0:
        return "no disk to fill (mounting is not allowed)"
    try:
        launcher = start(place, 3, [*place.begin(file, "full"), "--set", f"run.root={small}"])
        while not kill.checkpoints(small / "full"):
            time.sleep(0.01)
        with open(small / "filler", "wb") as filler:
            try:
                while True:
                    filler.write(bytes(1 << 16))
                    filler.flush()
            except OSError:
                pass
        _, errors = launcher.communicate(timeout=60)
        if launcher.returncode != 4 or errors.count("error:") != 1:
            fail(f"faults: a full disk: exit {launcher.returncode}: {errors[-1000:]}")
        (small / "filler").unlink()
        place.run([place.nerve, "runs", "verify", str(small / "full")])
        return "a full disk 4"
    finally:
        subprocess.run(["umount", small], check=True)


def spoil(checkpoint):
    """Writes a number into a norm that is finite, so that it is read, and whose products are not; its hashes follow."""
    file, manifest = checkpoint / "model-00001-of-00001.safetensors", checkpoint / "manifest.json"
    content = bytearray(file.read_bytes())
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    first = 8 + length + header["norm.gamma"]["data_offsets"][0]
    content[first : first + 4] = bytes.fromhex("ffff7f7f")
    file.write_bytes(content)
    record = json.loads(manifest.read_text())
    record["files"][file.name]["sha256"] = hashlib.sha256(content).hexdigest()
    manifest.write_text(json.dumps(record))


def wait_for_steps(place, name, steps):
    end = time.monotonic() + 60
    while kill.newest_step(place.at(name)) < steps:
        if time.monotonic() > end:
            fail(f"{name}: no checkpoint after 60 s")
        time.sleep(0.02)


def differences(place, arguments):
    """Each kind of difference is named with rank and field on all ranks, within 5 s."""
    file = place.recipe("baseline/tiny", 4, 4)
    same = place.begin(file, "different")
    # A folder whose text is split elsewhere, one with another spelling of the tokenizer, and two with a run, of which one lacks its
    # last checkpoint.
    other = place.path / "other"
    other.mkdir()
    (other / "assets").symlink_to(ROOT / "assets")
    shutil.copytree(place.path / "data", other / "data")
    place.run([place.nerve, "data", "prepare", "assets/samples/stories.jsonl", "--output", str(other / "data/stories"), "--force",
               "--tokenizer", "assets/tokenizers/story_bpe.json", "--valid", "0.2"])
    spaced = place.path / "spaced"
    (spaced / "assets/tokenizers").mkdir(parents=True)
    for entry in (ROOT / "assets").iterdir():
        if entry.name != "tokenizers":
            (spaced / "assets" / entry.name).symlink_to(entry)
    text = json.loads((ROOT / "assets/tokenizers/story_bpe.json").read_text())
    (spaced / "assets/tokenizers/story_bpe.json").write_text(json.dumps(text))
    prepare = "data prepare assets/samples/stories.jsonl --output data/stories --tokenizer assets/tokenizers/story_bpe.json"
    subprocess.run([place.nerve, *prepare.split()], cwd=spaced, check=True, capture_output=True)
    place.run(place.begin(file, "begun"))
    folders = [place.path / "first", place.path / "second"]
    for folder in folders:
        shutil.copytree(place.at("begun"), folder / "run")
    shutil.rmtree(kill.checkpoints(folders[1] / "run")[-1])
    resume = [place.nerve, "fit", "--resume", "./run", "--data", str(place.path), "--render", "none"]
    kinds = [
        ("recipe", "recipe", same, [*same, "--set", "batch.accumulate=8"], {}),
        ("data", "data", same, same, {"wdir": other}),
        ("threads", "threads", same, same, {"env": ("RAYON_NUM_THREADS", "2")}),
        ("definitions", "NERVE_COMPOSED", same, same, {"env": ("NERVE_COMPOSED", "1")}),
        ("kernels", "NERVE_PORTABLE", same, same, {"env": ("NERVE_PORTABLE", "1")}),
        ("option", "--fail-on-collapse", same, [*same, "--fail-on-collapse"], {}),
        ("tokenizer", "tokenizer", same, same, {"wdir": spaced}),
        ("checkpoint", "checkpoint", resume, resume, {"wdirs": folders}),
    ]
    if arguments.other:
        kinds.append(("program", "features|version", same, [arguments.other, *same[1:]], {}))
    for kind, field, first, second, how in kinds:
        first_place, place_of = how.get("wdirs", (place.path, how.get("wdir", place.path)))
        env = ["-env", *how["env"]] if "env" in how else []
        began = time.monotonic()
        done = place.run(["mpirun", "-n", "1", "-wdir", str(first_place), *first, ":", "-n", "1", "-wdir", str(place_of), *env, *second], code=None, timeout=30)
        took = time.monotonic() - began
        said = [line for line in done.stderr.splitlines() if re.search(rf"rank 1: ({field})[^:]*: found", line)]
        if done.returncode != 2 or len(said) < 2 or took > 5 or place.at("different").exists():
            fail(f"differences: {kind}: exit {done.returncode} after {took:.1f} s, {len(said)} lines: {done.stderr[-1500:]}")
        print(f"differences: {kind}: {took:.1f} s: {said[0]}", flush=True)


def peaks(command, place, code=0):
    """Runs a command; the peak memory in MB (VmHWM) of every process of the program."""
    errors = tempfile.TemporaryFile("w+")
    running = subprocess.Popen(command, cwd=place.path, env=ONE_THREAD, stdout=subprocess.PIPE, stderr=errors, text=True)
    found = {}
    while running.poll() is None:
        for pid in ranks_of(running.pid) or [running.pid]:
            try:
                peak = re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())
                found[pid] = max(found.get(pid, 0), int(peak.group(1)) / 1024 if peak else 0)
            except OSError:
                pass
        time.sleep(0.005)
    errors.seek(0)
    if running.returncode != code:
        fail(f"{' '.join(map(str, command))}: exit {running.returncode}: {errors.read()[-2000:]}")
    # What has hardly begun is a launcher's copy of itself.
    return sorted(peak for peak in found.values() if peak > 10), running.stdout.read()


def memory(place, _):
    """A table that four ranks share out: each holds a fourth, while it trains and when it is resumed; other verbs read its checkpoints."""
    file = place.recipe("brillm/tiny", 4, 4, 8)
    text = re.sub(r"(?ms)^\[model\.edges\]$.*?(?=^\[)", '[model.edges]\nkind = "full"\n\n', file.read_text())
    file.write_text(text)
    sets = [word for one in ("model.prior='none'", "model.d_node=16", "watch.sample_every_steps=2") for word in ("--set", one)]
    begun, _ = peaks(on(4, [*place.begin(file, "shared"), *sets]), place)
    newest = kill.checkpoints(place.at("shared"))[-1]
    table = sum(entry.stat().st_size for entry in newest.glob("*.safetensors")) / 2**20
    whole, _ = peaks([*place.begin(file, "alone"), *sets], place)
    kill.compare(place.at("shared"), place.at("alone"))
    shutil.rmtree(newest)
    resumed, _ = peaks(on(4, place.resume("shared")), place)
    kill.compare(place.at("shared"), place.at("alone"))
    for verb in (["eval"], ["sample", "--tokens", "5"], ["trace", "--text", "Mia"], ["runs", "verify"]):
        place.run([place.nerve, *verb, str(place.at("shared"))])
    most = 1.3 * table / 4 + 200
    print(f"memory: a table of {table:.0f} MB with its moments: four ranks {begun[0]:.0f} to {begun[-1]:.0f} MB, resumed {resumed[0]:.0f} to "
          f"{resumed[-1]:.0f} MB, {most:.0f} allowed; one process {whole[-1]:.0f} MB; equal to the bit", flush=True)
    if max(begun[-1], resumed[-1]) > most or len(begun) != 4:
        fail("memory: a rank took more than 1.3 times its part and 200 MB")


def counting(place, arguments):
    """Counts in little memory, and those of several ranks, are the counts of one process in memory."""
    draw = random.Random(arguments.seed)
    letters = [chr(code) for code in range(33, 127)]
    text = place.path / "random.txt"
    with open(text, "w") as to:
        for _ in range(0, arguments.bytes, 1 << 20):
            to.write("".join(draw.choices(letters, k=min(1 << 20, arguments.bytes))) + "\n")
    prepare = f"data prepare {text} --output data/random --tokenizer assets/tokenizers/byte.json --valid 0.0002"
    place.run([place.nerve, *prepare.split()], timeout=3000)
    ngrams = [place.nerve, *"data ngrams data/random/train.bin --valid data/random/valid.bin --json".split()]
    bigrams = [place.nerve, *"data bigrams data/random/train.bin --valid data/random/valid.bin --json --force --output data/random/b".split()]
    little = ["--memory", "256", "--temporary", str(place.path)]
    found = {}
    for name, command in (("n-grams", ngrams), ("pairs", bigrams)):
        for ranks, how in ((1, ["--memory", "20000"]), (1, little), (2, little), (3, little)):
            began = time.monotonic()
            peak, said = peaks(on(ranks, [*command, *how]) if ranks > 1 else [*command, *how], place)
            said += hashlib.sha256((place.path / "data/random/b").read_bytes()).hexdigest() if name == "pairs" else ""
            if found.setdefault(name, said) != said:
                fail(f"counting: {name} {how} on {ranks} ranks: {said}, expected {found[name]}")
            print(f"counting: {name}, {ranks} ranks, {how[1]} MB allowed: {peak[-1]:.0f} MB, {time.monotonic() - began:.1f} s, equal", flush=True)
            if how is little and peak[-1] > 256:
                fail(f"counting: {peak[-1]:.0f} MB where 256 were allowed")
    stored = {row["order"]: row["stored_ngrams"] for row in json.loads(found["n-grams"])["rows"]}
    print(f"counting: {stored[5]} distinct n-grams of up to five tokens", flush=True)


def speed(place, arguments):
    """Two ranks of one thread against one process of two threads, in turns."""
    file = place.recipe("baseline/tiny", 30, 4, 8)
    sets = []
    for one in ("model.d_model=128", "model.n_heads=4", "model.d_ff=512", "model.n_layers=4", "model.context=128", "data.window=128",
                "watch.valid_every_steps=0", "watch.sample_every_steps=0", "checkpoint.every_steps=1000", "watch.log_every_steps=10"):
        sets += ["--set", one]
    ratios, exchanges = [], []
    for pair in range(arguments.pairs):
        found = {}
        for which in (("ranks", "threads") if pair % 2 else ("threads", "ranks")):
            name = f"speed-{which}-{pair}"
            command = [*place.begin(file, name), *sets]
            if which == "ranks":
                place.run(on(2, command))
            else:
                place.run(command, env={**os.environ, "RAYON_NUM_THREADS": "2"})
            lines = [json.loads(line) for line in (place.at(name) / "metrics.jsonl").read_text().splitlines()]
            lines = [line for line in lines if "tokens_per_second" in line][1:]
            found[which] = statistics.median(line["tokens_per_second"] for line in lines)
            exchanges += [line["exchange_seconds"] for line in lines if "exchange_seconds" in line]
        ratios.append(found["ranks"] / found["threads"])
    print(f"speed: two ranks over two threads: {sorted(round(ratio, 3) for ratio in ratios)}, median {statistics.median(ratios):.3f}; "
          f"exchange {statistics.median(exchanges) * 1000:.1f} ms per step", flush=True)
    if statistics.median(ratios) < 0.85:
        fail("speed: less than 0.85")


def main():
    parts = {"same": same, "kills": kills, "faults": faults, "differences": differences, "memory": memory, "counting": counting, "speed": speed}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nerve")
    parser.add_argument("parts", nargs="*", choices=[*parts, []])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bytes", type=int, default=1000000)
    parser.add_argument("--other")
    arguments = parser.parse_args()
    place = Place(str(pathlib.Path(arguments.nerve).resolve()))
    try:
        for name in arguments.parts or parts:
            parts[name](place, arguments)
    finally:
        shutil.rmtree(place.path)


if __name__ == "__main__":
    main()
