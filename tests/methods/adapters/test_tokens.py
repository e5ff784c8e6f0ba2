"""Rein and Land-MoE: learned tokens that features look up, against their equations."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from adapting import PATCH, WIDTH, adapters, vit
from tiny import SIZES, make_task
from torch import Tensor, nn

from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.methods.adapters.frequency import modulate
from spectral_tl_bench.methods.adapters.land_moe import LandMoe, LandMoeAdapter, imbalance
from spectral_tl_bench.methods.adapters.rein import Rein, ReinAdapter
from spectral_tl_bench.methods.adapters.tokens import LowRankTokens
from spectral_tl_bench.methods.base import VOID
from spectral_tl_bench.methods.losses import segmentation_loss
from spectral_tl_bench.methods.registry import make_method

LENGTH, WIDE = 15, 6


def shaken(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.requires_grad_(False)


def looked_up(f: Tensor, tokens: Tensor, to_features: nn.Linear) -> Tensor:
    """For one patch f (D,): weights over all tokens, of which the first one's is dropped."""
    weights = np.exp((tokens @ f / math.sqrt(len(f))).double().numpy())
    weights /= weights.sum()
    values = tokens @ to_features.weight.T + to_features.bias
    return sum(float(weight) * value for weight, value in zip(weights[1:], values[1:], strict=True))


@pytest.mark.parametrize("batch", [1, 2])
def test_rein_is_its_equation(batch):
    torch.manual_seed(0)
    module = shaken(ReinAdapter(depth=3, width=WIDE, patch=(8, 8), tokens=5, rank=2, scale=0.3))
    given = torch.randn(batch, LENGTH, WIDE)
    for layer in range(3):
        tokens = module.tokens.a[layer] @ module.tokens.b[layer]
        assert tokens.shape == (5, WIDE) and torch.linalg.matrix_rank(tokens) == 2
        expected = torch.stack([
            torch.stack([
                f + module.scale * (
                    module.delta.weight @ (looked_up(f, tokens, module.token_to_feature) + f) + module.delta.bias
                )
                for f in image
            ])
            for image in given
        ])  # fmt: skip
        torch.testing.assert_close(module(given, layer, (3, 5)), expected)


@pytest.mark.parametrize("batch", [1, 2])
def test_land_moe_is_its_equation(batch):
    torch.manual_seed(0)
    module = shaken(
        LandMoeAdapter(depth=2, width=WIDE, patch=(8, 8), tokens=5, ranks=(1, 2, 4), frequencies=3, scale=0.3)
    )
    given = torch.randn(batch, LENGTH, WIDE)
    for layer in range(2):
        expected = torch.zeros_like(given)
        for number, image in enumerate(given):
            gate = module.gates[layer]
            logits = gate.weight @ (sum(image) / LENGTH) + gate.bias
            shares = logits.exp() / logits.exp().sum()
            for place, f in enumerate(image):
                change = torch.zeros(WIDE)
                for share, expert in zip(shares, module.experts, strict=True):
                    found = looked_up(f, expert.a[layer] @ expert.b[layer], module.token_to_feature)
                    change += share * (module.delta.weight @ (found + f) + module.delta.bias)
                expected[number, place] = f + module.scale * change
        expected = modulate(expected, (3, 5), module.filters[layer])
        torch.testing.assert_close(module(given, layer, (3, 5)), expected)


def test_gates_are_those_of_the_image_and_differ_between_images():
    torch.manual_seed(0)
    module = shaken(LandMoeAdapter(depth=1, width=WIDE, patch=(8, 8), tokens=5, ranks=(1, 2), scale=1.0))
    seen = []
    module.gates[0].register_forward_hook(lambda _m, _i, out: seen.append(out))
    module(torch.randn(2, LENGTH, WIDE), 0, (3, 5))
    assert seen[0].shape == (2, 2) and not torch.allclose(seen[0][0], seen[0][1])


def test_the_first_token_only_takes_attention():
    torch.manual_seed(0)
    tokens = LowRankTokens(1, 4, 2, WIDE, (8, 8)).requires_grad_(False)
    features, asked = torch.randn(1, 3, WIDE), []
    found = tokens(features, 0, lambda given: asked.append(given) or given)
    assert torch.equal(asked[0], (tokens.a[0] @ tokens.b[0])[1:])
    tokens.a[0, 0] = -1e4 * tokens.a[0, 0].sign()
    assert not torch.allclose(tokens(features, 0, nn.Identity()), found)


def test_how_tokens_and_scales_start():
    torch.manual_seed(0)
    backbone = Rein(tokens=80, rank=9, scale=0.002).insert(vit(depth=3))
    adapter = backbone.adapter
    reach = math.sqrt(6 / (3 * PATCH * PATCH + math.sqrt(WIDTH * 9)))
    for factor, shape in ((adapter.tokens.a, (3, 80, 9)), (adapter.tokens.b, (3, 9, WIDTH))):
        assert factor.shape == shape
        assert 0.95 * reach < factor.abs().max() <= reach
    assert adapter.scale.item() == pytest.approx(0.002)
    assert {"adapter.token_to_feature.weight", "adapter.delta.weight"} <= set(adapters(backbone)), "once for all blocks"
    assert len(adapters(backbone)) == 2 + 2 + 2 + 1


def test_land_moe_has_an_expert_per_rank():
    backbone = LandMoe(tokens=20, ranks=(2, 3), frequencies=4).insert(vit(depth=3))
    assert [tuple(expert.a.shape) for expert in backbone.adapter.experts] == [(3, 20, 2), (3, 20, 3)]
    assert backbone.adapter.filters.shape == (3, 4, WIDTH) and not backbone.adapter.filters.any()
    assert [gate.out_features for gate in backbone.adapter.gates] == [2] * 3


def test_ranks_can_be_given_as_text():
    assert make_method("land-moe", {"ranks": "2, 6"}).ranks == (2, 6)
    assert make_method("land-moe", {"ranks": "5"}).ranks == (5,)
    for wrong in ("", "2,0", "two"):
        with pytest.raises(MethodError, match="ranks"):
            make_method("land-moe", {"ranks": wrong})


def test_one_token_is_too_few():
    with pytest.raises(ValueError, match="2 or more"):
        LowRankTokens(1, 1, 2, WIDE, (8, 8))


def test_the_balance_of_the_experts_by_hand():
    even, odd = torch.tensor([[0.5, 0.5], [0.5, 0.5]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert imbalance(even).item() == 0 and imbalance(odd).item() == pytest.approx(1.0)
    assert imbalance(torch.tensor([[1.0, 0.0], [0.0, 1.0]])).item() == 0, "over the batch, not image by image"
    # importance 0.9, 0.6, 1.5: mean 1, variance (0.01 + 0.16 + 0.25) / 3
    shares = torch.tensor([[0.2, 0.1, 0.7], [0.3, 0.2, 0.5], [0.4, 0.3, 0.3]])
    assert imbalance(shares).item() == pytest.approx(0.14)


def test_the_loss_of_land_moe_holds_the_mean_balance_of_all_blocks():
    torch.manual_seed(0)
    task, method = make_task(), LandMoe(balance=0.5)
    module = shaken(method.build(task)).requires_grad_(True)
    (stage,) = method.stages(task)
    batch = {"image": torch.randn(3, 4, 32, 32), "mask": torch.randint(0, 3, (3, 32, 32))}
    batch["mask"][:, :4] = VOID
    gates = []
    for gate in module.backbone.adapter.gates:
        gate.register_forward_hook(lambda _m, _i, out: gates.append(out.softmax(dim=-1)))
    module.eval()
    _, extra = stage.outputs(module, batch)
    importances = [one.sum(dim=0) for one in gates]
    assert len(importances) == SIZES["depth"]
    expected = 0.5 * sum(one.var(correction=0) / one.mean() ** 2 for one in importances) / len(importances)
    torch.testing.assert_close(extra, expected)
    assert extra > 0
    torch.testing.assert_close(stage.loss(module, batch), segmentation_loss(module, batch) + expected)
    extra.backward()
    assert all(gate.weight.grad is not None and gate.weight.grad.any() for gate in module.backbone.adapter.gates)
    assert copy.deepcopy(module) is not None, "no gates are left in the module"


def test_without_a_weight_the_loss_is_the_suite_s():
    (stage,) = LandMoe(balance=0).stages(make_task())
    assert stage.loss is None and stage.outputs is None
