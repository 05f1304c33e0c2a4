"""Our transformer in PyTorch: LayerNorm, GELU, rotary positions; modules are named as the checkpoint's keys."""

import torch
import torch.nn.functional as F
from torch import nn


def rotate(x, theta):
    seq, d = x.shape[-2:]
    pairs = torch.complex(x[..., : d // 2], x[..., d // 2 :])
    angles = torch.arange(seq)[:, None] * theta ** (-torch.arange(0, d, 2) / d)
    turned = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag], dim=-1)


class Attention(nn.Module):
    def __init__(self, hidden, heads, theta):
        super().__init__()
        self.heads, self.theta = heads, theta
        self.qkv = nn.Linear(hidden, 3 * hidden, bias=False)
        self.out_proj = nn.Linear(hidden, hidden, bias=False)

    def forward(self, x):
        batch, seq, hidden = x.shape
        q, k, v = self.qkv(x).view(batch, seq, 3, self.heads, hidden // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(rotate(q, self.theta), rotate(k, self.theta), v, is_causal=True)
        return self.out_proj(mixed.transpose(1, 2).reshape(batch, seq, hidden))


class Mlp(nn.Module):
    def __init__(self, hidden, ffn):
        super().__init__()
        self.fc1 = nn.Linear(hidden, ffn, bias=False)
        self.fc2 = nn.Linear(ffn, hidden, bias=False)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, hidden, heads, ffn, theta):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(hidden), Attention(hidden, heads, theta)
        self.norm2, self.ffn = nn.LayerNorm(hidden), Mlp(hidden, ffn)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class Model(nn.Module):
    """The model of an `arch.json` (its section `architecture`), with a head of its own."""

    def __init__(self, arch):
        super().__init__()
        hidden, ffn = arch["hidden_dim"], round(arch["hidden_dim"] * arch["ffn_multiplier"])
        theta = arch.get("rope_theta", 10_000.0)
        self.token_embedding = nn.Embedding(arch["vocab_size"], hidden)
        self.layers = nn.ModuleList(Block(hidden, arch["num_heads"], ffn, theta) for _ in range(arch["num_layers"]))
        self.norm = nn.LayerNorm(hidden)
        self.lm_head = nn.Linear(hidden, arch["vocab_size"], bias=False)

    def forward(self, ids):
        x = self.token_embedding(ids)
        for layer in self.layers:
            x = layer(x)
        return self.lm_head(self.norm(x))
