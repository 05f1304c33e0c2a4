"""Writes model_golden.safetensors: small models of every norm, activation and position encoding, and their logits.

An implementation of its own in PyTorch, from the definitions; it shares no code with the crate. Run it with torch and
safetensors installed:  python tests/golden/make_model_golden.py
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

VOCAB, HIDDEN, HEADS, LAYERS, CONTEXT, FFN = 24, 12, 2, 2, 10, 2.5


def rotate(x, theta=10_000.0):
    """Turns the complex numbers (x[i], x[i + d/2]) by position * theta^(-2i/d). x: (batch, heads, seq, d)."""
    seq, d = x.shape[-2:]
    pairs = torch.complex(x[..., : d // 2], x[..., d // 2 :])
    rates = theta ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
    angles = torch.arange(seq, dtype=torch.float64)[:, None] * rates
    turned = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag], dim=-1)


def norm(w, name, x, kind):
    if kind == "layernorm":
        return F.layer_norm(x, (HIDDEN,), w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-5)
    return F.rms_norm(x, (HIDDEN,), w[f"{name}.weight"], eps=1e-5)


def mlp(w, name, x, kind):
    wide = x @ w[f"{name}.fc1.weight"].T
    if kind in ("geglu", "swiglu"):
        gate, up = wide.chunk(2, dim=-1)
        wide = (F.gelu(gate) if kind == "geglu" else F.silu(gate)) * up
    else:
        wide = F.gelu(wide) if kind == "gelu" else F.silu(wide)
    return wide @ w[f"{name}.fc2.weight"].T


def attention(w, name, x, position, causal):
    batch, seq, _ = x.shape
    qkv = (x @ w[f"{name}.qkv.weight"].T).view(batch, seq, 3, HEADS, HIDDEN // HEADS).permute(2, 0, 3, 1, 4)
    q, k, v = qkv
    if position == "rope":
        q, k = rotate(q), rotate(k)
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return mixed.transpose(1, 2).reshape(batch, seq, HIDDEN) @ w[f"{name}.out_proj.weight"].T


def logits(w, arch, ids):
    kind = arch["normalization"]
    x = w["token_embedding.weight"][ids]
    if arch["position_encoding"] == "absolute":
        x = x + w["position_embedding.weight"][: ids.shape[1]]
    for layer in range(LAYERS):
        prefix = f"layers.{layer}"
        seen = norm(w, f"{prefix}.norm1", x, kind)
        x = x + attention(w, f"{prefix}.attn", seen, arch["position_encoding"], arch["attention"] == "causal")
        x = x + mlp(w, f"{prefix}.ffn", norm(w, f"{prefix}.norm2", x, kind), arch["activation"])
    head = w["token_embedding.weight"] if arch["tie_word_embeddings"] else w["lm_head.weight"]
    return norm(w, "norm", x, kind) @ head.T


def weights(arch):
    ffn = round(HIDDEN * FFN)
    shapes = {"token_embedding.weight": (VOCAB, HIDDEN)}
    if not arch["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (VOCAB, HIDDEN)
    if arch["position_encoding"] == "absolute":
        shapes["position_embedding.weight"] = (CONTEXT, HIDDEN)
    norms = ["norm"] + [f"layers.{layer}.norm{i}" for layer in range(LAYERS) for i in (1, 2)]
    for name in norms:
        shapes[f"{name}.weight"] = (HIDDEN,)
        if arch["normalization"] == "layernorm":
            shapes[f"{name}.bias"] = (HIDDEN,)
    for layer in range(LAYERS):
        prefix = f"layers.{layer}"
        shapes[f"{prefix}.attn.qkv.weight"] = (3 * HIDDEN, HIDDEN)
        shapes[f"{prefix}.attn.out_proj.weight"] = (HIDDEN, HIDDEN)
        shapes[f"{prefix}.ffn.fc1.weight"] = (ffn * (2 if "glu" in arch["activation"] else 1), HIDDEN)
        shapes[f"{prefix}.ffn.fc2.weight"] = (HIDDEN, ffn)
    draw = {name: torch.randn(shape) * 0.4 for name, shape in shapes.items()}
    return {name: w + 1 if name.endswith("weight") and "norm" in name else w for name, w in draw.items()}


def main():
    torch.manual_seed(1)
    tensors, cases = {}, {}
    plain = [
        (normalization, activation, position, False, "causal")
        for normalization in ("layernorm", "rmsnorm")
        for activation in ("gelu", "silu", "geglu", "swiglu")
        for position in ("rope", "absolute")
    ]
    for normalization, activation, position, tied, sight in plain + [
        ("rmsnorm", "gelu", "rope", True, "causal"),
        ("layernorm", "gelu", "rope", False, "bidirectional"),
    ]:
        arch = {
            "arch_type": "transformer",
            "num_layers": LAYERS,
            "hidden_dim": HIDDEN,
            "num_heads": HEADS,
            "ffn_multiplier": FFN,
            "normalization": normalization,
            "activation": activation,
            "position_encoding": position,
            "vocab_size": VOCAB,
            "max_seq_length": CONTEXT,
            "tie_word_embeddings": tied,
            "attention": sight,
        }
        case = f"{normalization}-{activation}-{position}-{'tied' if tied else 'untied'}-{sight}"
        w = weights(arch)
        ids = torch.randint(VOCAB, (2, CONTEXT))
        double = {name: tensor.double() for name, tensor in w.items()}
        cases[case] = json.dumps(arch)
        tensors |= {f"{case}/weights/{name}": tensor for name, tensor in w.items()}
        tensors[f"{case}/ids"] = ids
        tensors[f"{case}/logits"] = logits(double, arch, ids).float().contiguous()
    save_file(tensors, Path(__file__).with_name("model_golden.safetensors"), metadata=cases)


if __name__ == "__main__":
    main()
