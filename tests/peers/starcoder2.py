"""Our Hugging Face exports, as `transformers` and PEFT read them.

Needs torch, transformers and peft:  python tests/peers/starcoder2.py FOLDER
FOLDER holds `base/` with its `adapter/`, `merged/`, and expected.json: for each of base, adapted and merged, our prompts
with their token ids, our greedy continuation of each, and our logits of the last position. Prints JSON with the largest
|Δlogit| of each model; fails when a token differs.
"""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer


def load(folder):
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    missing = set(info["missing_keys"]) | set(info["unexpected_keys"])
    assert not missing, f"keys that do not match: {missing}"
    assert type(model).__name__ == "Starcoder2ForCausalLM"
    return model.eval()


def compare(name, model, tokenizer, rows):
    worst = 0.0
    for row in rows:
        ids = tokenizer(row["prompt"])["input_ids"]
        assert ids == row["ids"], f"{name}: {row['prompt']!r} is tokenised as {ids}, ours as {row['ids']}"
        assert tokenizer.decode(ids) == row["prompt"]
        ids = torch.tensor([ids])
        logits = model(input_ids=ids).logits[0, -1]
        worst = max(worst, (logits - torch.tensor(row["logits"])).abs().max().item())
        written = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_length=None, max_new_tokens=row["limit"]
        )
        written = written[0, ids.shape[1] :].tolist()
        assert written == row["tokens"], f"{name}: {row['prompt']!r} continues {written}, ours {row['tokens']}"
    return worst


def main(folder):
    expected = json.loads((folder / "expected.json").read_text())
    models = {
        "base": load(folder / "base"),
        "adapted": PeftModel.from_pretrained(load(folder / "base"), str(folder / "base" / "adapter")).eval(),
        "merged": load(folder / "merged"),
    }
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    print(json.dumps({name: compare(name, models[name], tokenizer, rows) for name, rows in expected.items()}))


if __name__ == "__main__":
    with torch.no_grad():
        main(Path(sys.argv[1]))
