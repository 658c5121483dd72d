#!/usr/bin/env python3
"""The largest gradient norm of runs over the median, and the steps that these are of.

usage: gradient_norms.py RUN...

A run has to log every step (`--set watch.log_every_steps=1`).
"""

import json
import pathlib
import statistics
import sys

if len(sys.argv) < 2:
    sys.exit(__doc__)
for run in map(pathlib.Path, sys.argv[1:]):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    norms = [line["gradient_norm"] for line in lines if "gradient_norm" in line]
    middle, largest = statistics.median(norms), max(norms)
    print(f"{run.name:36} {len(norms):5} steps  median {middle:.3f}  largest {largest:.3f}  ratio {largest / middle:.2f}")
