"""Writes starcoder2_golden/: a small Starcoder2 of the transformers library in its own folder layout, and its logits.

Run it with torch, transformers and safetensors installed:  python tests/golden/make_starcoder2_golden.py
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import Starcoder2Config, Starcoder2ForCausalLM

FOLDER = Path(__file__).parent / "starcoder2_golden"


def main():
    torch.manual_seed(1)
    config = Starcoder2Config(
        vocab_size=300, hidden_size=16, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, hidden_act="gelu", max_position_embeddings=64, norm_epsilon=1e-5, use_bias=False,
        sliding_window=None, rope_theta=10_000.0, tie_word_embeddings=False, attention_dropout=0.0,
        residual_dropout=0.0, embedding_dropout=0.0,
    )
    model = Starcoder2ForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # Far from the initial values: norms that are all ones would hide a swapped norm.
            weight.copy_(torch.randn_like(weight) * 0.2 + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
    shutil.rmtree(FOLDER, ignore_errors=True)
    model.save_pretrained(FOLDER, max_shard_size="20KB")
    (FOLDER / "generation_config.json").unlink(missing_ok=True)
    ids = torch.randint(0, 300, (2, 12))
    with torch.no_grad():
        logits = model(ids).logits
    save_file({"ids": ids.to(torch.int64), "logits": logits.float()}, FOLDER / "golden.safetensors")
    print(json.dumps(sorted(p.name for p in FOLDER.iterdir())))


main()
