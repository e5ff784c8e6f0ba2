from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from spectralx.aomoa import UNUSED, AoMoA, log_sum_exp, plain_exponential, ranks, topk_ranks, variation


def layer(**options: object) -> AoMoA:
    torch.manual_seed(0)
    made = AoMoA(48, 64, gate_std=1.0, **options)  # type: ignore[arg-type]
    torch.nn.init.normal_(made.up.weight, std=0.2)
    return made.eval()


def one_token(made: AoMoA, x: torch.Tensor) -> torch.Tensor:
    """What the layer adds for one token, written out expert by expert."""
    halves = []
    for half, part in enumerate(x.chunk(2)):
        z = made.norm_down(made.down(made.norm_in(part)))
        logits = z @ made.gate.gate[half]
        chosen = sorted(range(len(logits)), key=lambda e: (-float(logits[e].detach()), e))[:2]
        gates = logits[chosen].softmax(0)
        total = torch.zeros_like(z)
        for gate, expert in zip(gates, chosen, strict=True):
            if gate <= 1e-4:
                continue
            e = made.experts
            hidden = functional.relu(e.fc1_weight[expert] @ z + e.fc1_bias[expert])
            total = total + gate * (e.fc2_weight[expert] @ hidden + e.fc2_bias[expert]).exp()
        halves.append(made.up(total.log()))
    return made.scale * torch.cat(halves)


@pytest.mark.parametrize("combine", ["stable", "exponential"])
def test_batched_equals_token_by_token(combine: str) -> None:
    made = layer(combine=combine)
    x = torch.randn(3, 7, 48)
    expected = torch.stack([one_token(made, token) for token in x.flatten(0, 1)]).view(3, 7, 64)
    torch.testing.assert_close(made(x)[0], expected, atol=1e-5, rtol=1e-5)


def test_starts_at_zero() -> None:
    assert not AoMoA(48, 64).train()(torch.randn(2, 3, 48))[0].any()


def test_combinations_agree_where_the_plain_one_is_finite() -> None:
    outputs = torch.randn(4, 50, 8) * 10
    for unused in (-math.inf, UNUSED):
        log_gates = torch.randn(4, 50, 1).masked_fill(torch.rand(4, 50, 1) < 0.5, unused)
        log_gates[0] = -1.0
        torch.testing.assert_close(log_sum_exp(outputs.float() + log_gates), plain_exponential(outputs, log_gates))


def test_nothing_left_is_epsilon_in_the_plain_one() -> None:
    below = plain_exponential(torch.full((2, 3, 8), -200.0), torch.zeros(2, 3, 1))
    torch.testing.assert_close(below, torch.full((3, 8), -52 * math.log(2)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_stable_survives_large_outputs(dtype: torch.dtype) -> None:
    outputs = torch.full((4, 3, 8), 200.0, dtype=dtype, requires_grad=True)
    log_gates = torch.tensor([0.25, 0.75, 0.0, 0.0]).log().view(4, 1, 1).expand(4, 3, 1).clone().requires_grad_()
    joined = log_sum_exp(outputs.float() + log_gates)
    torch.testing.assert_close(joined, torch.full((3, 8), 200.0))
    joined.sum().backward()
    assert outputs.grad is not None and log_gates.grad is not None
    assert outputs.grad.isfinite().all() and log_gates.grad.isfinite().all()
    torch.testing.assert_close(outputs.grad[:, 0, 0].float(), torch.tensor([0.25, 0.75, 0.0, 0.0]))
    assert plain_exponential(outputs.float(), log_gates).isinf().any()


def test_ties_as_declared() -> None:
    logits = torch.zeros(4, 5, 3, 2)
    assert (ranks(logits) == torch.arange(4).view(4, 1, 1, 1)).all()
    chosen = logits.movedim(0, -1).topk(3).indices
    rank = topk_ranks(logits, 3).movedim(0, -1)
    assert (rank.gather(-1, chosen) == torch.arange(3)).all() and (rank.amax(-1) == 4).all()
    different = torch.randn(4, 50)
    assert torch.equal(topk_ranks(different, 4), ranks(different))


def test_gradient_of_the_combination() -> None:
    outputs = torch.randn(4, 5, 3, dtype=torch.float64)
    log_gates = torch.randn(4, 5, 1, dtype=torch.float64).masked_fill(torch.arange(4).view(4, 1, 1) == 2, -math.inf)
    a, b = outputs.float().requires_grad_(), log_gates.float().requires_grad_()
    log_sum_exp(a.float() + b).pow(2).sum().backward()
    c, d = outputs.requires_grad_(), log_gates.requires_grad_()
    (c.exp() * d.exp()).sum(0).log().pow(2).sum().backward()
    torch.testing.assert_close(a.grad.double(), c.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(b.grad.double(), d.grad.nan_to_num(0.0), atol=1e-4, rtol=1e-4)


def test_ties_go_to_the_first_experts() -> None:
    torch.testing.assert_close(ranks(torch.zeros(4, 3)), torch.arange(4)[:, None].expand(4, 3))
    assert ranks(torch.tensor([1.0, 3.0, 3.0, 2.0])).tolist() == [3, 0, 1, 2]
    tied = AoMoA(48, 64, gate_std=0.0).eval()
    gates = tied.trace(torch.randn(2, 3, 48)).gates
    torch.testing.assert_close(gates, torch.tensor([0.5, 0.5, 0.0, 0.0]).expand_as(gates))


def test_gates_use_top_k_and_sum_to_one() -> None:
    made = layer(experts=6, top_k=3)
    gates = made.trace(torch.randn(4, 9, 48)).gates
    assert ((gates > 0).sum(-1) == 3).all()
    torch.testing.assert_close(gates.sum(-1), torch.ones(4, 9, 2))


def test_balance_loss_only_in_training_and_falls_with_balance() -> None:
    x = torch.randn(8, 16, 48)
    lopsided, even = layer(balance=True).train(), layer(balance=True).train()
    with torch.no_grad():
        lopsided.gate.gate.mul_(0)
        even.gate.gate.mul_(0)
        lopsided.norm_down.bias.fill_(1.0)
        lopsided.gate.gate[..., 0] = 1.0
    losses = [made(x)[1] for made in (lopsided, even)]
    assert losses[0] > 4 * losses[1] > 0
    losses[0].backward()
    assert lopsided.gate.gate.grad is not None and lopsided.gate.gate.grad.any()
    assert lopsided.gate.noise.grad is not None and lopsided.gate.noise.grad.any()
    assert even.eval()(x)[1] == 0
    assert layer(balance=False).train()(x)[1] == 0


def test_variation_is_the_squared_coefficient() -> None:
    totals = torch.tensor([[1.0, 2.0, 3.0, 6.0], [5.0, 5.0, 5.0, 5.0]])
    torch.testing.assert_close(variation(totals), torch.tensor([(14 / 3) / 9, 0.0]))
    assert variation(torch.tensor([3.0])) == 0


def test_odd_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        AoMoA(47, 64)
