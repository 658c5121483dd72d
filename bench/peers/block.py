"""The block that both peers are made of."""

from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, d_model, n_heads, d_ff):
        super().__init__()
        self.n_heads = n_heads
        self.first, self.second = nn.RMSNorm(d_model, eps=1e-6), nn.RMSNorm(d_model, eps=1e-6)
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)
        self.gate = nn.Linear(d_model, d_ff, bias=False)
        self.up = nn.Linear(d_model, d_ff, bias=False)
        self.down = nn.Linear(d_ff, d_model, bias=False)

    def heads(self, x):
        """Queries, keys and values, not turned to their positions yet."""
        batch, seq, _ = x.shape
        return self.qkv(self.first(x)).view(batch, seq, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)

    def end(self, x, found):
        """The block's output for tokens with what their attention found."""
        x = x + self.out(found.transpose(1, 2).reshape(x.shape))
        y = self.second(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))
