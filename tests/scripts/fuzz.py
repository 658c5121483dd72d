#!/usr/bin/env python3
"""Feeds `nerve` with files that are damaged, or whole and wrong, and holds every reading verb to its exit codes.

usage: fuzz.py NERVE [--files N] [--seconds S] [--seed K] [--jobs J] [--only INDEX] [--keep DIR]

Small runs, data, tokenizers, recipes, sweeps and counts are made once. Then each file is one of theirs, changed: bits flipped,
cut, spliced, or fields, tensors and lines edited; mostly with every checksum made right again. One verb reads it. It fails that
ends with another exit code than those of the README, panics, takes more than five seconds or a gigabyte, or takes weights
that are not finite. The same seed gives the same files; `--only INDEX` makes one of them alone, and leaves it in `--keep DIR`.

Exit 0 if nothing failed and at least a quarter of the files of each verb were whole: right hashes, and a form that parses.
"""

import argparse
import array
import collections
import hashlib
import json
import math
import multiprocessing
import os
import pathlib
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import tomllib

CODES = {0, 1, 2, 3, 4, 5, 6}
SECONDS = 5
MEGABYTES = 1024
SOUND_SHARE = 0.25
# Verbs that compute with the weights of a run.
USE_WEIGHTS = {"eval", "sample", "route", "trace", "bench", "resume", "difficulty", "verify", "import"}


# --- what the files are made from ----------------------------------------------------------------------------------------------

SMALL = [
    "data.window=16", "batch.sequences=16", "watch.log_every_steps=1", "watch.valid_every_steps=2", "watch.valid_tokens=64",
    "watch.sample_every_steps=0", "checkpoint.every_steps=1", "checkpoint.keep_last=2",
    "data.train.0.path=data/train.bin", "data.valid.0.path=data/valid.bin", "tokenizer.file=byte.json",
]  # fmt: skip
BLOCKS = ["model.d_model=8", "model.n_heads=2", "model.d_ff=16", "model.context=16"]


def stage(name, steps):
    return [f"stage.{name}.steps={steps}", f"stage.{name}.learning_rate.warmup_steps=1"]


RECIPES = {
    "baseline": ("baseline/tiny", BLOCKS + ["model.n_layers=1"] + stage("baseline", 3)),
    "ladder": (
        "brian/ladder",
        BLOCKS
        + ["model.d_ff_pool=16", "model.position.d_position=4", 'data.difficulty="none"']
        + stage("baseline", 2)
        + stage("exit", 2),
    ),
    "brillm": (
        "brillm/tiny",
        ["model.d_node=4", "model.edges.counts=data/bigrams.safetensors", "model.edges.back_off.n_classes=2"]
        + stage("train", 3),
    ),
}

SWEEP = """format = 1
question = "Which seed?"
recipe = "baseline.toml"
seeds = [1, 2]
compare = ["valid/loss/lm"]

[[row]]
name = "control"
set = {}
[[row]]
name = "wide"
set = { "model.d_ff" = 24 }
"""


def make_home(nerve, home):
    """One of everything that is read, in a folder; seconds."""
    assets = pathlib.Path(__file__).resolve().parents[2] / "assets"

    def run(*words):
        done = subprocess.run([nerve, *map(str, words)], cwd=home, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"fuzz.py: nerve {' '.join(map(str, words))}: exit {done.returncode}\n{done.stderr}")
        return done.stdout

    run("data", "synth", "story", "--samples", 12, "--output", "stories.jsonl")
    run("tokenizer", "train", "--kind", "byte", "--output", "byte.json")
    run("tokenizer", "train", "--kind", "character", "--output", "character.json", "stories.jsonl")
    run("tokenizer", "train", "--kind", "bpe", "--vocabulary", 280, "--output", "pairs.json", "stories.jsonl")
    run("data", "prepare", "stories.jsonl", "--tokenizer", "byte.json", "--output", "data", "--valid", 0.3)
    run("data", "bigrams", "data/train.bin", "--output", "data/bigrams.safetensors")
    for name, (recipe, sets) in RECIPES.items():
        words = [word for value in SMALL + sets + [f"run.name={name}"] for word in ("--set", value)]
        (home / "long.toml").write_text(first_and_last((assets / f"recipes/{recipe}.toml").read_text()))
        text = run("config", "show", "long.toml", *words)
        (home / f"{name}.toml").write_text(text)
        run("fit", f"{name}.toml", "--render", "none")
    run("eval", "runs/baseline", "--difficulty", "difficulty.json")
    graded = run("config", "show", "baseline.toml", "--set", 'data.difficulty={kind="file",path="difficulty.json"}')
    (home / "graded.toml").write_text(graded)
    (home / "sweep.toml").write_text(SWEEP)
    for run_directory in (home / "runs").iterdir():
        settle(run_directory)
    (home / "pristine").mkdir()
    for run_directory in (home / "runs").iterdir():
        shutil.copytree(run_directory, home / "pristine" / run_directory.name)


def first_and_last(recipe):
    """A recipe without the stages in between, and without gates, which a short training does not pass."""
    stages = recipe.split("[[stage]]")
    if len(stages) > 3:
        recipe = "[[stage]]".join([*stages[:2], stages[-1]])
    return "".join(line for line in recipe.splitlines(keepends=True) if not line.startswith("gate = "))


def settle(run):
    """A run with one step left, without anything that a clock has written, so that a seed gives the same files."""
    shutil.rmtree(checkpoints(run)[-1])
    log = run / "metrics.jsonl"
    ends = {}
    lines = []
    for line in log.read_text().splitlines():
        fields = json.loads(line)
        for clock in ("wall_s", "tokens_per_second", "peak_memory_mb"):
            if clock in fields:
                fields[clock] = 1.0
        lines.append(json.dumps(fields) + "\n")
        ends[fields["step"]] = sum(map(len, lines))
    log.write_text("".join(lines))
    for checkpoint in checkpoints(run):
        state = json.loads((checkpoint / "state.json").read_text())
        state["wall_s"] = 1.0
        if "metrics_log" in state["hooks"]:
            state["hooks"]["metrics_log"]["bytes"] = ends.get(state["step"], 0)
        (checkpoint / "state.json").write_text(json.dumps(state, indent=2))
        (checkpoint / "manifest.json").write_bytes(manifest_of(checkpoint))
    info = json.loads((run / "run.json").read_text())
    info.update(created_s=1.0, created="1970-01-01T00:00:01Z", git=None)
    (run / "run.json").write_text(json.dumps(info, indent=2))
    (run / "LOCK").write_text("")


# --- formats and their checksums -------------------------------------------------------------------------------------------------


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def checkpoints(run):
    """Oldest first."""
    found = [path for path in (run / "ckpt").iterdir() if path.name[5:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def read_safetensors(content):
    """The header and the bytes behind it; None if it is no such file."""
    try:
        (length,) = struct.unpack_from("<Q", content)
        header = json.loads(content[8 : 8 + length])
        return (header, content[8 + length :]) if isinstance(header, dict) else None
    except (struct.error, ValueError, RecursionError):
        return None


def write_safetensors(header, values, raw=None):
    text = json.dumps(header, separators=(",", ":"))
    for placeholder, replacement in (raw or {}).items():
        text = text.replace(placeholder, replacement)
    text = text.encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + values


def tensors_of(content):
    """What a checkpoint's manifest says of the tensors of a file."""
    parsed = read_safetensors(content)
    if parsed is None:
        return {}
    tensors = {name: info for name, info in parsed[0].items() if name != "__metadata__" and isinstance(info, dict)}
    return {name: {"dtype": info.get("dtype"), "shape": info.get("shape")} for name, info in tensors.items()}


def manifest_of(checkpoint):
    """The manifest with every size, hash and shape made right."""
    text = (checkpoint / "manifest.json").read_bytes()
    try:
        manifest = json.loads(text)
        for name, record in manifest["files"].items():
            content = (checkpoint / name).read_bytes()
            record.update(bytes=len(content), sha256=sha256(content))
            if name.endswith(".safetensors"):
                record["tensors"] = tensors_of(content)
        return json.dumps(manifest, indent=2).encode()
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
        return text


def counts_values(content):
    parsed = read_safetensors(content)
    if parsed is None:
        return None
    header, values = parsed
    try:
        return [values[slice(*header[name]["data_offsets"])] for name in ("first", "targets", "counts", "tokens")]
    except (KeyError, TypeError, ValueError):
        return None


def counts_made_right(content):
    """Bigrams with the hash of their values made right."""
    values, parsed = counts_values(content), read_safetensors(content)
    if values is None:
        return content
    header, rest = parsed
    try:
        origin = json.loads(header["__metadata__"]["nerve.bigrams"])
        origin["values_sha256"] = sha256(b"".join(values))
        header["__metadata__"]["nerve.bigrams"] = json.dumps(origin)
    except (KeyError, TypeError, ValueError):
        return content
    return write_safetensors(header, rest)


def counts_hash(content):
    values, parsed = counts_values(content), read_safetensors(content)
    try:
        origin = json.loads(parsed[0]["__metadata__"]["nerve.bigrams"])
        first, targets, counts, tokens = values
        head = (origin["tokenizer_sha256"] + origin["split_sha256"]).encode()
        return sha256(head + first + tokens + targets + counts)
    except (KeyError, TypeError, ValueError):
        return None


def not_finite(content):
    """Whether the numbers of a file of weights are not all finite."""
    parsed = read_safetensors(content)
    if parsed is None:
        return False
    header, values = parsed
    for info in header.values():
        try:
            part = values[slice(*info["data_offsets"])]
            if info["dtype"] == "F32":
                numbers = array.array("f", part[: len(part) // 4 * 4])
            elif info["dtype"] == "BF16":
                pairs = array.array("H", part[: len(part) // 2 * 2])
                numbers = array.array("f", b"".join(struct.pack("<I", pair << 16) for pair in pairs))
            else:
                continue
        except (KeyError, TypeError, ValueError):
            continue
        if not all(map(math.isfinite, numbers)):
            return True
    return False


# --- changes -----------------------------------------------------------------------------------------------------------------------

NUMBERS = [0, 1, -1, 2, 3, 7, 255, 65536, 2**31 - 1, 2**31, 2**32, 2**40, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64]
NUMBERS += [0.5, -0.0, 1e-320, 1e30, 1e308, -1e308]
TEXTS = ["", "x", "../../etc/passwd", "\x1b[31m\n", "\u202e", "null", "0" * 64, "f" * 63, "🦀" * 40, "a/b", "/", ".", "NaN"]


def any_value(rng, old, raw):
    """Another value in place of one; `raw` takes what JSON's writer would not write."""
    if rng.random() < 0.5 and isinstance(old, (int, float)) and not isinstance(old, bool):
        near = [old + 1, old - 1, -old, old * 2, 10 * old + 1, float(old), old + 0.5]
        return rng.choice(NUMBERS + [value for value in near if math.isfinite(value)])
    if rng.random() < 0.5 and isinstance(old, str):
        changed = [old.upper(), old[:-1], old + "x", old[::-1], old.replace("a", "b")]
        return rng.choice(TEXTS + changed)
    kind = rng.randrange(12)
    if kind < 5:
        return rng.choice(NUMBERS)
    if kind < 7:
        return rng.choice(TEXTS)
    if kind < 10:
        return rng.choice([None, True, False, [], {}, [old], {"a": old}, [[]], [1, 2, 3]])
    name = f"@raw{len(raw)}@"
    long = 10_000_000 if rng.random() < 0.02 else 3000
    replacement = rng.choice(["1e999", "-1e999", "[" * 200 + "]" * 200, "[" * 30_000, f'"{"x" * long}"', "1e-999"])
    raw[json.dumps(name)] = replacement
    return name


def places(value, path=()):
    """The paths of everything in a JSON value."""
    inside = []
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, list):
        inside = list(enumerate(value))
    for key, child in inside:
        yield path + (key,)
        yield from places(child, path + (key,))


def edit_json(rng, text, weigh=None):
    """One to three fields edited; returns the text and what was done."""
    value = json.loads(text)
    raw, done = {}, []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        found = list(places(value))
        if not found:
            break
        preferred = [path for path in found if weigh and weigh(path)]
        path = rng.choice(preferred if preferred and rng.random() < 0.7 else found)
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        kind = rng.randrange(10)
        if kind == 0:
            del parent[path[-1]]
        elif kind == 1 and isinstance(parent, list):
            parent.insert(path[-1], json.loads(json.dumps(parent[path[-1]])))
        elif kind == 1:
            # A key that is there twice, or that nobody knows.
            double = json.dumps(path[-1]) if rng.random() < 0.7 else '"unknown"'
            name = f"@raw{len(raw)}@"
            raw[json.dumps(name)] = f"{json.dumps(parent[path[-1]])},{double}:{json.dumps(rng.choice(NUMBERS))}"
            parent[path[-1]] = name
        elif kind == 2:
            other = rng.choice(found)
            source = value
            try:
                for key in other:
                    source = source[key]
                parent[path[-1]] = json.loads(json.dumps(source))
            except (KeyError, IndexError, TypeError):
                continue
        else:
            parent[path[-1]] = any_value(rng, parent[path[-1]], raw)
        done.append("/".join(map(str, path)))
    text = json.dumps(value, indent=rng.choice([None, 2]))
    for placeholder, replacement in raw.items():
        text = text.replace(placeholder, replacement)
    return text.encode(), "fields " + ", ".join(done)


def edit_lines(rng, text):
    """Lines of JSON: one edited, removed, doubled or moved."""
    lines = text.splitlines()
    if not lines:
        return text, "nothing"
    at = rng.randrange(len(lines))
    kind = rng.randrange(8)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(at, lines[rng.randrange(len(lines))])
    elif kind == 2:
        rng.shuffle(lines)
    else:
        lines[at], done = edit_json(rng, lines[at])
        lines[at] = lines[at].replace(b"\n", b" ")
        return b"\n".join(lines) + b"\n", f"line {at + 1}: {done}"
    return b"\n".join(lines) + b"\n", f"line {at + 1} moved"


TOML_VALUES = ["0", "-1", "1", "3", "1e308", "nan", "inf", "9223372036854775807", '""', '"x"', "[]", "{}", "true", "1099511627776"]
TOML_VALUES += ["2", "8", "16", "4096", "1048576", "0.0", "-0.5", '"all"', '"none"', "[" * 200, '"../../x"', "4.5"]


# A training may ask for as much work at once as it likes, and gets it: no fault of the reader.
WORK = {"sequences", "accumulate"}
LITTLE = ["0", "-1", "1", "3", "nan", "inf", "4.5", '"x"', "[]", "8", "16", "9223372036854775807"]


def edit_toml(rng, text):
    """Values of lines edited, and lines removed, doubled or moved."""
    lines = text.decode().splitlines()
    done = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        valued = [at for at, line in enumerate(lines) if "=" in line and not line.lstrip().startswith("#")]
        if not valued:
            break
        at = rng.choice(valued)
        key = lines[at].split("=")[0].strip()
        kind = rng.randrange(12)
        if kind == 0:
            del lines[at]
        elif kind == 1:
            lines.insert(at, lines[rng.choice(valued)])
        elif key in WORK:
            lines[at] = f"{key} = {rng.choice(LITTLE)}"
        elif kind == 2:
            other = lines[rng.choice(valued)]
            lines[at] = f"{key} ={other.split('=', 1)[1]}"
        else:
            lines[at] = f"{key} = {rng.choice(TOML_VALUES)}"
        done.append(key)
    return ("\n".join(lines) + "\n").encode(), "keys " + ", ".join(done)


FLOATS = [math.nan, math.inf, -math.inf, 3.4e38, -3.4e38, 1e-45, -0.0, 0.0, -1.0, 1e20, 0.5, 16777216.0]


def edit_numbers(rng, header, values):
    """Some numbers of a tensor replaced."""
    names = [name for name, info in header.items() if name != "__metadata__" and info["data_offsets"][0] < info["data_offsets"][1]]
    if not names:
        return values, "no number"
    name = rng.choice(sorted(names))
    info = header[name]
    start, end = info["data_offsets"]
    values = bytearray(values)
    for _ in range(rng.choice([1, 1, 2, 50])):
        if info["dtype"] in ("F32", "BF16"):
            number = struct.pack("<f", rng.choice(FLOATS))
            width = 4 if info["dtype"] == "F32" else 2
            number = number[4 - width :]
        else:
            width = 8 if info["dtype"] == "U64" else 4
            number = (rng.choice([0, 1, 2, 3, 255, 2**31, 2**40, 2**63, 2**64 - 1]) % 2 ** (8 * width)).to_bytes(width, "little")
        at = start + rng.randrange((end - start) // width) * width
        values[at : at + width] = number
    return bytes(values), f"numbers of {name}"


def edit_tensors(rng, content):
    """Numbers, shapes, names and types of a safetensors file; offsets stay whole, mostly."""
    parsed = read_safetensors(content)
    if parsed is None:
        return content, "nothing"
    header, values = parsed
    names = sorted(name for name in header if name != "__metadata__")
    kind = rng.randrange(14)
    if kind < 6 or not names:
        values, done = edit_numbers(rng, header, values)
        return write_safetensors(header, values), done
    name = rng.choice(names)
    info = header[name]
    n = math.prod(info["shape"])
    if kind < 9:
        shapes = [[n], [1, n], [n, 1], info["shape"][::-1], [1] + info["shape"], info["shape"] + [1], [n // 2, 2]]
        shapes += [[2**40, 2**40], [2**64 - 1], [0], [], [-1], [n, 2**63]]
        info["shape"] = rng.choice(shapes)
        if math.prod(info["shape"]) != n and 0 <= math.prod(info["shape"]) <= n and rng.random() < 0.8:
            header, values = resized(header, values, name, math.prod(info["shape"]))
        return write_safetensors(header, values), f"shape {info['shape']} of {name}"
    if kind == 9:
        header, values = resized(header, values, name, None)
        return write_safetensors(header, values), f"without {name}"
    if kind == 10:
        new = rng.choice(["x", name + "x", name + "@00001-of-00002", name + "@00001-of-00001", "", "a" * 300])
        header[new] = header.pop(name)
        return write_safetensors(header, values), f"{name} is called {new[:40]}"
    if kind == 11:
        other = rng.choice(names)
        header[name], header[other] = dict(header[other]), dict(header[name])
        return write_safetensors(header, values), f"{name} and {other} changed places"
    if kind == 12:
        types = {"F32": ["BF16", "F16", "F64", "I32", "U8"], "U64": ["I64", "F64", "U32"], "U32": ["I32", "F32", "U64"]}
        info["dtype"] = rng.choice(types.get(info["dtype"], ["F32"]))
        if info["dtype"] in ("BF16", "F16") and rng.random() < 0.7:
            header, values = resized(header, values, name, n)
        return write_safetensors(header, values), f"type {info['dtype']} of {name}"
    raw = {}
    header[name][rng.choice(["shape", "data_offsets", "dtype"])] = any_value(rng, 0, raw)
    return write_safetensors(header, values, raw), f"header of {name}"


def resized(header, values, name, n):
    """The file with another number of values in a tensor, or without it; all offsets made right."""
    width = {"F32": 4, "BF16": 2, "F16": 2, "U8": 1, "F64": 8, "U64": 8, "I64": 8}.get(header[name]["dtype"], 4)
    parts = []
    start = 0
    result = {key: value for key, value in header.items() if key == "__metadata__"}
    order = sorted((key for key in header if key != "__metadata__"), key=lambda key: header[key]["data_offsets"])
    for key in order:
        info = dict(header[key])
        part = values[slice(*info["data_offsets"])]
        if key == name:
            if n is None:
                continue
            part = part[: n * width].ljust(n * width, b"\0")
        info["data_offsets"] = [start, start + len(part)]
        start += len(part)
        parts.append(part)
        result[key] = info
    return result, b"".join(parts)


def edit_bin(rng, content):
    """Ids and header of a split."""
    content = bytearray(content)
    if rng.random() < 0.3:
        at = 4 * rng.randrange(4)
        content[at : at + 4] = struct.pack("<i", rng.choice([0, 1, -1, 20240520, 20240801, 7, 2**31 - 1, len(content)]))
        return bytes(content), f"header at {at}"
    for _ in range(rng.choice([1, 5, 50])):
        at = 1024 + 2 * rng.randrange((len(content) - 1024) // 2)
        content[at : at + 2] = struct.pack("<H", rng.choice([0, 1, 255, 256, 257, 258, 259, 260, 65535, rng.randrange(260)]))
    return bytes(content), "ids"


def damage(rng, content, others):
    """Bits, cuts and splices that know no format."""
    content = bytearray(content)
    kind = rng.randrange(6)
    if kind == 0 or not content:
        cut = rng.randrange(len(content) + 1) if content else 0
        return bytes(content[:cut]), f"cut at {cut}"
    at = rng.randrange(len(content))
    if kind in (1, 2):
        for _ in range(rng.choice([1, 1, 4, 32])):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        return bytes(content), "bits"
    if kind == 3:
        del content[at : at + rng.choice([1, 4, 100])]
        return bytes(content), f"bytes left out at {at}"
    if kind == 4:
        start = rng.randrange(len(content))
        content[at:at] = content[start : start + rng.choice([1, 8, 500])]
        return bytes(content), f"bytes put in at {at}"
    other = rng.choice(others)
    return bytes(content[:at]) + other[min(at, len(other)) :], f"the end of another file from {at} on"


# --- who reads what ------------------------------------------------------------------------------------------------------------------

OF_RUN = {
    "eval": ["eval", "{run}", "--json"],
    "sample": ["sample", "{run}", "--tokens", "3", "--prompt", "Once ", "--json"],
    "bench": ["bench", "{run}", "--rounds", "1", "--warm-up", "0", "--tokens", "1", "--json"],
    "show": ["runs", "show", "{run}"],
    "list": ["runs", "list", "--json"],
    "verify": ["runs", "verify", "{run}"],
    "resume": ["fit", "--resume", "{run}", "--render", "none"],
    "route": ["route", "{run}", "--prompt", "Once upon a time", "--json"],
    "trace": ["trace", "{run}", "--text", "Once", "--json"],
    "difficulty": ["eval", "{run}", "--difficulty", "new.json"],
    "import": ["import", "{file}", "--recipe", "{name}.toml", "--dry-run"],
    "check": ["config", "check", "{run}/recipe.toml"],
    "estimate": ["estimate", "{run}/recipe.toml", "--gflops", "1", "--json"],
}
OF_DATA = {
    "stats": ["data", "stats", "data", "--json"],
    "ngrams": ["data", "ngrams", "data/train.bin", "--valid", "data/valid.bin", "--order", "2", "--json"],
    "bigrams": ["data", "bigrams", "data/train.bin", "--valid", "data/valid.bin", "--output", "new", "--force"],
    "eval": ["eval", "runs/baseline", "--json"],
    "dry-run": ["fit", "graded.toml", "--dry-run"],
    "resume": ["fit", "--resume", "runs/baseline", "--render", "none"],
}
OF_COUNTS = {
    "dry-run": ["fit", "brillm.toml", "--dry-run"],
    "eval": ["eval", "runs/brillm", "--json"],
    "trace": ["trace", "runs/brillm", "--text", "Once", "--json"],
    "sample": ["sample", "runs/brillm", "--tokens", "3", "--prompt", "Once "],
    "resume": ["fit", "--resume", "runs/brillm", "--render", "none"],
}
OF_TOKENIZER = {
    "inspect": ["tokenizer", "inspect", "{file}", "--text", "Once upon a time, Ünder", "--json"],
    "prepare": ["data", "prepare", "stories.jsonl", "--tokenizer", "{file}", "--output", "other", "--dry-run"],
}
OF_RECIPE = {
    "check": ["config", "check", "{file}"],
    "estimate": ["estimate", "{file}", "--gflops", "1", "--json"],
    "dry-run": ["fit", "{file}", "--dry-run"],
}
OF_SWEEP = {"sweep": ["sweep", "{file}", "--dry-run"]}


def targets(home):
    """Every file that is changed, relative to the home, with its kind and its readers; common kinds come more often."""
    found = []
    for run in sorted((home / "runs").iterdir()):
        verbs = {name: words for name, words in OF_RUN.items() if name not in ("route", "trace", "import")}
        verbs |= {"ladder": {"route": OF_RUN["route"]}, "brillm": {"trace": OF_RUN["trace"]}}.get(run.name, {})
        if run.name == "brillm":
            # The size of a graph is not estimated.
            del verbs["estimate"]
        newest = checkpoints(run)[-1]
        reads_all = {name: verbs[name] for name in verbs if name not in ("check", "estimate")}
        for file in sorted(newest.iterdir()):
            times = 1
            readers = reads_all
            if file.name.startswith("model"):
                times, readers = 3, reads_all | {"import": OF_RUN["import"]}
            if file.name.startswith("optim"):
                times, readers = 2, {name: reads_all[name] for name in ("resume", "verify", "eval")}
            if file.name == "state.json":
                times = 3
            found += [(file, readers)] * times
        found += [(run / "recipe.toml", verbs)] * 2
        found += [(run / "run.json", {name: verbs[name] for name in ("show", "list", "eval", "resume")})]
        found += [(run / "metrics.jsonl", {name: verbs[name] for name in ("show", "list", "resume")})]
        known = {"recipe.toml", "run.json", "metrics.jsonl", "LOCK"}
        others = [file for file in sorted(run.rglob("*")) if file.is_file() and "ckpt" not in file.parts]
        found += [(file, reads_all) for file in others if file.name not in known]
    for name in ("manifest.json", "train.bin", "valid.bin", "train.documents.jsonl", "valid.documents.jsonl"):
        found += [(home / "data" / name, OF_DATA)] * 2
    found += [(home / "data/tokenizer.json", {"ngrams": OF_DATA["ngrams"]})]
    found += [(home / "data/bigrams.safetensors", OF_COUNTS)] * 4
    found += [(home / "difficulty.json", {"dry-run": OF_DATA["dry-run"]})]
    found += [(home / name, OF_TOKENIZER) for name in ("byte.json", "character.json", "pairs.json")]
    for name in RECIPES:
        verbs = {verb: words for verb, words in OF_RECIPE.items() if (name, verb) != ("brillm", "estimate")}
        found += [(home / f"{name}.toml", verbs)]
    found += [(home / "sweep.toml", OF_SWEEP)]
    return [(file.relative_to(home), readers) for file, readers in found]


# --- one file after the other --------------------------------------------------------------------------------------------------------


class Reader:
    """A copy of the home in which files are changed, read and put back."""

    def __init__(self, nerve, home, seed, keep):
        self.nerve, self.home, self.seed, self.keep = nerve, home, seed, keep
        self.targets = targets(home)
        self.contents = [(home / file).read_bytes() for file in sorted({file for file, _ in self.targets})]
        self.before = {}
        self.environment = os.environ | {"RAYON_NUM_THREADS": "1", "RUST_BACKTRACE": "0"}

    def write(self, file, content):
        """Changes a file, and remembers what it was."""
        path = self.home / file
        self.before.setdefault(path, path.read_bytes())
        path.write_bytes(content)

    def put_back(self):
        for path, content in self.before.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self.before.clear()

    def check_whole(self):
        """What nobody has changed is read by everybody; else a verb that refuses everything would pass."""
        seen = set()
        for file, readers in self.targets:
            for verb, words in readers.items():
                words = self.words(file, words)
                if tuple(words) in seen:
                    continue
                seen.add(tuple(words))
                report = self.call(words)
                if report["code"] != 0:
                    sys.exit(f"fuzz.py: untouched: nerve {' '.join(words)}: exit {report['code']}\n{report['stderr']}")
                if verb == "resume":
                    self.renew(words[2])

    def words(self, file, words):
        run = file.parts[1] if file.parts[0] == "runs" else None
        names = {"run": f"runs/{run}", "file": str(file), "name": run}
        return [word.format(**names) for word in words]

    def read(self, index):
        """Makes the file of an index and lets a verb read it; returns the verb, its report, and what is wrong with it."""
        rng = random.Random(f"{self.seed}:{index}")
        file, readers = rng.choice(self.targets)
        verb = rng.choice(sorted(readers))
        done = self.change(rng, file)
        right = rng.random() < 0.85
        if right:
            done += ", " + self.make_right(file, rng)
        content = (self.home / file).read_bytes()
        sound = self.is_sound(file, content, right)
        bad_weights = sound and file.name.startswith("model") and not_finite(content)
        words = self.words(file, readers[verb])
        report = self.call(words)
        wrong = self.judge(report, verb, bad_weights)
        if wrong:
            wrong = f"file {index}: {file}: {done}\n  nerve {' '.join(words)}: {wrong}\n  {report['stderr'][-600:].strip()}"
            if self.keep:
                self.keep_home(index)
        self.put_back()
        if verb == "resume":
            self.renew(words[2])
        return verb, sound, report, wrong

    def change(self, rng, file):
        content = (self.home / file).read_bytes()
        if rng.random() < 0.2:
            changed, done = damage(rng, content, self.contents)
        elif file.suffix == ".json":
            changed, done = edit_json(rng, content, weigh=lambda path: "vocab" not in path and "merges" not in path)
        elif file.suffix == ".jsonl":
            changed, done = edit_lines(rng, content)
        elif file.suffix == ".toml":
            changed, done = edit_toml(rng, content)
        elif file.suffix == ".safetensors":
            changed, done = edit_tensors(rng, content)
        else:
            changed, done = edit_bin(rng, content)
        self.write(file, changed)
        return done

    def make_right(self, file, rng):
        """Every checksum that knows the file, made right."""
        content = (self.home / file).read_bytes()
        if file.parts[0] == "data":
            return self.make_data_right(file, content, rng)
        if file.parts[0] != "runs":
            return "no checksum"
        run = pathlib.Path(*file.parts[:2])
        if file.name == "recipe.toml":
            self.change_states(run, lambda state: state.update(recipe_sha256=sha256(content)))
            return "hash right"
        if "inputs" in file.parts:
            self.make_record_right(run, file.relative_to(run), content)
        if "ckpt" not in file.parts and file.name == "tokenizer.json":
            info = json.loads((self.home / run / "run.json").read_text())
            info["tokenizer_sha256"] = sha256(content)
            self.write(run / "run.json", json.dumps(info).encode())
            self.change_states(run, lambda state: state.update(tokenizer_sha256=sha256(content)))
            return "hash right"
        if "ckpt" not in file.parts and file.suffix == ".safetensors":
            content = counts_made_right(content)
            self.write(file, content)
            known = counts_hash(content)
            same = lambda path: path.endswith("bigrams.safetensors")
            right = lambda state: state["data_sha256"].update({path: known for path in filter(same, state["data_sha256"])})
            self.change_states(run, right)
            return "hashes right"
        if "ckpt" in file.parts and file.name != "manifest.json":
            checkpoint = file.parent
            if file.name == "state.json":
                self.mirror(file, content, checkpoint)
            self.write(checkpoint / "manifest.json", manifest_of(self.home / checkpoint))
            return "hashes right"
        return "no checksum"

    def make_record_right(self, run, copy, content):
        """The hash of a run's copy of what it was made from."""
        record = json.loads((self.home / run / "inputs.json").read_text())
        for one in record["files"]:
            if one.get("copy") == str(copy):
                one["sha256"] = sha256(content)
        self.write(run / "inputs.json", json.dumps(record).encode())

    def mirror(self, file, content, checkpoint):
        """What the state says of its place, in the manifest too."""
        manifest = json.loads((self.home / checkpoint / "manifest.json").read_text())
        try:
            state = json.loads(content)
            manifest.update(step=state["step"], stage_index=state["stage_index"])
            self.write(checkpoint / "manifest.json", json.dumps(manifest).encode())
        except (ValueError, KeyError, TypeError, RecursionError):
            pass

    def change_states(self, run, change):
        for checkpoint in checkpoints(self.home / run):
            state = json.loads((checkpoint / "state.json").read_text())
            change(state)
            self.write(checkpoint.relative_to(self.home) / "state.json", json.dumps(state).encode())
            self.write(checkpoint.relative_to(self.home) / "manifest.json", manifest_of(checkpoint))

    def make_data_right(self, file, content, rng):
        if file.suffix == ".safetensors":
            content = counts_made_right(content)
            self.write(file, content)
            known = counts_hash(content)
            if known:
                self.change_states(pathlib.Path("runs/brillm"), lambda state: state["data_sha256"].update({str(file): known}))
            return "hashes right"
        if file.name == "manifest.json":
            return "no checksum"
        path = pathlib.Path("data/manifest.json")
        manifest = json.loads((self.home / path).read_text())
        if file.name == "tokenizer.json":
            manifest["tokenizer"]["sha256"] = sha256(content)
        if file.name in manifest["files"]:
            manifest["files"][file.name] = {"bytes": len(content), "sha256": sha256(content)}
        if file.suffix == ".jsonl" and rng.random() < 0.7:
            try:
                entries = [json.loads(line) for line in content.splitlines()]
                split = manifest["splits"][file.name.split(".")[0]]
                split.update(documents=len(entries), bytes=sum(entry["bytes"] for entry in entries))
            except (ValueError, KeyError, TypeError, RecursionError):
                pass
        self.write(path, json.dumps(manifest).encode())
        if file.suffix == ".bin":
            for run in ("baseline", "ladder", "brillm"):
                change = lambda state: state["data_sha256"].update({str(file): sha256(content)})
                self.change_states(pathlib.Path("runs") / run, change)
        return "hashes right"

    def is_sound(self, file, content, right):
        """Whether its hashes are right and its form parses."""
        hashed = file.suffix in (".bin", ".safetensors") or file.name in ("state.json",) or "documents" in file.name
        if hashed and not right:
            return False
        try:
            if file.suffix == ".json":
                json.loads(content, parse_constant=lambda name: 1 / 0)
            elif file.suffix == ".jsonl":
                all(json.loads(line) for line in content.splitlines())
            elif file.suffix == ".toml":
                tomllib.loads(content.decode())
            elif file.suffix == ".safetensors":
                return is_safetensors(content)
            return True
        except (ValueError, RecursionError, ZeroDivisionError):
            return False

    def call(self, words):
        """Runs the verb. Where the machine is busy it may only have waited: then its own seconds count, in a second try."""
        report = self.call_once(words, SECONDS)
        if report["late"]:
            report = self.call_once(words, 24 * SECONDS)
            report["late"] |= report["busy"] > SECONDS
        return report

    def call_once(self, words, seconds):
        out, err = self.home / "stdout", self.home / "stderr"
        began = time.monotonic()
        with open(out, "wb") as stdout, open(err, "wb") as stderr:
            child = subprocess.Popen(
                [self.nerve, *words], cwd=self.home, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
                env=self.environment, preexec_fn=limit,
            )  # fmt: skip
            signal.signal(signal.SIGALRM, lambda *_: child.kill())
            signal.setitimer(signal.ITIMER_REAL, seconds)
            _, status, usage = os.wait4(child.pid, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        took = time.monotonic() - began
        late = child.returncode == -signal.SIGKILL and took >= seconds
        return {
            "code": child.returncode, "late": late, "seconds": took, "busy": usage.ru_utime + usage.ru_stime, "megabytes": usage.ru_maxrss / 1024,
            "stderr": err.read_bytes()[-20_000:].decode(errors="replace"), "stderr_bytes": err.stat().st_size,
            "stdout": out.read_bytes()[:200_000].decode(errors="replace"),
        }  # fmt: skip

    def judge(self, report, verb, bad_weights):
        code = report["code"]
        if report["late"]:
            return f"took more than {SECONDS} s"
        if code not in CODES:
            return f"exit {code}"
        if "panicked" in report["stderr"]:
            return f"a panic, exit {code}"
        if report["megabytes"] > MEGABYTES:
            return f"took {report['megabytes']:.0f} MB"
        if code != 0 and "error: " not in report["stderr"]:
            return f"exit {code} without an error in words"
        if report["stderr_bytes"] > 200_000:
            return f"{report['stderr_bytes']} bytes of messages"
        if code == 0 and bad_weights and verb in USE_WEIGHTS:
            return "took weights that are not finite"
        if code == 0 and any(word in report["stdout"] for word in (": NaN", ":NaN", "Infinity")):
            return "wrote a number that is not finite"
        return None

    def keep_home(self, index):
        place = pathlib.Path(self.keep) / str(index)
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.home, place)

    def renew(self, run):
        """A resumed run as it was."""
        shutil.rmtree(self.home / run, ignore_errors=True)
        shutil.copytree(self.home / "pristine" / pathlib.Path(run).name, self.home / run)


def is_safetensors(content):
    """Whether the tensors of a header lie behind it without gaps, each as long as its shape says."""
    parsed = read_safetensors(content)
    if parsed is None:
        return False
    header, values = parsed
    end = 0
    widths = {"F32": 4, "BF16": 2, "F16": 2, "F64": 8, "U8": 1, "I32": 4, "U32": 4, "U64": 8, "I64": 8}
    try:
        infos = [info for name, info in header.items() if name != "__metadata__"]
        for info in sorted(infos, key=lambda info: info["data_offsets"]):
            start, stop = info["data_offsets"]
            if start != end or stop - start != math.prod(info["shape"]) * widths[info["dtype"]]:
                return False
            end = stop
    except (KeyError, TypeError, ValueError):
        return False
    return end == len(values)


def limit():
    """In the child: far above what is allowed, so that the machine survives what is not."""
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


# --- all of them ---------------------------------------------------------------------------------------------------------------------


def work(arguments, home, first, results):
    """One of several processes: every J-th file."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    place = home.with_name(f"reader-{first}")
    shutil.copytree(home, place)
    reader = Reader(arguments.nerve, place, arguments.seed, arguments.keep)
    index = first
    ends = arguments.began + arguments.seconds
    while index < arguments.files and time.monotonic() < ends:
        results.put((index, *reader.read(index)))
        index += arguments.jobs
    results.put(None)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nerve")
    parser.add_argument("--files", type=int, default=10**9, help="how many files at most")
    parser.add_argument("--seconds", type=float, default=math.inf, help="how long at most")
    parser.add_argument("--seed", type=int, default=1, help="decides every file")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at once; the files are the same")
    parser.add_argument("--only", type=int, help="one file alone")
    parser.add_argument("--keep", help="where the homes of files that failed are left")
    arguments = parser.parse_args()
    arguments.nerve = str(pathlib.Path(arguments.nerve).resolve())
    if arguments.files == 10**9 and arguments.seconds == math.inf and arguments.only is None:
        arguments.files = 1000
    return arguments


def main():
    arguments = parse()
    place = pathlib.Path(tempfile.mkdtemp(prefix="nerve-fuzz-"))
    try:
        home = place / "home"
        home.mkdir()
        make_home(arguments.nerve, home)
        if arguments.only is not None:
            return only(arguments, home)
        return everything(arguments, home)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def only(arguments, home):
    reader = Reader(arguments.nerve, home, arguments.seed, None)
    reader.put_back, reader.renew = lambda: None, lambda run: None
    verb, sound, report, wrong = reader.read(arguments.only)
    if arguments.keep:
        reader.keep = arguments.keep
        reader.keep_home(arguments.only)
    print(f"{verb}: exit {report['code']}, {'whole' if sound else 'damaged'}, {report['seconds']:.2f} s")
    print(wrong or report["stderr"])
    return 1 if wrong else 0


def everything(arguments, home):
    Reader(arguments.nerve, home, arguments.seed, None).check_whole()
    arguments.began = time.monotonic()
    results = multiprocessing.Queue()
    workers = [
        multiprocessing.Process(target=work, args=(arguments, home, first, results)) for first in range(arguments.jobs)
    ]
    for worker in workers:
        worker.start()
    verbs = collections.defaultdict(lambda: {"files": 0, "sound": 0, "codes": collections.Counter(), "s": 0.0, "mb": 0.0})
    failures, running = 0, len(workers)
    while running:
        result = results.get()
        if result is None:
            running -= 1
            continue
        index, verb, sound, report, wrong = result
        row = verbs[verb]
        row["files"] += 1
        row["sound"] += sound
        row["codes"][report["code"]] += 1
        row["s"] = max(row["s"], report["busy"])
        row["mb"] = max(row["mb"], report["megabytes"])
        if wrong:
            failures += 1
            if failures <= 200:
                print(wrong, file=sys.stderr, flush=True)
    for worker in workers:
        worker.join()
    return summary(verbs, failures, time.monotonic() - arguments.began)


def summary(verbs, failures, seconds):
    files = sum(row["files"] for row in verbs.values())
    sound = sum(row["sound"] for row in verbs.values())
    print(f"{'verb':<12}{'files':>8}{'whole':>8}  {'slowest':>8}{'memory':>9}  exit codes")
    few = []
    for verb, row in sorted(verbs.items()):
        share = row["sound"] / row["files"]
        if share < SOUND_SHARE and row["files"] >= 50:
            few.append(verb)
        codes = ", ".join(f"{code}: {n}" for code, n in sorted(row["codes"].items()))
        print(f"{verb:<12}{row['files']:>8}{share:>8.0%}  {row['s']:>6.2f} s{row['mb']:>6.0f} MB  {codes}")
    print(f"{files} files in {seconds:.0f} s, {files / seconds:.0f} a second; {sound / max(files, 1):.0%} whole; {failures} failures")
    if few:
        print(f"too few whole files for: {', '.join(few)}")
    return 1 if failures or few or not files else 0


if __name__ == "__main__":
    sys.exit(main())
