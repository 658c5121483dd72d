#!/usr/bin/env python3
"""Do nerve's n-gram models lose what plain dictionaries say that interpolated modified Kneser-Ney loses?

    python3 tests/scripts/ngram_reference.py target/release/nerve [LMPLZ QUERY]

Estimates and queries the models of orders 1 to 6 once more, slowly, from the formulas of Chen and Goodman (1999) and the
conventions of KenLM: `<s>` is context and no event, n-grams that begin with it keep their raw counts, `</s>` is predicted,
discounts that the counts do not say are 0.5, 1 and 1.5. Three texts: English characters, Chinese characters, byte pairs. With
KenLM's two programs they are asked too. Exits 1 and names the first loss that differs by more than 1e-4 nats.
"""

import collections
import json
import math
import random
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

ORDERS = range(1, 7)
TOLERANCE = 1e-4
START = "<s>"


def run(nerve, *arguments):
    return subprocess.run([nerve, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def documents(folder, name):
    """The token ids of every document of a split of fewer than 65,536 ids."""
    data = (folder / f"{name}.bin").read_bytes()
    n_tokens = struct.unpack_from("<i", data, 8)[0]
    ids = struct.unpack_from(f"<{n_tokens}H", data, 1024)
    for line in (folder / f"{name}.documents.jsonl").read_text().splitlines():
        entry = json.loads(line)
        yield ids[entry["start"] : entry["start"] + entry["tokens"]]


def discounts(counts):
    n = collections.Counter(counts)
    fallback = (0.5, 1.0, 1.5)
    if not (n[1] and n[2] and n[3]):
        return fallback
    y = n[1] / (n[1] + 2 * n[2])
    found = tuple(k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3))
    return found if all(0 <= d <= k for k, d in enumerate(found, 1)) else fallback


class Model:
    def __init__(self, order, texts, n_predictable):
        self.order, self.base = order, 1 / n_predictable
        occurrences = collections.Counter()
        left = collections.defaultdict(set)
        for text in texts:
            for length in range(1, order + 1):
                for place in range(len(text) - length + 1):
                    gram = text[place : place + length]
                    occurrences[gram] += 1
                    if place:
                        left[gram].add(text[place - 1])
        by_length = collections.defaultdict(dict)
        for gram, occurs in occurrences.items():
            if gram != (START,):
                raw = len(gram) == order or gram[0] == START
                by_length[len(gram)][gram] = occurs if raw else len(left[gram])
        self.kept, self.freed = {}, collections.Counter()
        for counts in by_length.values():
            taken = discounts(counts.values())
            total = collections.Counter()
            for gram, count in counts.items():
                total[gram[:-1]] += count
            for gram, count in counts.items():
                discount = taken[min(count, 3) - 1]
                self.kept[gram] = (count - discount) / total[gram[:-1]]
                self.freed[gram[:-1]] += discount / total[gram[:-1]]

    def probability(self, context, token):
        if not context:
            shorter = self.base
        else:
            shorter = self.probability(context[1:], token)
        if context not in self.freed:
            return shorter
        return self.kept.get(context + (token,), 0) + self.freed[context] * shorter

    def loss(self, texts):
        nats = targets = 0
        for text in texts:
            for place in range(1, len(text)):
                context = text[max(0, place - self.order + 1) : place]
                nats -= math.log(self.probability(context, text[place]))
                targets += 1
        return nats / targets, targets


def kenlm(lmplz, query, order, train, valid, n_predictable, end, folder):
    """The loss by KenLM's own programs, on lines of ids without the end, which KenLM puts there itself."""
    words = lambda texts: "".join(" ".join(f"w{id}" for id in text[1:-1]) + "\n" for text in texts)
    assert all(text[-1] == end for text in [*train, *valid])
    arpa = folder / "model.arpa"
    options = ["-o", order, "--discount_fallback", "--vocab_pad", n_predictable, "-S", "1%", "-T", folder]
    with arpa.open("wb") as out:
        command = [lmplz, *map(str, options)]
        subprocess.run(command, input=words(train).encode(), stdout=out, stderr=subprocess.DEVNULL, check=True)
    if order == 1:
        # Unigrams are added up from the file: `query` wants a longer model.
        lines = (line.split("\t") for line in arpa.read_text().splitlines())
        log10 = {line[1]: float(line[0]) for line in lines if len(line) >= 2}
        tokens = [word for text in valid for word in [*(f"w{id}" for id in text[1:-1]), "</s>"]]
        return -sum(log10.get(token, log10["<unk>"]) for token in tokens) * math.log(10) / len(tokens)
    asked = subprocess.run([query, arpa], input=words(valid).encode(), capture_output=True, check=True).stdout.decode()
    totals = [float(line.split("\t")[-1].split()[1]) for line in asked.splitlines() if "Total: " in line]
    return -sum(totals) * math.log(10) / sum(len(text) - 1 for text in valid)


def chinese(seed, n_lines):
    """Made-up lines over a few hundred characters, some of them much more frequent, in words that come back."""
    r = random.Random(seed)
    character = lambda: chr(0x4E00 + min(int(r.paretovariate(0.7)), 400))
    words = ["".join(character() for _ in range(r.choice([1, 2, 2, 3]))) for _ in range(500)]
    word = lambda: words[min(int(r.paretovariate(0.6)), len(words)) - 1]
    line = lambda: "".join(word() for _ in range(r.randint(1, 9))) + r.choice("，。？")
    return "".join(line() + "\n" for _ in range(n_lines))


def check(nerve, programs, title, kind, options, text, folder):
    folder = folder / kind
    folder.mkdir()
    (folder / "text.txt").write_text(text)
    tokenizer, data = folder / "tokenizer.json", folder / "data"
    run(nerve, "tokenizer", "train", "--kind", kind, *options, "--output", tokenizer, folder / "text.txt")
    prepare = ["--document", "line", "--valid", 0.1, "--output", data, "--tokenizer", tokenizer]
    run(nerve, "data", "prepare", folder / "text.txt", *prepare)
    specials = json.loads((data / "manifest.json").read_text())["tokenizer"]
    train, valid = ([(START, *text) for text in documents(data, name)] for name in ("train", "valid"))
    # All ids but <s> and <pad>.
    n_predictable = specials["vocabulary_size"] - 2
    orders = [word for order in ORDERS for word in ("--order", order)]
    answer = json.loads(run(nerve, "data", "ngrams", data / "train.bin", "--valid", data / "valid.bin", *orders, "--json"))
    assert answer["predictable_ids"] == n_predictable, answer
    for row in answer["rows"]:
        order, found = row["order"], row["loss/lm"]
        expected, targets = Model(order, train, n_predictable).loss(valid)
        assert row["targets"] == targets, (title, order, row["targets"], targets)
        others = {"dictionaries": expected}
        if programs:
            end = specials["specials"]["end"]
            others["KenLM"] = kenlm(*programs, order, train, valid, n_predictable, end, folder)
        shown = ", ".join(f"{name} {loss:.6f}" for name, loss in others.items())
        print(f"{title}, order {order}, {targets} targets: nerve {found:.6f}, {shown}, fallbacks {row['fallback_discounts']}")
        for name, loss in others.items():
            if abs(found - loss) > TOLERANCE:
                sys.exit(f"{title}, order {order}: nerve {found}, {name} {loss}")


def main():
    nerve, programs = str(Path(sys.argv[1]).resolve()), sys.argv[2:]
    with tempfile.TemporaryDirectory() as folder:
        stories = run(nerve, "data", "synth", "story", "--samples", 400, "--seed", 3, "--output", "-")
        english = "".join(json.loads(line)["text"].replace("\n", " ").strip() + "\n" for line in stories.splitlines())
        texts = [
            ("English characters", "character", [], english),
            ("byte pairs", "bpe", ["--vocabulary", 400], english),
            ("Chinese characters", "character", [], chinese(5, 1500)),
        ]
        for number, (title, kind, options, text) in enumerate(texts):
            place = Path(folder) / str(number)
            place.mkdir()
            check(nerve, programs, title, kind, options, text, place)
    print("all losses agree")


if __name__ == "__main__":
    main()
