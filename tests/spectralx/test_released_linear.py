"""``evaluate`` on the baselines at other sizes than the reference cases, against formulas written down here."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from spectralx.released import evaluate

torch.set_num_threads(1)

State = dict[str, Tensor]


@dataclass
class Case:
    name: str
    state_dict: State
    inputs: State
    config: dict = field(default_factory=dict)


def draw(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def linear_state(inputs: int, outputs: int, rank: int) -> State:
    return draw(
        {
            "linear.weight": (outputs, inputs),
            "linear.bias": (outputs,),
            "down.weight": (rank, inputs),
            "down.bias": (rank,),
            "up.weight": (outputs, rank),
            "up.bias": (outputs,),
        }
    )


@pytest.mark.parametrize(("inputs", "outputs", "rank"), [(8, 24, 3), (24, 8, 1), (16, 16, 20)])
def test_low_rank_linear(inputs, outputs, rank):
    state, x = linear_state(inputs, outputs, rank), torch.randn(2, 5, inputs)

    def low(z: Tensor) -> Tensor:
        inner = z @ state["down.weight"].T + state["down.bias"]
        update = inner @ state["up.weight"].T + state["up.bias"]
        return z @ state["linear.weight"].T + state["linear.bias"] + update

    torch.testing.assert_close(evaluate(Case("lora_linear", state, {"x": x}))["out"], low(x))
    scalers = draw({"in_scaler": (inputs,), "out_scaler": (outputs,)}, seed=1)
    slr = evaluate(Case("slr_linear", state | scalers, {"x": x}))["out"]
    torch.testing.assert_close(slr, scalers["out_scaler"] * low(scalers["in_scaler"] * x))
    for missing in ("down.weight", "up.weight", "in_scaler"):
        broken = {key: value for key, value in (state | scalers).items() if key != missing}
        with pytest.raises(ValueError, match=missing.split(".")[0]):
            evaluate(Case("slr_linear", broken, {"x": x}))


@pytest.mark.parametrize(("bands", "rank", "width", "first", "second"), [(13, 4, 24, 4, 2), (3, 2, 8, 2, 2)])
@pytest.mark.parametrize("family", ["slr", "lora"])
def test_low_rank_convolution(bands, rank, width, first, second, family):
    patch = first * second
    state = draw(
        {
            "proj.weight": (width, bands, patch, patch),
            "proj.bias": (width,),
            "down.weight": (rank, bands, first, first),
            "down.bias": (rank,),
            "up.weight": (width, rank, second, second),
            "up.bias": (width,),
        }
    )
    scaler = torch.ones(width)
    if family == "slr":
        state["scaler"] = scaler = torch.randn(width)
    x = torch.randn(2, bands, 3 * patch, 2 * patch)
    low = F.conv2d(x, state["down.weight"], state["down.bias"], stride=first)
    low = F.conv2d(low, state["up.weight"], state["up.bias"], stride=second)
    expected = (F.conv2d(x, state["proj.weight"], state["proj.bias"], stride=patch) + low) * scaler.view(-1, 1, 1)
    got = evaluate(Case(f"{family}_conv_{bands}", state, {"x": x}))["out"]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("key", ["scaler", "ia3_l", "linear.s"])
def test_ia3(key):
    base = draw({"linear.weight": (12, 8), "linear.bias": (12,)})
    x, before, after = torch.randn(2, 3, 8), torch.randn(8), torch.randn(12)
    w, b = base["linear.weight"], base["linear.bias"]
    got = evaluate(Case("ia3_linear", {**base, key: before}, {"x": x}))["out"]
    torch.testing.assert_close(got, (before * x) @ w.T + b)
    got = evaluate(Case("ia3_linear", {**base, key: after}, {"x": x}))["out"]
    torch.testing.assert_close(got, after * (x @ w.T + b))
    with pytest.raises(ValueError, match="no scaler of 8 or 12"):
        evaluate(Case("ia3_linear", {**base, key: torch.ones(9)}, {"x": x}))
    square = {"linear.weight": torch.randn(8, 8), "linear.bias": torch.randn(8)}
    got = evaluate(Case("ia3_linear", {**square, key: before}, {"x": x}))["out"]
    torch.testing.assert_close(got, (before * x) @ square["linear.weight"].T + square["linear.bias"])


def test_ia3_on_the_patch_convolution():
    base = draw({"proj.weight": (12, 5, 4, 4), "proj.bias": (12,)})
    x = torch.randn(2, 5, 8, 8)
    for size in (5, 12):
        scaler = torch.randn(size)
        before = scaler.view(-1, 1, 1) if size == 5 else torch.ones(1)
        after = scaler.view(-1, 1, 1) if size == 12 else torch.ones(1)
        expected = after * F.conv2d(before * x, base["proj.weight"], base["proj.bias"], stride=4)
        got = evaluate(Case("ia3_conv", {**base, "scaler": scaler}, {"x": x}))["out"]
        torch.testing.assert_close(got, expected)
