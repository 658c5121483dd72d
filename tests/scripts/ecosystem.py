#!/usr/bin/env python3
"""The second half of ecosystem.sh: compares figures and sample files, and asks with OpenAI's client.

usage: ecosystem.py ADDRESS DIRECTORY
"""

import json
import pathlib
import sys

import openai

NOT_OURS = {"perplexity_stderr,none"}  # lm-eval draws a bootstrap


def figures_of(directory):
    (file,) = pathlib.Path(directory).rglob("results_*.json")
    return json.loads(file.read_text())["results"]


def samples_of(directory):
    return {
        file.name.rsplit("_", 1)[0]: [json.loads(line) for line in file.read_text().splitlines()]
        for file in pathlib.Path(directory).rglob("samples_*.jsonl")
    }


def compare(place):
    ours = json.loads((place / "ours.json").read_text())["results"]
    settings = sorted(path for path in place.iterdir() if path.is_dir())
    worst, n = 0.0, 0
    for setting in settings:
        theirs = figures_of(setting)
        for task, figures in ours.items():
            for name, value in figures.items():
                if name in NOT_OURS:
                    continue
                found = theirs[task].get(name)
                if value is None:
                    assert found in (None, "N/A"), (task, name, found)
                    continue
                # Perplexities of models that know nothing are large.
                worst, n = max(worst, abs(found - value) / max(1.0, abs(value))), n + 1
    print(f"{n} figures of lm-eval in {len(settings)} settings: the largest difference from nerve eval is {worst:.2e}")
    for task, figures in ours.items():
        print(" ", task, {name: round(value, 6) for name, value in figures.items() if value is not None})
    first, *others = [samples_of(setting) for setting in settings]
    equal = all(first == other for other in others)
    print(f"sample files: {sum(map(len, first.values()))} samples, identical in all settings: {equal}")
    return worst < 1e-6 and equal


def ask(address):
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    model = client.models.list().data[0].id
    asked = {"model": model, "prompt": "Once upon", "max_tokens": 12, "seed": 3, "temperature": 0.8, "logprobs": 2}
    whole = client.completions.create(**asked)
    pieces = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(piece.choices[0].text for piece in pieces if piece.choices)
    assert text == whole.choices[0].text, (text, whole.choices[0].text)
    assert pieces[-1].usage == whole.usage, (pieces[-1].usage, whole.usage)
    logprobs = whole.choices[0].logprobs
    assert len(logprobs.tokens) == whole.usage.completion_tokens == len(logprobs.token_logprobs)
    scored = client.completions.create(model=model, prompt="Once upon", max_tokens=0, echo=True, logprobs=1)
    assert scored.choices[0].text == "Once upon" and scored.choices[0].logprobs.token_logprobs[0] is None
    for wrong, error in [
        ({"temperature": -1.0}, openai.BadRequestError),
        ({"model": "another"}, openai.NotFoundError),
        ({"presence_penalty": 1.0}, openai.BadRequestError),
    ]:
        try:
            client.completions.create(**{**asked, **wrong})
            raise AssertionError(wrong)
        except error as refused:
            print("  refused:", refused.body["param"], "·", refused.body["message"][:90])
    stream = client.completions.create(**{**asked, "max_tokens": 40}, stream=True, extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()
    routes = client.completions.create(**asked, extra_body={"return_routes": True})
    assert routes.choices[0].model_extra["routes"] is not None
    print("openai", openai.__version__, "completions, events, logarithms, errors, cancelling: as expected")


def main():
    address, place = sys.argv[1], pathlib.Path(sys.argv[2])
    holds = compare(place)
    ask(address)
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
