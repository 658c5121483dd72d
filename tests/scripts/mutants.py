#!/usr/bin/env python3
"""Puts small faults into the code, one at a time, and says which of them no test notices.

usage: mutants.py [--check] [--only NAME] [--whole] [--jobs J] [--report FILE]

The faults are listed in `tests/mutants/*.toml`, anchored by a text that occurs once in its file. All of them are built into one
copy of the tree (in cargo's target directory), beside the code that they replace; the environment variable NERVE_MUTANT chooses
one. The tests of the fault's own crate run first, then the tests of the whole that its entry names, then, with `--whole`, all
others; the first failure, or no answer in time, is enough. Without a fault the crates' tests have to pass. An entry with
`survives` gives the reason why nothing can notice it; it is not run and counts as survivor.

Exit 0 if at least 95 % are noticed. `--check` only compares the lists with the code.
"""

import argparse
import concurrent.futures
import datetime
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
CRATES = ["brian", "brillm", "train"]
FIELDS = {"name", "file", "find", "replace", "why", "tests", "survives"}
NOTICED_SHARE = 0.95
# Nothing takes so long; a fault may well turn an end into a loop.
SECONDS = {"own": 120, "whole": 600}

CHOICE = """

#[doc(hidden)]
pub mod mutants {
    pub fn on(number: u32) -> bool {
        static CHOSEN: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
        let read = || std::env::var("NERVE_MUTANT").map_or(0, |chosen| chosen.parse().expect("a number"));
        number == *CHOSEN.get_or_init(read)
    }
}
"""


def read_lists():
    """Every entry, numbered from 1."""
    mutants, names = [], set()
    for path in sorted((ROOT / "tests/mutants").glob("*.toml")):
        for entry in tomllib.loads(path.read_text())["mutant"]:
            place = f"{path.relative_to(ROOT)}: {entry.get('name')}"
            missing = FIELDS - {"tests", "survives"} - entry.keys()
            if missing or entry.keys() - FIELDS:
                sys.exit(f"{place}: missing {sorted(missing)}, unknown {sorted(entry.keys() - FIELDS)}")
            if entry["name"] in names:
                sys.exit(f"{place}: the name stands twice")
            names.add(entry["name"])
            mutants.append(entry | {"number": len(mutants) + 1, "crate": entry["file"].split("/")[0], "list": path.stem})
    return mutants


def chosen(entry):
    """The text of the code with and without the fault."""
    condition = f"if crate::mutants::on({entry['number']})"
    find, replace = entry["find"].strip(), entry["replace"].strip()
    if find.endswith(";"):
        return f"{condition} {{ {replace} }} else {{ {find} }}"
    return f"({condition} {{ {replace} }} else {{ {find} }})"


def changed_files(mutants):
    """What each file becomes, by its name; an anchor that is absent, doubled or inside another ends the program."""
    files, problems = {}, []
    for name in sorted({entry["file"] for entry in mutants}):
        text, spans = (ROOT / name).read_text(), []
        for entry in (entry for entry in mutants if entry["file"] == name):
            find = entry["find"].strip()
            if text.count(find) != 1:
                problems.append(f"{entry['name']}: {name} holds the text {text.count(find)} times, not once:\n  {find}")
                continue
            spans.append((text.index(find), text.index(find) + len(find), entry))
        spans.sort(key=lambda span: span[0])
        for (_, end, first), (begin, _, second) in zip(spans, spans[1:]):
            if begin < end:
                problems.append(f"{first['name']} and {second['name']}: the texts overlap in {name}")
        for begin, end, entry in reversed(spans):
            text = text[:begin] + chosen(entry) + text[end:]
        files[name] = text
    if problems:
        sys.exit("\n".join(problems))
    return files


def write_tree(mutants, place):
    """The tree with all faults inside; a file that stays as it was keeps its time, so cargo builds it once."""
    changed = changed_files(mutants)
    tracked = subprocess.run(["git", "ls-files", "-z", "-c", "-o", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
    names = [name for name in tracked.stdout.decode().split("\0") if name and (ROOT / name).is_file()]
    for path in [path for path in place.rglob("*") if path.is_file() and str(path.relative_to(place)) not in names]:
        path.unlink()
    for name in names:
        content = changed[name].encode() if name in changed else (ROOT / name).read_bytes()
        if name in (f"{crate}/src/lib.rs" for crate in CRATES):
            content += CHOICE.encode()
        path = place / name
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def build(mutants):
    """The test programs with all faults inside, by crate, and `it` for the whole; and the tree that they belong to."""
    usual = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute()
    place, target = usual / "mutants/tree", usual / "mutants/target"
    # A directory of its own: cargo would take what is built here for what the tree itself builds to. Dependencies are the same.
    if not target.exists() and (usual / "release").exists():
        shutil.copytree(usual / "release", target / "release", symlinks=True)
    write_tree(mutants, place)
    command = ["cargo", "test", "--release", "--workspace", "--no-run"]
    environment = os.environ | {"CARGO_TARGET_DIR": str(target)}
    built = subprocess.run(command, cwd=place, env=environment, stderr=subprocess.PIPE, text=True)
    if built.returncode:
        errors = [part for part in built.stderr.split("\n\n") if part.startswith("error")]
        sys.exit("the tree with all faults does not build:\n" + "\n\n".join(errors))
    found = re.findall(r"Executable (?:unittests )?(src/lib|main)\.rs \((.+)\)", built.stderr)
    return {pathlib.Path(program).name.rsplit("-", 1)[0]: program for _, program in found}, place


def first_failure(program, words, folder, number, seconds):
    """The first test that fails, `None` if all pass. The program is stopped there: the rest tells nothing more."""
    environment = os.environ | {"NERVE_MUTANT": str(number), "RAYON_NUM_THREADS": "1"}
    command = [program, "--test-threads=1", *words]
    late = threading.Event()
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as run:
        timer = threading.Timer(seconds, lambda: (late.set(), run.kill()))
        timer.start()
        try:
            for line in run.stdout:
                if found := re.match(r"test (.*) \.\.\. FAILED", line):
                    run.kill()
                    return found[1]
        finally:
            timer.cancel()
        code = run.wait()
    if late.is_set():
        return f"no answer in {seconds} s"
    return f"exit {code}" if code else None


def who_notices(entry, programs, place, whole):
    """The test that fails first."""
    crate = entry["crate"]
    own = first_failure(programs[crate], [], place / crate, entry["number"], SECONDS["own"])
    if own:
        return f"{crate}: {own}"
    named = entry.get("tests", [])
    if named and (found := first_failure(programs["it"], named, place / "tests", entry["number"], SECONDS["whole"])):
        return f"it: {found}"
    if whole:
        others = [word for name in named for word in ("--skip", name)]
        if found := first_failure(programs["it"], others, place / "tests", entry["number"], 4 * SECONDS["whole"]):
            return f"it: {found}"
    return None


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="only compare the lists with the code")
    arguments.add_argument("--only", help="faults whose name holds this")
    arguments.add_argument("--whole", action="store_true", help="all tests, where those of the entry notice nothing")
    arguments.add_argument("--jobs", type=int, default=2)
    arguments.add_argument("--report", help="a file for the table")
    arguments = arguments.parse_args()

    mutants = read_lists()
    if arguments.check:
        changed_files(mutants)
        print(f"{len(mutants)} faults, every anchor once in its file")
        return 0
    began = time.time()
    programs, place = build(mutants)
    print(f"built {len(mutants)} faults into one tree in {time.time() - began:.0f} s", flush=True)
    mutants = [entry for entry in mutants if (arguments.only or "") in entry["name"]]
    for crate in CRATES:
        if failed := first_failure(programs[crate], [], place / crate, 0, SECONDS["whole"]):
            sys.exit(f"without any fault {crate} fails: {failed}")
    tried = [entry for entry in mutants if "survives" not in entry]
    lines, noticed = [], 0
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        tests = pool.map(lambda entry: who_notices(entry, programs, place, arguments.whole), tried)
        for entry, test in zip(tried, tests):
            noticed += test is not None
            lines.append(f"{'noticed' if test else 'SURVIVED':9} {entry['list']:8} {entry['name']:44} {test or entry['why']}")
            print(lines[-1], flush=True)
    for entry in (entry for entry in mutants if "survives" in entry):
        lines.append(f"{'survives':9} {entry['list']:8} {entry['name']:44} {entry['survives']}")
        print(lines[-1])
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    summary = f"{noticed} of {len(mutants)} faults noticed, {datetime.date.today()}, commit {commit}, {time.time() - began:.0f} s"
    print(summary)
    if arguments.report:
        pathlib.Path(arguments.report).write_text("\n".join([summary, "", *lines, ""]))
    return 0 if noticed >= NOTICED_SHARE * len(mutants) else 1


if __name__ == "__main__":
    sys.exit(main())
