"""Writes muon_golden.safetensors: two matrices, five gradients each, and what PyTorch's own Muon makes of them.

Needs torch 2.9 or newer and safetensors:  python tests/golden/make_muon_golden.py
PyTorch orthogonalises in bf16; here it is kept from that, so that its weights are known to f32.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

STEPS = 5
torch.Tensor.bfloat16 = torch.Tensor.float
torch.manual_seed(7)
tensors = {}
for name, shape in [("wide", (12, 20)), ("tall", (20, 12))]:
    weight = torch.nn.Parameter(torch.randn(shape) * 0.1)
    tensors[f"{name}.start"] = weight.detach().clone()
    optimizer = torch.optim.Muon(
        [weight], lr=0.02, weight_decay=0.1, momentum=0.95, nesterov=True, adjust_lr_fn="match_rms_adamw"
    )
    for step in range(STEPS):
        weight.grad = torch.randn(shape) * 10.0 ** (step - 2)
        tensors[f"{name}.gradient{step}"] = weight.grad.clone()
        optimizer.step()
    tensors[f"{name}.end"] = weight.detach().clone()
save_file(tensors, Path(__file__).parent / "muon_golden.safetensors")
