"""The workloads of `codelora bench-speed` in PyTorch, PEFT and transformers, on the inputs that it exported.

    python torch_peer.py lora-step --inputs DIR [--base DIR] [--repeat 3] [--threads 2] [--compile]

Prints one JSON object: the rate of each repeat in tokens per second, and the most memory the process held in MiB. Our architecture
is `Starcoder2ForCausalLM` without biases, so the peer is the stock model with its fused attention; the optimizer is PyTorch's
fused AdamW; attention needs no mask, since padding stands on the right.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, Starcoder2Config, Starcoder2ForCausalLM


def fresh(arch):
    """The model of an architecture with random weights."""
    hidden = arch["hidden_dim"]
    config = Starcoder2Config(
        vocab_size=arch["vocab_size"], hidden_size=hidden, num_hidden_layers=arch["num_layers"],
        intermediate_size=round(hidden * arch["ffn_multiplier"]), num_attention_heads=arch["num_heads"],
        num_key_value_heads=arch["num_heads"], max_position_embeddings=arch["max_seq_length"], use_bias=False,
        hidden_act="gelu", norm_epsilon=1e-5, tie_word_embeddings=arch.get("tie_word_embeddings", False),
        sliding_window=None, attention_dropout=arch["attention_dropout"], residual_dropout=arch["residual_dropout"],
        embedding_dropout=0.0, bos_token_id=0, eos_token_id=0, use_cache=False,
    )
    return Starcoder2ForCausalLM(config).train()


def tensors(batch, device="cpu"):
    ids = torch.tensor(batch["ids"]).view(batch["rows"], batch["seq"])
    return ids.to(device), torch.tensor(batch["supervised"]).to(device), torch.tensor(batch["targets"]).to(device)


def trainer(model):
    """One step as our loop takes it: loss on supervised positions, gradients clipped to norm 1, AdamW."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def step(ids, supervised, targets):
        logits = model(input_ids=ids).logits.flatten(0, 1)
        F.cross_entropy(logits[supervised], targets).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def cuda_trainer(model):
    """The same step on a CUDA device: bf16 products over f32 weights, every position supervised."""
    trained = list(model.parameters())
    optimizer = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def step(ids, _, targets):
        with torch.autocast("cuda", dtype=torch.bfloat16):
            logits = model(input_ids=ids).logits.flatten(0, 1)
        F.cross_entropy(logits.float(), targets).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def cuda_training(options):
    """Fifty steps a repeat, as `codelora bench-speed --only full-step-cuda` takes them."""
    inputs = json.loads((options.inputs / "full.json").read_text())
    model = fresh(inputs["arch_29m"]).cuda()
    if options.compile:
        model = torch.compile(model)
    step, batch = cuda_trainer(model), tensors(inputs["batch_cuda"], "cuda")

    def work():
        for _ in range(50):
            step(*batch)
        torch.cuda.synchronize()
        return 50 * inputs["batch_cuda"]["real"]

    work()
    return work


def lora(options):
    from peft import LoraConfig, get_peft_model

    inputs = json.loads((options.inputs / "lora.json").read_text())
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]  # our joint projection and its output
    config = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.05, target_modules=targets)
    model = get_peft_model(fresh(inputs["arch"]), config)
    batches = [tensors(batch) for batch in inputs["batches"]]
    real = sum(batch["real"] for batch in inputs["batches"])
    return model, batches, real


def full(options, arch):
    inputs = json.loads((options.inputs / "full.json").read_text())
    return fresh(inputs[arch]), [tensors(inputs["batch"])], inputs["batch"]["real"]


def training(options):
    makers = {
        "lora-step": lora,
        "full-step-29m": lambda o: full(o, "arch_29m"),
        "full-step-small": lambda o: full(o, "arch_small"),
    }
    model, batches, real = makers[options.workload](options)
    if options.compile:
        model = torch.compile(model)
    step = trainer(model)

    def work():
        for batch in batches:
            step(*batch)
        return real

    # Compilation happens at each shape's first step; eager code needs one to allocate.
    if options.compile:
        work()
    else:
        step(*batches[0])
    return work


def writing(options):
    inputs = json.loads((options.inputs / "prompts.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(options.base, dtype=torch.float32).eval()
    eos = inputs["eos"]

    def written(rows, prompt):
        """Tokens after the prompt, the end-of-sequence token included."""
        total = 0
        for row in rows[:, prompt:].tolist():
            total += row.index(eos) + 1 if eos in row else len(row)
        return total

    def work():
        total = 0
        with torch.inference_mode():
            if options.workload == "decode":
                for ids in inputs["ids"]:
                    rows = model.generate(torch.tensor([ids]), max_new_tokens=100, do_sample=False, pad_token_id=eos,
                                          eos_token_id=eos, use_cache=True)
                    total += written(rows, len(ids))
                return total
            # Four prompts, padded on the left, by 20 samples: batches about as wide as ours.
            for first in range(0, len(inputs["ids"]), 4):
                prompts = inputs["ids"][first:first + 4]
                width = max(map(len, prompts))
                padded = torch.tensor([[eos] * (width - len(ids)) + ids for ids in prompts])
                mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
                rows = model.generate(padded, attention_mask=mask, max_new_tokens=100, do_sample=True, temperature=0.8,
                                      top_k=0, num_return_sequences=20, pad_token_id=eos, eos_token_id=eos,
                                      use_cache=True)
                total += written(rows, width)
        return total

    return work


def main():
    parser = argparse.ArgumentParser()
    names = ["lora-step", "full-step-29m", "full-step-small", "full-step-cuda", "sampling", "decode"]
    parser.add_argument("workload", choices=names)
    parser.add_argument("--inputs", type=Path, required=True)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(17)
    makers = {"sampling": writing, "decode": writing, "full-step-cuda": cuda_training}
    work = makers.get(options.workload, training)(options)
    rates = []
    for _ in range(options.repeat):
        begun = time.perf_counter()
        amount = work()
        rates.append(amount / (time.perf_counter() - begun))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if options.workload == "full-step-cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    print(json.dumps({"rates": rates, "peak_mib": round(peak), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
