#!/usr/bin/env bash
# On a CPU with avx512_bf16, bitsandbytes' Linear4bit trains no more once it has evaluated.
#
# bitsandbytes 0.50.2 with torch 2.13.0: the first pass in eval mode of an input without a gradient repacks the layer's
# weight in place. After train() is called again, the layer stays so:
#   before  weight (2048, 1), the input's gradient has norm 105.6
#   after   weight (64, 32), outputs differ by 0.056, the input's gradient is None
# torch warns of a kernel without autograd, once; nothing is raised. What lies under the layer, as the adapters of a
# QLoRA policy that is evaluated between training steps, gets no gradient through it.
# With layer.support_avx512bf16_for_cpu = False both are the same. Other CPUs have no such path: nothing to see there.
set -euo pipefail
if ! grep -q avx512_bf16 /proc/cpuinfo; then
    echo "this CPU has no avx512_bf16, so that bitsandbytes has not the path in question"
    exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check bitsandbytes==0.50.2
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import bitsandbytes as bnb
import torch


def layer(shortcut: bool) -> bnb.nn.Linear4bit:
    torch.manual_seed(0)
    made = bnb.nn.Linear4bit(64, 64, bias=False, compute_dtype=torch.float32, quant_type="nf4")
    made.load_state_dict({"weight": torch.randn(64, 64)})
    if not shortcut:
        made.support_avx512bf16_for_cpu = False
    return made.to("cpu")


def trained(made):
    inputs = torch.linspace(-1, 1, 128).reshape(2, 64).requires_grad_()
    outputs = made.train()(inputs)
    outputs.sum().backward()
    return outputs.detach(), inputs.grad, tuple(made.weight.shape)


for shortcut in (True, False):
    made = layer(shortcut)
    before, gradient, shape = trained(made)
    with torch.no_grad():
        made.eval()(torch.ones(2, 64))
    after, lost, shape_after = trained(made)
    apart = (after - before).abs().max().item()
    print(f"shortcut {shortcut}: {shape} -> {shape_after}, outputs apart {apart:.3g}, "
          f"gradient {gradient.norm():.4g} -> {None if lost is None else f'{lost.norm():.4g}'}")
    assert (lost is None) is shortcut and (apart > 0) is shortcut, "this has changed"
PYTHON
