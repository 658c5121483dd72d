"""A BriLLM training step as one would write it well in PyTorch: the graph's edges in one table, all lookups in tensors.

    python graph.py GRAPH [cpu|cuda] [dense|sparse]

GRAPH is a name as bench/signal.rs prints it: v1000_20%/k400. `dense` is AdamW over all edges, what `exact` of ours equals; `sparse`
is SparseAdam over the edges of a step, as `touched` is. Prints positions per second from the median step.
"""

import re
import statistics
import sys
import time

import torch
from torch.nn import functional as F

graph, device, mode = (sys.argv[1:] + ["cpu", "dense"][len(sys.argv) - 2 :])[:3]
NODES, PERCENT, K = (int(n) for n in re.findall(r"\d+", graph))
D, BATCH, EDGES = 32, 16, 30
WARM_UP, ROUNDS = 2, 7

torch.manual_seed(1)
if device == "cpu":
    torch.set_num_threads(2)
exists = torch.rand(NODES, NODES) < PERCENT / 100
# Row 0 is shared by all pairs without an edge.
row_of = torch.zeros(NODES, NODES, dtype=torch.int64)
row_of[exists] = torch.arange(1, int(exists.sum()) + 1)
row_of = row_of.to(device)
n_rows = int(exists.sum()) + 1
table = torch.nn.Embedding(n_rows, D * (D + 1), sparse=mode == "sparse", device=device)
torch.nn.init.uniform_(table.weight, -0.5, 0.5)
node_bias = torch.nn.Parameter(torch.rand(NODES, D, device=device) - 0.5)
alpha = torch.nn.Parameter(torch.ones(512, device=device))
codes = torch.zeros(512, D)
angle = torch.arange(512)[:, None] * 10_000.0 ** (-torch.arange(0, D, 2) / D)
codes[:, 0::2], codes[:, 1::2] = angle.sin(), angle.cos()
codes = codes.to(device)
rest = [node_bias, alpha]
if mode == "sparse":
    optimizers = [torch.optim.SparseAdam(table.parameters(), lr=1e-3), torch.optim.AdamW(rest, lr=1e-3)]
else:
    every = [*table.parameters(), *rest]
    optimizers = [torch.optim.AdamW(every, lr=1e-3, weight_decay=0.0, fused=True)]


def walk(start):
    """Random walks over edges that exist, [batch, edges + 1]."""
    nodes = [start]
    for _ in range(EDGES):
        nodes.append(torch.multinomial(exists[nodes[-1]].float() + 1e-9, 1)[:, 0])
    return torch.stack(nodes, 1)


def arrive(signal, edges, code):
    """GELU(h W + b + code) along edges: signal [n, d], edges [n, r, d + 1, d] to [n, r, d]."""
    z = (signal[:, None, None] @ edges[..., :D, :])[..., 0, :] + edges[..., D, :]
    return F.gelu(z + code)


def step(nodes, others):
    sources, targets = nodes[:, :-1].flatten(), nodes[:, 1:].flatten()
    rows = row_of[sources[:, None], torch.cat([targets[:, None], others], 1)]
    # One lookup for the whole step: each lookup's gradient has the size of the table.
    edges = table(rows).view(BATCH, EDGES, K + 1, D + 1, D)
    signals, mixed = [], []
    for place in range(EDGES):
        if signals:
            weights = alpha[:place].softmax(0)
            now = (weights[:, None, None] * torch.stack(signals)).sum(0)
        else:
            now = F.gelu(1.0 / D + node_bias[nodes[:, 0]] + codes[0])
        mixed.append(now)
        signals.append(arrive(now, edges[:, place, :1], codes[place + 1])[:, 0])
    mixed = torch.stack(mixed, 1).flatten(0, 1)
    code = codes[1 : EDGES + 1].repeat(BATCH, 1)[:, None]
    energies = arrive(mixed, edges.flatten(0, 1), code).norm(dim=-1)
    loss = F.cross_entropy(energies, torch.zeros(len(energies), dtype=torch.int64, device=device))
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()


times = []
for index in range(WARM_UP + ROUNDS):
    nodes = walk(torch.randint(NODES, (BATCH,))).to(device)
    others = torch.randint(NODES, (BATCH * EDGES, K), device=device)
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step(nodes, others)
    if device == "cuda":
        torch.cuda.synchronize()
    if index >= WARM_UP:
        times.append(time.perf_counter() - start)
middle = statistics.median(times)
peak = f", peak {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB" if device == "cuda" else ""
print(f"signal_step {graph} {device} {mode}: {middle * 1e3:.1f} ms, {BATCH * EDGES / middle:.0f} positions/s{peak}")
