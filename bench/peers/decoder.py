"""Trains a small decoder on token ids with the published choices of nanoGPT or of nanochat, in plain PyTorch on the CPU, and
measures it on a whole held-out split as `nerve eval` does: in windows of the context, every token a target once.

    python decoder.py nanogpt|nanochat TRAIN.bin VALID.bin --vocabulary V --steps N [--seed S] [--width 128 --layers 4 --heads 4]
                      [--context 64 --sequences 12] [--rate 1.0] [--threads 2]

TRAIN.bin and VALID.bin are ids of two bytes, as `nerve data export --format u16` writes them. `--rate` multiplies the published
learning rates. `--start` is the id that stands before the text as context. Prints one line of JSON.

nanoGPT: LayerNorm without biases, learned positions, GELU, tied head; AdamW 1e-3, betas 0.9 and 0.99, decay 0.1 on matrices,
warm-up of 100 steps, cosine to a tenth, clip 1. nanochat: norms without gains, also of queries, keys and of the embedding,
rotary positions, squared ReLU, a head of its own, logits capped at 15; Muon for matrices of blocks, AdamW for embedding and
head with rates that fall with the root of the width, betas 0.8 and 0.95, no decay, no warm-up, the last fifth linear to nothing.
"""

import argparse
import json
import math
import time

import numpy
import torch
from torch import nn
from torch.nn import functional as F

arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
arguments.add_argument("style", choices=["nanogpt", "nanochat"])
arguments.add_argument("train")
arguments.add_argument("valid")
arguments.add_argument("--vocabulary", type=int, required=True)
arguments.add_argument("--steps", type=int, required=True)
arguments.add_argument("--start", type=int, default=0)
for name, default in {"seed": 1, "width": 128, "layers": 4, "heads": 4, "context": 64, "sequences": 12, "threads": 2}.items():
    arguments.add_argument(f"--{name}", type=int, default=default)
arguments.add_argument("--rate", type=float, default=1.0)
A = arguments.parse_args()
torch.set_num_threads(A.threads)
torch.manual_seed(A.seed)
WIDTH, D_HEAD = A.width, A.width // A.heads
CHAT = A.style == "nanochat"


def norm(x):
    return F.rms_norm(x, (x.shape[-1],))


def angles():
    half = D_HEAD // 2
    angle = torch.arange(A.context)[:, None] * 10_000.0 ** (-torch.arange(half) / half)
    return angle.cos(), angle.sin()


def turn(x, cos, sin):
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos + second * sin, second * cos - first * sin], -1)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.query_key_value = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.output = nn.Linear(WIDTH, WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = nn.Linear(4 * WIDTH, WIDTH, bias=False)
        self.norms = nn.ModuleList() if CHAT else nn.ModuleList(nn.LayerNorm(WIDTH, bias=False) for _ in range(2))

    def normed(self, x, which):
        return norm(x) if CHAT else self.norms[which](x)

    def forward(self, x, cos, sin):
        batch, seq, _ = x.shape
        heads = self.query_key_value(self.normed(x, 0)).view(batch, seq, 3, A.heads, D_HEAD)
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        if CHAT:
            q, k = norm(turn(q, cos[:seq], sin[:seq])), norm(turn(k, cos[:seq], sin[:seq]))
        found = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.output(found.transpose(1, 2).reshape(batch, seq, WIDTH))
        inner = self.up(self.normed(x, 1))
        return x + self.down(F.relu(inner).square() if CHAT else F.gelu(inner))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(A.vocabulary, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(A.layers))
        self.cos, self.sin = angles()
        if CHAT:
            self.head = nn.Linear(WIDTH, A.vocabulary, bias=False)
        else:
            self.places, self.end = nn.Embedding(A.context, WIDTH), nn.LayerNorm(WIDTH, bias=False)
        for name, weight in self.named_parameters():
            if CHAT and (name == "head.weight" or name.endswith(("output.weight", "down.weight"))):
                nn.init.zeros_(weight)
            elif CHAT and name == "embedding.weight":
                nn.init.normal_(weight)
            elif CHAT:
                out, into = weight.shape
                nn.init.normal_(weight, std=min(1.0, math.sqrt(out / into)) / math.sqrt(into))
            elif name.endswith(("output.weight", "down.weight")):
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * A.layers))
            elif weight.dim() == 2:
                nn.init.normal_(weight, std=0.02)

    def forward(self, tokens):
        h = self.embedding(tokens)
        h = norm(h) if CHAT else h + self.places.weight[: tokens.shape[1]]
        for block in self.blocks:
            h = block(h, self.cos, self.sin)
        if CHAT:
            return 15 * torch.tanh(self.head(norm(h)) / 15)
        return self.end(h) @ self.embedding.weight.T


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum (Jordan et al. 2024)."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr, "momentum": 0.95})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for weight in group["params"]:
                mean = self.state[weight].setdefault("mean", torch.zeros_like(weight))
                mean.lerp_(weight.grad, 1 - group["momentum"])
                update = weight.grad.lerp(mean, group["momentum"])
                tall = update.shape[0] > update.shape[1]
                update = update.T if tall else update
                update = update / (update.norm() + 1e-7)
                for _ in range(5):
                    square = update @ update.T
                    update = 3.4445 * update + (-4.7750 * square + 2.0315 * square @ square) @ update
                update = update.T if tall else update
                weight.add_(update, alpha=-group["lr"] * max(1, weight.shape[0] / weight.shape[1]) ** 0.5)


def optimizers(model):
    if not CHAT:
        decayed = [p for p in model.parameters() if p.dim() > 1]
        rest = [p for p in model.parameters() if p.dim() == 1]
        groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
        return [torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))]
    scale = (WIDTH / 768) ** -0.5
    groups = [
        {"params": model.head.parameters(), "lr": 0.004 * scale},
        {"params": model.embedding.parameters(), "lr": 0.2 * scale},
    ]
    adam = torch.optim.AdamW(groups, betas=(0.8, 0.95), eps=1e-10, weight_decay=0.0)
    return [adam, Muon(model.blocks.parameters(), lr=0.02)]


def share_of_rate(step):
    if CHAT:
        return min(1.0, (A.steps - step) / (0.2 * A.steps))
    if step < 100:
        return (step + 1) / 101
    done = (step - 100) / max(1, A.steps - 100)
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done))


def ids(path):
    return torch.from_numpy(numpy.fromfile(path, dtype="<u2").astype(numpy.int64))


@torch.no_grad()
def held_out(model, tokens):
    """Nats per token: every token is a target once, in windows that do not overlap."""
    inputs = torch.cat([torch.tensor([A.start]), tokens[:-1]])
    total, whole = 0.0, len(tokens) // A.context * A.context
    for begin in range(0, whole, 64 * A.context):
        end = min(whole, begin + 64 * A.context)
        logits = model(inputs[begin:end].view(-1, A.context))
        total += F.cross_entropy(logits.flatten(0, 1), tokens[begin:end], reduction="sum").item()
    if whole < len(tokens):
        logits = model(inputs[whole:][None])
        total += F.cross_entropy(logits[0], tokens[whole:], reduction="sum").item()
    return total / len(tokens)


model, train, valid = Decoder(), ids(A.train), ids(A.valid)
steppers = optimizers(model)
full = [[group["lr"] * A.rate for group in stepper.param_groups] for stepper in steppers]
draw = torch.Generator().manual_seed(A.seed)
seconds = 0.0
for step in range(A.steps):
    began = time.perf_counter()
    begins = torch.randint(len(train) - A.context, (A.sequences,), generator=draw)
    text = torch.stack([train[begin : begin + A.context + 1] for begin in begins])
    loss = F.cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for stepper, rates in zip(steppers, full):
        for group, rate in zip(stepper.param_groups, rates):
            group["lr"] = rate * share_of_rate(step)
            if "momentum" in group:
                group["momentum"] = 0.85 + 0.1 * min(1.0, step / 300)
        stepper.step()
        stepper.zero_grad(set_to_none=True)
    seconds += time.perf_counter() - began
found = {
    "style": A.style,
    "seed": A.seed,
    "parameters": sum(p.numel() for p in model.parameters()),
    "tokens": A.steps * A.sequences * A.context,
    "seconds": round(seconds, 1),
    "nats_per_token": held_out(model, valid),
}
print(json.dumps(found))
