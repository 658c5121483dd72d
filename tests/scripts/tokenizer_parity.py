#!/usr/bin/env python3
"""Do Python's `tokenizers` and nerve give equal ids?

    pip install tokenizers
    python3 tests/scripts/tokenizer_parity.py target/release/nerve

Trains the three kinds with nerve on 10,000 mixed lines, encodes lines with both programs, compares every id and
the decoded text; once with specials in a text as text, once with specials that are parsed. Exits 1 and names the first
difference if there is one.
"""

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from tokenizers import Tokenizer

N_LINES = 10_000
KINDS = {"byte": [], "character": ["--vocabulary", "900"], "bpe": ["--vocabulary", "700"]}
PIECES = [
    lambda r: r.choice(["the", "cat", "Harbour", "don't", "we'll", "I'M", "naïve", "x_y", "3.14", "1,000", "(ok)"]),
    lambda r: "".join(chr(r.randint(0x4E00, 0x4FFF)) for _ in range(r.randint(1, 8))),
    lambda r: r.choice(["😀", "👩‍👩‍👧", "🇩🇪", "👍🏽", "❤️", "𝔘𝔫𝔦"]),
    lambda r: "e" + "".join(chr(r.randint(0x300, 0x36F)) for _ in range(r.randint(1, 12))),
    lambda r: r.choice([" ", "  ", "\t", "\n", "\r\n", "\n\n\n", "\u00a0", "\u2003", "\u3000", "\u200b", " " * 40]),
    lambda r: r.choice(["\0", "\ufeff", "\ufffd", "\u2028", "\x1b[31m", "\x7f", "\u0085"]),
    lambda r: r.choice(["<s>", "</s>", "<pad>", "<unk>", "<s", "</ s>", "<<s>>", "<|end|>"]),
    lambda r: chr(r.choice([r.randint(0x20, 0xD7FF), r.randint(0xE000, 0x10FFFF)])),
    lambda r: r.choice(["مرحبا", "שלום", "नमस्ते", "สวัสดี", "Ελλάδα", "привет", "한국어", "ﬁ", "½", "²", "Ⅷ"]),
]


def make_lines(seed):
    r = random.Random(seed)
    join = lambda: r.choice(["", " "]).join(r.choice(PIECES)(r) for _ in range(r.randint(0, 20)))
    # One line is long enough to be cut into chunks inside nerve.
    return [join() for _ in range(N_LINES - 1)] + [" ".join(join() for _ in range(4000))]


def run(nerve, *arguments):
    return subprocess.run([nerve, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def compare(nerve, kind, options, lines, folder):
    texts, strings = folder / "texts.jsonl", folder / "strings.jsonl"
    # The seen half trains, all lines are encoded: unknown characters must agree too.
    texts.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines[: N_LINES // 2]))
    strings.write_text("".join(json.dumps(line) + "\n" for line in lines))
    file = folder / f"{kind}.json"
    run(nerve, "tokenizer", "train", "--kind", kind, "--output", file, *options, texts)
    tokenizer = Tokenizer.from_file(str(file))
    for specials in ("text", "parse"):
        tokenizer.encode_special_tokens = specials == "text"
        compare_ids(nerve, kind, specials, tokenizer, file, strings, lines)


def compare_ids(nerve, kind, rule, tokenizer, file, strings, lines):
    encode = ["tokenizer", "encode", file, "--input", strings, "--specials", rule]
    ours = [json.loads(line) for line in run(nerve, *encode).splitlines()]
    theirs = [encoding.ids for encoding in tokenizer.encode_batch(lines, add_special_tokens=False)]
    assert len(ours) == len(theirs) == len(lines), (kind, len(ours), len(theirs), len(lines))
    for number, (line, our, their) in enumerate(zip(lines, ours, theirs)):
        if our != their:
            sys.exit(f"{kind}, specials as {rule}: line {number} differs: {line[:80]!r}: nerve {our[:40]}, tokenizers {their[:40]}")
        specials = ("<s>", "</s>", "<pad>", "<unk>")
        is_text = rule == "text" or not any(special in line for special in specials)
        if kind != "character" and is_text:
            assert tokenizer.decode(their) == line, (kind, number)
    print(f"{kind}, specials as {rule}: {len(lines)} lines, {sum(map(len, ours))} ids, equal")


def main():
    nerve = sys.argv[1] if len(sys.argv) > 1 else "target/release/nerve"
    lines = make_lines(1)
    with tempfile.TemporaryDirectory() as folder:
        for kind, options in KINDS.items():
            compare(nerve, kind, options, lines, Path(folder))


if __name__ == "__main__":
    main()
