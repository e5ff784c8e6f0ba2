"""What the benchmarks compare AoMoA with computes the same."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from spectralx.aomoa import AoMoA

BENCHMARKS = Path(__file__).parents[2] / "profiling"


@pytest.fixture
def dispatch() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import dispatch as module

        yield module
        sys.modules.pop("dispatch", None)


def pair(dispatch: ModuleType, joint: bool, **options: int) -> tuple[AoMoA, nn.Module]:
    torch.manual_seed(0)
    layer = AoMoA(48, 64, gate_std=1.0, balance=True, **options)  # type: ignore[arg-type]
    nn.init.normal_(layer.up.weight, std=0.2)
    nn.init.normal_(layer.gate.noise, std=0.2)
    return layer, dispatch.DispatchedAdapters(layer, joint)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("options", [{}, {"experts": 6, "top_k": 3}, {"top_k": 4}, {"top_k": 1}], ids=str)
def test_the_dispatched_form_equals_ours(dispatch: ModuleType, options: dict[str, int], joint: bool) -> None:
    layer, other = pair(dispatch, joint, **options)
    inputs = [torch.randn(3, 7, 48).requires_grad_()]
    inputs.append(inputs[0].detach().clone().requires_grad_())
    outputs = [module.eval()(x) for module, x in zip((layer, other), inputs, strict=True)]
    torch.testing.assert_close(outputs[1][0], outputs[0][0], atol=1e-5, rtol=1e-5)
    for added, _ in outputs:
        added.square().sum().backward()
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, atol=1e-4, rtol=1e-4)
    for name in ("down.weight", "up.weight", "norm_in.weight", "scale"):
        ours, theirs = layer.get_parameter(name).grad, other.get_parameter(name).grad
        torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)
    if options.get("top_k") != 1:
        torch.testing.assert_close(other.get_parameter("gate").grad, layer.gate.gate.grad, atol=1e-4, rtol=1e-4)
    for expert, gradient in enumerate(layer.experts.fc1_weight.grad):
        torch.testing.assert_close(
            other.get_parameter(f"experts.{expert}.0.weight").grad, gradient, atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_the_balance_loss_is_the_same(dispatch: ModuleType, monkeypatch: pytest.MonkeyPatch, top_k: int) -> None:
    """With the noise at a constant, since both draw theirs in another order."""
    monkeypatch.setattr(torch, "randn_like", lambda like: torch.full_like(like, 0.3))
    layer, other = pair(dispatch, False, top_k=top_k)
    x = torch.randn(3, 7, 48)
    for one, same in zip(layer.train()(x), other.train()(x), strict=True):
        torch.testing.assert_close(same, one, atol=1e-5, rtol=1e-5)


def test_ties_go_to_the_same_experts(dispatch: ModuleType) -> None:
    layer = AoMoA(48, 64, gate_std=0.0).eval()
    nn.init.normal_(layer.up.weight, std=0.2)
    x = torch.randn(3, 7, 48)
    torch.testing.assert_close(dispatch.DispatchedAdapters(layer).eval()(x)[0], layer(x)[0], atol=1e-5, rtol=1e-5)
