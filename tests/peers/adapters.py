"""Our adapters in Python PEFT, and PEFT's for us.

Needs torch, peft and safetensors:  python tests/peers/adapters.py FOLDER
FOLDER holds arch.json, base.safetensors, ids.safetensors and ours/KIND/ with an adapter of ours and our logits. Each is loaded by
PEFT over the same base in PyTorch; the largest |Δlogit| is printed as JSON. Then PEFT makes an adapter of each kind with
random weights and writes it with its logits to theirs/KIND/.
"""

import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from model import Model

COPIED = ["r", "lora_alpha", "target_modules", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora"]


def main(folder):
    arch = json.loads((folder / "arch.json").read_text())["architecture"]
    weights = load_file(folder / "base.safetensors")
    ids = load_file(folder / "ids.safetensors")["ids"].long()

    def base():
        model = Model(arch).eval()
        model.load_state_dict(weights)
        return model

    plain = base()(ids)
    report = {}
    for ours in sorted((folder / "ours").iterdir()):
        expected = load_file(ours / "logits.safetensors")["logits"]
        logits = PeftModel.from_pretrained(base(), str(ours)).eval()(ids)
        # PEFT only warns when no key matches: an adapter without effect is no adapter.
        assert (logits - plain).abs().max() > 1e-2, f"{ours.name} has no effect"
        report[ours.name] = (logits - expected).abs().max().item()

        config = json.loads((ours / "adapter_config.json").read_text())
        torch.manual_seed(3)
        model = get_peft_model(base(), LoraConfig(**{key: config[key] for key in COPIED})).eval()
        for name, w in model.named_parameters():
            if "lora_B" in name:
                w.data.normal_(0, 0.1)
            if "lora_magnitude_vector" in name:
                w.data.mul_(torch.empty_like(w).uniform_(0.8, 1.2))
        theirs = folder / "theirs" / ours.name
        model.save_pretrained(theirs)
        save_file({"logits": model(ids).contiguous()}, theirs / "logits.safetensors")
    print(json.dumps(report))


if __name__ == "__main__":
    with torch.no_grad():
        main(Path(sys.argv[1]))
