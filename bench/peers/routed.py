"""The plain PyTorch equivalent of two benches of Nerve: a routed train step, and a text that is continued.

The same shapes as bench/routed.rs and bench/decode.rs: a block before a pool of four, one after it, width 256. A block of the pool
is run on every token wherever any token chose it, and what it makes is kept where it was chosen: what one writes without grouping.
Prints milliseconds, medians of rounds; `compare.sh` runs it in turns with ours.

    python routed.py train_step | decode
"""

import statistics
import sys
import time

import torch
from block import Block
from torch import nn
from torch.nn import functional as F

D_MODEL, N_HEADS, D_FF, D_POSITION = 256, 8, 1024, 16
N_POOL, MAX_STEPS, VOCABULARY = 4, 8, 512
BATCH, SEQ, N_TOKENS = 8, 128, 256
ROUNDS = 5


def rotary(seq):
    half = D_MODEL // N_HEADS // 2
    frequency = 10_000.0 ** (-torch.arange(half) / half)
    angle = torch.arange(seq)[:, None] * frequency
    return angle.cos(), angle.sin()


class Layer(Block):
    def __init__(self):
        super().__init__(D_MODEL, N_HEADS, D_FF)
        self.place = nn.Linear(D_POSITION, D_MODEL, bias=False)

    def forward(self, x, position=None, kept=None):
        if position is not None:
            x = x + self.place(position)
        seq = x.shape[1]
        q, k, v = self.heads(x)
        start = 0 if kept is None or not kept else kept[0].shape[2]
        cos, sin = (part[start:] for part in rotary(start + seq))
        turn = lambda a: torch.cat(
            [a[..., ::2] * cos - a[..., 1::2] * sin, a[..., ::2] * sin + a[..., 1::2] * cos], -1
        )
        q, k = turn(q), turn(k)
        if kept is not None:
            if kept:
                k, v = torch.cat([kept[0], k], 2), torch.cat([kept[1], v], 2)
            kept[:] = [k, v]
        found = F.scaled_dot_product_attention(q, k, v, is_causal=start == 0 and seq > 1)
        return self.end(x, found)


class Routed(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, D_MODEL)
        self.pre, self.post = Layer(), Layer()
        self.pool = nn.ModuleList(Layer() for _ in range(N_POOL))
        self.positions = nn.Parameter(torch.randn(N_POOL, D_POSITION))
        self.start = nn.Parameter(torch.randn(D_POSITION))
        self.router = nn.Sequential(
            nn.Linear(D_MODEL + D_POSITION, D_MODEL), nn.SiLU(), nn.Linear(D_MODEL, N_POOL)
        )
        self.exit = nn.Linear(D_MODEL, D_MODEL, bias=False)
        self.norm = nn.RMSNorm(D_MODEL, eps=1e-6)

    def forward(self, tokens):
        h = self.pre(self.embedding(tokens))
        position = self.start.expand(*h.shape[:2], D_POSITION)
        for _ in range(MAX_STEPS):
            logits = self.router(torch.cat([h, position], -1))
            # Drawn, so that neighbours go to different blocks, as in ours.
            chosen = torch.distributions.Categorical(logits=logits.detach()).sample()
            gate = logits.softmax(-1).gather(-1, chosen[..., None])
            after = h
            for index, block in enumerate(self.pool):
                mask = chosen == index
                if mask.any():
                    after = torch.where(mask[..., None], block(h, position), after)
            h = after + (after - h).detach() * (gate - gate.detach())
            position = F.normalize(self.positions[chosen], dim=-1)
        h = self.post(h + self.exit(h))
        return self.norm(h) @ self.embedding.weight.T


class Baseline(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, D_MODEL)
        self.blocks = nn.ModuleList(Layer() for _ in range(2 + MAX_STEPS))
        self.norm = nn.RMSNorm(D_MODEL, eps=1e-6)

    def forward(self, tokens, kept=None):
        h = self.embedding(tokens)
        for index, block in enumerate(self.blocks):
            h = block(h, kept=None if kept is None else kept[index])
        return self.norm(h) @ self.embedding.weight.T


def timed(name, run, rounds=ROUNDS):
    times = []
    for index in range(rounds + 1):
        start = time.perf_counter()
        run()
        # The first round warms up.
        if index:
            times.append((time.perf_counter() - start) * 1e3)
    print(f"{name}: {statistics.median(times):.1f} ms", flush=True)


def train_step():
    model = Routed()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-9, betas=(0.9, 0.95), weight_decay=0.1)
    tokens = torch.arange(BATCH * SEQ).mul(7919).remainder(VOCABULARY).view(BATCH, SEQ)

    def run():
        optimizer.zero_grad()
        F.cross_entropy(model(tokens).view(-1, VOCABULARY), tokens.view(-1)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    timed(f"train_step of {MAX_STEPS} masked steps", run)


@torch.no_grad()
def decode():
    routed, baseline = Routed(), Baseline()

    def anew(model):
        seen = torch.ones(1, 1, dtype=torch.long)
        while seen.shape[1] < N_TOKENS + 1:
            following = model(seen[:, -N_TOKENS:])[:, -1].argmax(-1, keepdim=True)
            seen = torch.cat([seen, following], 1)

    def kept():
        cache = [[] for _ in baseline.blocks]
        token = torch.ones(1, 1, dtype=torch.long)
        for _ in range(N_TOKENS):
            token = baseline(token, cache)[:, -1:].argmax(-1)

    timed("decode baseline/kept", kept, 3)
    timed("decode baseline/anew", lambda: anew(baseline), 1)
    timed("decode routed/anew", lambda: anew(routed), 1)


torch.manual_seed(1)
torch.set_num_threads(2)
{"train_step": train_step, "decode": decode}[sys.argv[1]]()
