"""Writes lora_golden/: a small base, PEFT adapters on it, their gradients and the losses of ten training steps.

Needs torch, peft and safetensors:  python tests/golden/make_lora_golden.py
The base is tests/peers/model.py, whose modules are named as the checkpoint's keys; the adapters, their gradients and their
files are PEFT's own.
"""

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

sys.path.append(str(Path(__file__).parents[1] / "peers"))
from model import Model

VOCAB, HIDDEN, HEADS, LAYERS, CONTEXT = 24, 16, 2, 2, 10
ARCH = {
    "arch_type": "transformer",
    "num_layers": LAYERS,
    "hidden_dim": HIDDEN,
    "num_heads": HEADS,
    "ffn_multiplier": 3.0,
    "normalization": "layernorm",
    "activation": "gelu",
    "position_encoding": "rope",
    "vocab_size": VOCAB,
    "max_seq_length": CONTEXT,
}
KINDS = {
    "plain": dict(r=4, lora_alpha=8, target_modules=["qkv", "out_proj"]),
    "rslora": dict(r=4, lora_alpha=8, target_modules=["qkv", "fc1", "fc2"], use_rslora=True),
    "dora": dict(r=2, lora_alpha=4, target_modules=["qkv", "out_proj", "fc1", "fc2"], use_dora=True),
    "pattern": dict(
        r=4, lora_alpha=8, target_modules=["qkv", "fc2"], rank_pattern={"fc2": 2}, alpha_pattern={"fc2": 6}
    ),
}


def main():
    folder = Path(__file__).with_name("lora_golden")
    folder.mkdir(exist_ok=True)
    torch.manual_seed(2)
    state = {name: torch.randn_like(w) * 0.3 + ("norm" in name and "weight" in name) for name, w in Model(ARCH).state_dict().items()}
    # The checkpoint as the earlier attempt saved it, to test the reader on a real pickle.
    torch.save({"model_state_dict": state, "optimizer_state_dict": {}, "step": 7, "val_loss": 1.25}, folder / "base.pt")
    (folder / "arch.json").write_text(json.dumps({"architecture": ARCH}, indent=1) + "\n")
    ids = torch.randint(VOCAB, (3, CONTEXT))
    for kind, settings in KINDS.items():
        model = Model(ARCH)
        model.load_state_dict(state)
        model = get_peft_model(model, LoraConfig(lora_dropout=0.0, **settings))
        for name, w in model.named_parameters():
            if "lora_B" in name:
                w.data.normal_(0, 0.2)
        model.save_pretrained(folder / kind)
        (folder / kind / "README.md").unlink(missing_ok=True)
        config = json.loads((folder / kind / "adapter_config.json").read_text())
        config["target_modules"].sort()  # PEFT keeps a set: its order changes from run to run
        (folder / kind / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
        trained = [p for p in model.parameters() if p.requires_grad]
        # Matrices decay, DoRA's magnitudes do not: their scale carries meaning.
        groups = [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": 0.01},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=1e-2)
        golden, losses = {"ids": ids, "logits": model(ids).detach()}, []
        for step in range(10):
            loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten(), label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            if step == 0:
                for name, w in model.named_parameters():
                    if w.requires_grad:
                        key = name.replace(".default", "").replace("lora_magnitude_vector.weight", "lora_magnitude_vector")
                        golden[f"gradient/{key}"] = w.grad.clone()
            losses.append(loss.item())
            optimizer.step()
        golden["losses"] = torch.tensor(losses)
        save_file({name: tensor.contiguous() for name, tensor in golden.items()}, folder / kind / "golden.safetensors")


if __name__ == "__main__":
    main()
