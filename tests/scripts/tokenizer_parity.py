#!/usr/bin/env python3
"""Do Python's `tokenizers` and nerve give equal ids?

    pip install tokenizers
    python3 tests/scripts/tokenizer_parity.py target/release/nerve [TOKENIZER.json ...]

On 10,000 mixed lines, with specials in a text as text and with specials that are parsed: trains the three kinds with nerve,
trains the families of other programs with Python, and takes the files named; encodes the lines with both programs and
compares every id and the decoded text. Exits 1 and names the first difference if there is one.
"""

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

N_LINES = 10_000
KINDS = {"byte": [], "character": ["--vocabulary", "900"], "bpe": ["--vocabulary", "700"]}
PIECES = [
    lambda r: r.choice(["the", "cat", "Harbour", "don't", "we'll", "I'M", "naïve", "x_y", "3.14", "1,000", "(ok)"]),
    lambda r: "".join(chr(r.randint(0x4E00, 0x4FFF)) for _ in range(r.randint(1, 8))),
    lambda r: r.choice(["😀", "👩‍👩‍👧", "🇩🇪", "👍🏽", "❤️", "𝔘𝔫𝔦"]),
    lambda r: "e" + "".join(chr(r.randint(0x300, 0x36F)) for _ in range(r.randint(1, 12))),
    lambda r: r.choice([" ", "  ", "\t", "\n", "\r\n", "\n\n\n", "\u00a0", "\u2003", "\u3000", "\u200b", " " * 40]),
    lambda r: r.choice(["\0", "\ufeff", "\ufffd", "\u2028", "\x1b[31m", "\x7f", "\u0085"]),
    lambda r: r.choice(["<s>", "</s>", "<pad>", "<unk>", "<s", "</ s>", "<<s>>", "<|end|>", "<|endoftext|>", "<|eot_id|>", "[SEP]"]),
    lambda r: r.choice(["<left>", " <left>", "<right>  ", "cats", "two words", "<think>", "'S", "'\u017f", "e\u0301", "Ⅷ\u0327"]),
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
    encode = ["tokenizer", "encode", file, "--input", strings, "--specials", rule, "--decode"]
    answers = [json.loads(line) for line in run(nerve, *encode).rstrip("\n").split("\n")]
    ours = [answer["ids"] for answer in answers]
    theirs = [encoding.ids for encoding in tokenizer.encode_batch(lines, add_special_tokens=False)]
    assert len(ours) == len(theirs) == len(lines), (kind, len(ours), len(theirs), len(lines))
    for number, (line, our, their, answer) in enumerate(zip(lines, ours, theirs, answers)):
        if our != their:
            sys.exit(f"{kind}, specials as {rule}: line {number} differs: {line[:80]!r}: nerve {our[:40]}, tokenizers {their[:40]}")
        text = tokenizer.decode(their)
        if answer["text"] != text:
            sys.exit(f"{kind}, specials as {rule}: line {number} decodes to {answer['text'][:80]!r}, in Python to {text[:80]!r}")
        # Each byte of a text belongs to one token; only a text without a token has none that owns it.
        assert answer["bytes"] == (len(line.encode()) if our else 0), (kind, number, line)
        specials = ("<s>", "</s>", "<pad>", "<unk>")
        is_text = rule == "text" or not any(special in line for special in specials)
        if kind in ("byte", "bpe") and is_text:
            assert text == line, (kind, number)
    print(f"{kind}, specials as {rule}: {len(lines)} lines, {sum(map(len, ours))} ids, equal")


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
MARK = "\u2581"


def trained(model, trainer, lines, normalizer=None, cut=None, decoder=None):
    tokenizer = Tokenizer(model)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if cut is not None:
        tokenizer.pre_tokenizer = cut
    if decoder is not None:
        tokenizer.decoder = decoder
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def byte_pairs(lines, pattern, normalizer=None, specials=(), model=None, also=()):
    """Byte pairs as GPT-2, LLaMA 3 and Qwen have them; `specials` come first, so one of them has id 0."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    split = [] if pattern is None else [pre_tokenizers.Split(Regex(pattern), behavior="isolated")]
    cut = pre_tokenizers.Sequence([*also, *split, level])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, special_tokens=list(specials), show_progress=False)
    return trained(model or models.BPE(), trainer, lines, normalizer, cut, decoders.ByteLevel())


def sentence_pieces(lines):
    """Byte pairs over characters, with a mark for a space and tokens for bytes, as in LLaMA 2."""
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    # Learned within words; afterwards a text is one word, as SentencePiece has it.
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=first, limit_alphabet=200, show_progress=False)
    learned = trained(models.BPE(unk_token="<unk>"), trainer, lines, cut=pre_tokenizers.Metaspace(MARK))
    model = json.loads(learned.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(model["vocab"], merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    back = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(back)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in first[:3]])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def unigram(lines):
    trainer = trainers.UnigramTrainer(
        vocab_size=500, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    around = pre_tokenizers.Metaspace(MARK)
    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    # The trainer wants a token for every character, and short words; what it does not see is unknown.
    short = ["".join(c for c in line if ord(c) < 0x250)[:200] for line in lines[:3000]]
    tokenizer = trained(models.Unigram(), trainer, short, normalizer, around, decoders.Metaspace(MARK))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def unigram_with_bytes(lines):
    """The same with tokens for bytes, so that nothing is unknown."""
    file = json.loads(unigram(lines).to_str())
    file["model"]["vocab"] += [[f"<0x{byte:02X}>", -20.0] for byte in range(256)]
    file["model"]["byte_fallback"] = True
    tokenizer = Tokenizer.from_str(json.dumps(file))
    tokenizer.normalizer = normalizers.NFC()
    back = [decoders.ByteFallback(), decoders.Metaspace(MARK)]
    tokenizer.decoder = decoders.Sequence(back)
    return tokenizer


def word_pieces(lines):
    first = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=900, special_tokens=first, limit_alphabet=300, show_progress=False)
    tokenizer = trained(
        models.WordPiece(unk_token="[UNK]"),
        trainer,
        lines,
        normalizers.BertNormalizer(lowercase=True),
        pre_tokenizers.BertPreTokenizer(),
        decoders.WordPiece(),
    )
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def with_added(tokenizer):
    """Added tokens that take space from beside them, stand alone, hold white space or other scripts, are special or not."""
    tokenizer.add_tokens(
        [
            AddedToken("<left>", lstrip=True, normalized=False),
            AddedToken("<right>", rstrip=True, special=True, normalized=False),
            AddedToken("cat", single_word=True, normalized=False),
            AddedToken("two words", normalized=True),
            AddedToken("привет", normalized=True),
            AddedToken("<think>", normalized=False),
        ]
    )
    return tokenizer


def others(lines):
    """Tokenizers of the families that other projects have, by name."""
    nfc = normalizers.NFC()
    yield "GPT-2", byte_pairs(lines, None, specials=["<|endoftext|>"])
    yield "GPT-2 as a split", byte_pairs(lines, GPT2)
    yield "LLaMA 3", byte_pairs(lines, LLAMA3, specials=["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    yield "LLaMA 3, whole words first", byte_pairs(lines, LLAMA3, model=models.BPE(ignore_merges=True))
    yield "Qwen", byte_pairs(lines, QWEN, nfc, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    digits = [pre_tokenizers.Digits(individual_digits=True)]
    yield "digits alone", byte_pairs(lines, None, specials=["<|endoftext|>", "<|im_start|>", "<|im_end|>"], also=digits)
    yield "added tokens", with_added(byte_pairs(lines, LLAMA3, nfc, ["<|endoftext|>"]))
    yield "sentence pieces", sentence_pieces(lines)
    yield "sentence pieces, added tokens", with_added(sentence_pieces(lines))
    yield "Unigram", unigram(lines)
    yield "Unigram, bytes", unigram_with_bytes(lines)
    yield "WordPiece", word_pieces(lines)
    yield "WordPiece, added tokens", with_added(word_pieces(lines))
    yield "words", words(lines)
    yield "a hole", holed(lines)


def words(lines):
    trainer = trainers.WordLevelTrainer(vocab_size=600, special_tokens=["[UNK]"], show_progress=False)
    return trained(models.WordLevel(unk_token="[UNK]"), trainer, lines, normalizers.Lowercase(), pre_tokenizers.Whitespace())


def holed(lines):
    """Ids that no token has, within the vocabulary and before an added token."""
    file = json.loads(byte_pairs(lines, QWEN, None, ["<s>", "</s>"]).to_str())
    vocabulary = file["model"]["vocab"]
    size = len(vocabulary)
    last = max(vocabulary, key=vocabulary.get)
    vocabulary[last] = size + 20
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    file["added_tokens"].append({"id": size + 9, "content": "<|end|>", **flags})
    return json.dumps(file)


def compare_others(nerve, lines, folder):
    strings = folder / "strings.jsonl"
    strings.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, tokenizer in others(lines[: N_LINES // 2]):
        file = folder / "others.json"
        # The file with the holes is not as Python writes it.
        text = tokenizer if isinstance(tokenizer, str) else tokenizer.to_str()
        file.write_text(text)
        compare_file(nerve, name, Tokenizer.from_str(text), file, strings, lines)


def compare_file(nerve, name, tokenizer, file, strings, lines):
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for specials in ("text", "parse"):
        tokenizer.encode_special_tokens = specials == "text"
        compare_ids(nerve, name, specials, tokenizer, file, strings, lines)


def main():
    nerve = sys.argv[1] if len(sys.argv) > 1 else "target/release/nerve"
    lines = make_lines(1)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for kind, options in KINDS.items():
            compare(nerve, kind, options, lines, folder)
        compare_others(nerve, lines, folder)
        for file in sys.argv[2:]:
            compare_file(nerve, file, Tokenizer.from_file(file), file, folder / "strings.jsonl", lines)


if __name__ == "__main__":
    main()
