#!/usr/bin/env python3
"""The best learning rate at two widths, with a width transfer and without it: with it both are the same, up to one step of the grid.

usage: transfer.py NERVE [--recipe FILE] [--small N] [--large N] [--steps N] [--rates N] [--middle RATE] [--seeds N] [--stories N]
       [--set PATH=VALUE …]

Trains the bundled tiny baseline on made stories at `--small` (64) and `--large` (256), at so many rates, each twice the one before
around `--middle`, for so many steps, and prints the mean of the last validation losses over seeds. Runs of one seed and width read the
same batches. Exit 0 if the best rates with the transfer are at most a factor of two apart.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEAD = 16


def nerve(place, program, *words):
    done = subprocess.run([program, *words], cwd=place, capture_output=True, text=True)
    if done.returncode != 0 and done.returncode != 6:
        sys.exit(f"transfer: {' '.join(words)}: exit {done.returncode}: {done.stderr[-2000:]}")
    return done


def loss(place, arguments, width, base, rate, seed):
    """The last validation loss; nothing if the run ended with one that is no number."""
    run = place / "runs" / "one"
    shutil.rmtree(run, ignore_errors=True)
    steps = arguments.steps
    sets = [
        "run.name=one",
        f"run.seed={seed}",
        f"model.d_model={width}",
        f"model.n_heads={width // HEAD}",
        f"model.d_ff={4 * width}",
        "model.n_layers=2",
        f"model.width_transfer={{ base_d_model = {base}, base_d_head = {HEAD} }}",
        f"stage.baseline.steps={steps}",
        f"stage.baseline.learning_rate={{ kind = \"warmup_cosine\", peak = {rate}, warmup_steps = {steps // 10}, floor = 0.0 }}",
        f"watch.valid_every_steps={steps}",
        "watch.valid_tokens=16384",
        "watch.sample_every_steps=0",
        f"checkpoint.every_steps={steps}",
        *arguments.set,
    ]
    words = [word for one in sets for word in ("--set", one)]
    done = nerve(place, arguments.nerve, "fit", str(arguments.recipe), "--render", "none", *words)
    if done.returncode == 6:
        return float("inf")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss/lm"] for line in lines if line["split"] == "valid"]
    return losses[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nerve", type=lambda path: str(pathlib.Path(path).resolve()))
    parser.add_argument("--recipe", type=lambda path: pathlib.Path(path).resolve(), default=ROOT / "assets/recipes/baseline/tiny.toml")
    parser.add_argument("--small", type=int, default=64)
    parser.add_argument("--large", type=int, default=256)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rates", type=int, default=6)
    parser.add_argument("--middle", type=float, default=2**-7)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--stories", type=int, default=3000)
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    place = pathlib.Path(tempfile.mkdtemp(prefix="nerve-transfer-"))
    (place / "assets").symlink_to(ROOT / "assets")
    nerve(place, arguments.nerve, *f"data synth story --samples {arguments.stories} --seed 5 --output stories.jsonl".split())
    prepare = "data prepare stories.jsonl --output data/stories --valid 0.05 --tokenizer assets/tokenizers/story_bpe.json"
    nerve(place, arguments.nerve, *prepare.split())
    rates = [arguments.middle * 2.0 ** (place - arguments.rates // 2) for place in range(arguments.rates)]
    small, large = arguments.small, arguments.large
    rows = [(f"{small}", small, small), (f"{large}, transferred", large, small), (f"{large}, standard", large, large)]
    print("width | " + " | ".join(f"{rate:.5f}" for rate in rates) + " | best", flush=True)
    best = []
    for name, width, base in rows:
        seeds = range(1, 1 + arguments.seeds)
        means = [sum(loss(place, arguments, width, base, rate, seed) for seed in seeds) / len(seeds) for rate in rates]
        best.append(min(range(len(rates)), key=means.__getitem__))
        print(f"{name} | " + " | ".join(f"{mean:.4f}" for mean in means) + f" | {rates[best[-1]]:.5f}", flush=True)
    shutil.rmtree(place)
    apart = abs(best[0] - best[1])
    print(f"the best rates of both widths are {apart} steps of the grid apart with the transfer, {abs(best[0] - best[2])} without it")
    sys.exit(0 if apart <= 1 else 1)


if __name__ == "__main__":
    main()
