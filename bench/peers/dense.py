"""The plain PyTorch equivalent of bench/train_step.rs: forward, backward and AdamW of the baseline, f32 or bf16 by autocast.

    python dense.py SHAPE [cpu|cuda] [f32|bf16] [eager|compile]

SHAPE is a name as our benches print it: d768x12_b1x2048_h12_v32000. Prints milliseconds, the median of rounds after warming up.
"""

import re
import statistics
import sys
import time

import torch
from block import Block
from torch import nn
from torch.nn import functional as F

shape, device, dtype, mode = (sys.argv[1:] + ["cpu", "f32", "eager"][len(sys.argv) - 2 :])[:4]
D_MODEL, N_LAYERS, BATCH, SEQ, N_HEADS, VOCABULARY = (int(n) for n in re.findall(r"\d+", shape))
WARM_UP, ROUNDS = (10, 20) if device == "cuda" else (1, 7)


def turn(x, cos, sin):
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class Layer(Block):
    def forward(self, x, cos, sin):
        q, k, v = self.heads(x)
        q, k = turn(q, cos, sin).to(v.dtype), turn(k, cos, sin).to(v.dtype)
        return self.end(x, F.scaled_dot_product_attention(q, k, v, is_causal=True))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, D_MODEL)
        self.blocks = nn.ModuleList(Layer(D_MODEL, N_HEADS, 4 * D_MODEL) for _ in range(N_LAYERS))
        self.norm = nn.RMSNorm(D_MODEL, eps=1e-6)
        half = D_MODEL // N_HEADS // 2
        angle = torch.arange(SEQ)[:, None] * 10_000.0 ** (-torch.arange(half) / half)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, tokens):
        h = self.embedding(tokens)
        for block in self.blocks:
            h = block(h, self.cos, self.sin)
        return self.norm(h) @ self.embedding.weight.T


torch.manual_seed(1)
if device == "cpu":
    torch.set_num_threads(2)
model = Decoder().to(device)
forward = torch.compile(model) if mode == "compile" else model
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)
tokens = torch.arange(BATCH * SEQ, device=device).mul(7919).remainder(VOCABULARY).view(BATCH, SEQ)
times = []
for index in range(WARM_UP + ROUNDS):
    start = time.perf_counter()
    optimizer.zero_grad()
    with torch.autocast(device, torch.bfloat16, enabled=dtype == "bf16"):
        logits = forward(tokens)
    F.cross_entropy(logits.float().view(-1, VOCABULARY), tokens.view(-1)).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if device == "cuda":
        torch.cuda.synchronize()
    if index >= WARM_UP:
        times.append((time.perf_counter() - start) * 1e3)
middle = statistics.median(times)
peak = f", peak {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB" if device == "cuda" else ""
print(f"train_step {shape} {device} {dtype} {mode}: {middle:.2f} ms, {BATCH * SEQ / middle * 1e3:.0f} tokens/s{peak}")
