"""Half precision and large values: finite in forward and backward pass, and close to single precision.

On the CPU, autocast runs linear layers, convolutions and attention in the low precision and keeps normalisation and
softmax, as far as they are asked for, in single precision. The same code runs on a GPU, with other kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spectralx import SpectralX
from spectralx.aomoa import AoMoA, log_sum_exp, plain_exponential
from spectralx.are_adapter import AreAdapter
from spectralx.attention import BatchNorm2d, CrossAttention
from spectralx.hyper_tokenizer import Attributes

Make = Callable[..., SpectralX]
Shake = Callable[[nn.Module], None]

HALVES = [torch.bfloat16, torch.float16]
STEP = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
"""Largest relative error of rounding to a precision."""


def distance(close: Tensor, exact: Tensor) -> float:
    """Root mean square error, relative to the root mean square of the exact values."""
    error = (close.detach().float() - exact.detach().float()).square().mean().sqrt()
    return float(error / exact.detach().float().square().mean().sqrt())


def run_stage(model: SpectralX, stage: str, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of a stage, and what it was computed from."""
    torch.manual_seed(7)  # of the gate noise and the dropout
    if stage == "reconstruct":
        loss = model.forward_reconstruction(images, torch.Generator().manual_seed(3))
        return loss, loss
    logits, balance = model.segment(images)
    return functional.cross_entropy(logits.float(), target) + balance, logits


@pytest.mark.parametrize("scale", [1.0, 1e3])
@pytest.mark.parametrize("stage", ["reconstruct", "segment"])
@pytest.mark.parametrize("matching", ["soft", "hard"])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_both_stages_are_finite(
    make: Make, shake: Shake, dtype: torch.dtype, matching: str, stage: str, scale: float
) -> None:
    model, images = make(depth=2, matching=matching), scale * torch.randn(2, 5, 32, 32)
    shake(model)
    target = torch.randint(0, 5, (2, 32, 32))
    with torch.autocast("cpu", dtype):
        loss, output = run_stage(model, stage, images, target)
    loss.backward()
    assert loss.isfinite() and output.isfinite().all()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert len(gradients) > 100
    assert [name for name, gradient in gradients.items() if not gradient.isfinite().all()] == []


@pytest.mark.parametrize("scale", [1.0, 1e3])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_logits_are_close_to_single_precision(make: Make, shake: Shake, dtype: torch.dtype, scale: float) -> None:
    """Soft matching and no ties: a token at a tie between two experts may go to another one in half precision.

    Rounding errors of some twenty layers add up like noise, to one or two rounding steps as measured, not to twenty.
    """
    model, images = make(depth=2, top_k=4).eval(), scale * torch.randn(4, 5, 32, 32)
    shake(model)
    exact = model(images)
    with torch.autocast("cpu", dtype):
        close = model(images)
    assert 0 < distance(close, exact) < 5 * STEP[dtype]


def experts_at(level: float, combine: str = "stable") -> AoMoA:
    """A layer whose experts put out about ``level``, each a little more than the last."""
    torch.manual_seed(0)
    layer = AoMoA(48, 64, gate_std=1.0, combine=combine, balance=True)  # type: ignore[arg-type]
    nn.init.normal_(layer.up.weight, std=0.2)
    with torch.no_grad():
        layer.experts.fc2_bias.add_(level * torch.linspace(1.0, 1.01, 4)[:, None])
    return layer


@pytest.mark.parametrize("level", [1e2, 1e3, 1e4])
@pytest.mark.parametrize("dtype", [None, *HALVES], ids=str)
def test_large_expert_outputs(dtype: torch.dtype | None, level: float) -> None:
    layer, x = experts_at(level), torch.randn(2, 9, 48)
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        added, balance = layer(x)
        combined = layer.eval().trace(x).combined
    # A mean of outputs rather than of squares: 1e4 times 18 tokens times an output would be beyond float16 itself.
    (added.float().mean() + balance).backward()
    assert added.isfinite().all() and balance.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    assert combined.min() > 0.9 * level
    assert distance(combined, layer.trace(x).combined) <= (2 * STEP[dtype] if dtype else 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
def test_stable_combination_is_exact_at_any_level(dtype: torch.dtype) -> None:
    """Against double precision; rounding of the inputs aside, which is the same for both."""
    torch.manual_seed(0)
    log_gates = torch.randn(4, 64, 1).log_softmax(dim=0)
    for level in (-1e4, -1e2, 0.0, 1e2, 1e4):
        outputs = (level + torch.randn(4, 64, 8)).to(dtype)
        exact = (outputs.double() + log_gates.double()).logsumexp(dim=0)
        error = (log_sum_exp(outputs.float() + log_gates).double() - exact).abs().max()
        assert error <= 4 * 2.0**-24 * max(10.0, abs(level)), level


def test_the_plain_formula_overflows_above_88_and_agrees_below() -> None:
    limit = math.log(torch.finfo(torch.float32).max)
    outputs = torch.linspace(-80.0, limit - 1, 200).view(1, -1, 1).expand(2, -1, 3) + torch.randn(2, 200, 3)
    outputs = outputs.clamp(max=limit - 0.5)
    log_gates = torch.tensor([0.3, 0.7]).log().view(2, 1, 1).expand(2, 200, 1)
    torch.testing.assert_close(plain_exponential(outputs, log_gates), log_sum_exp(outputs.float() + log_gates))
    above = torch.full((2, 1, 3), limit + 1)
    assert plain_exponential(above, log_gates[:, :1]).isinf().all()
    torch.testing.assert_close(log_sum_exp(above.float() + log_gates[:, :1]), above[0])
    below = torch.full((2, 1, 3), -200.0)  # the plain sum is an exact zero, which becomes epsilon
    torch.testing.assert_close(plain_exponential(below, log_gates[:, :1]).exp(), torch.full((1, 3), 2.0**-52))
    torch.testing.assert_close(log_sum_exp(below.float() + log_gates[:, :1]), below[0])


def test_the_layer_overflows_in_the_release_only() -> None:
    x = torch.randn(2, 9, 48)
    assert experts_at(60.0, "exponential").eval()(x)[0].isfinite().all()
    torch.testing.assert_close(
        experts_at(60.0, "exponential").eval()(x)[0], experts_at(60.0).eval()(x)[0], atol=1e-4, rtol=1e-4
    )
    assert not experts_at(100.0, "exponential").eval()(x)[0].isfinite().all()
    assert experts_at(100.0).eval()(x)[0].isfinite().all()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_attention_weights_are_single_precision_and_sum_to_one(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    module = CrossAttention(24, 16)
    with torch.no_grad():  # similarities in the hundreds
        module.to_q.weight.mul_(30)
        module.to_kv.weight.mul_(30)
    latents, media = 1e3 * torch.randn(2, 9, 16), 1e3 * torch.randn(2, 2000, 24)
    with torch.autocast("cpu", dtype):
        weights = module.log_weights(latents, module.keys_values(media)[0])
        mixed = module(latents, media)
    assert weights.dtype == torch.float32 and weights.isfinite().all()
    assert weights.min() < -100  # which exp() could not represent, and its logarithm not take back
    torch.testing.assert_close(weights.exp().sum(-1), torch.ones(2, 9), atol=1e-4, rtol=0)
    assert mixed.isfinite().all()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_matching_of_large_features(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    module = AreAdapter(32, 24, 3, "soft", temperature=0.1)
    tokens = (100 * torch.randn(2, 9, 32)).requires_grad_()
    attributes = Attributes(1e3 * torch.randn(2, 36, 24), 1e3 * torch.randn(2, 24, 36))
    with torch.autocast("cpu", dtype):
        refined = module(tokens, module.media(attributes))
    refined.float().square().mean().backward()
    assert refined.isfinite().all()
    assert tokens.grad is not None and tokens.grad.isfinite().all()
    gradients = {name: p.grad for name, p in module.named_parameters()}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
def test_batch_norm_takes_large_inputs(dtype: torch.dtype) -> None:
    """Squares of values above 256 overflow in float16; statistics must not."""
    norm, x = BatchNorm2d(3), torch.randn(4, 3, 8, 8)
    large = (1e4 + 1e3 * x).to(dtype)
    with torch.autocast("cpu", torch.bfloat16 if dtype is torch.float32 else dtype, enabled=dtype != torch.float32):
        normalised = norm(large)
    assert norm.running_mean is not None and norm.running_var is not None
    assert normalised.isfinite().all() and norm.running_var.isfinite().all()
    assert norm.running_mean.mean() > 900 and norm.running_var.mean() > 9e4
    assert distance(normalised, BatchNorm2d(3)(large.float())) < 8 * STEP.get(dtype, 2.0**-12)
