"""AoMoA: attribute-oriented mixture of adapters beside a frozen linear layer (SpectralX, ISPRS J. 239, 2026).

All experts are computed for all tokens in a few batched products: they are so thin that sending tokens to
experts would cost more than it saves, and nothing has to wait for the device.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

SMALLEST_GATE = 1e-4
"""Gates up to this count as zero when outputs are combined (but not in the balance loss)."""

NOISE_FLOOR = 0.1
"""Smallest standard deviation of the gate noise in training."""

UNUSED = -1e30
"""Logarithm of the gate of an expert that is not used: minus infinity, but a product with zero is still zero."""

Combine = Literal["stable", "exponential"]
Ties = Literal["first", "topk"]
Start = Literal["zero", "xavier"]


class Routing(NamedTuple):
    """Where tokens go.

    Attributes:
        log_gates: Logarithm of the gates, (E, B, N, 2); minus infinity where an expert is not used.
        balance: Scalar balance loss of these tokens; zero outside training.
    """

    log_gates: Tensor
    balance: Tensor


class Trace(NamedTuple):
    """Intermediate results of a layer: gates (B, N, 2, E), combined (B, N, 2, R) and raised (B, N, 2, out / 2)."""

    gates: Tensor
    combined: Tensor
    raised: Tensor


class Gate(nn.Module):
    """Noisy top-k gate with separate weights for the spatial and the spectral half (Shazeer et al., ICLR 2017).

    Works in single precision also under autocast.

    Args:
        width: Width R of what the gate looks at.
        experts: Number of experts E.
        top_k: Experts per token.
        std: Standard deviation of the gate weights at the start; with 0 all experts tie in evaluation mode.
        ties: Which of equal experts a token gets: ``first`` the one with the lower index, on every device; ``topk``
            what ``torch.topk`` returns, as in the release (on a CPU the last two of four).
    """

    def __init__(self, width: int, experts: int, top_k: int, std: float, ties: Ties = "first") -> None:
        super().__init__()
        self.top_k, self.ties = top_k, ties
        self.gate = nn.Parameter(torch.randn(2, width, experts) * std)
        self.noise = nn.Parameter(torch.zeros(2, width, experts))

    def forward(self, z: Tensor, balance: bool) -> Routing:
        """Routes z (B, N, 2, R); computes the balance loss if asked to, and in training only."""
        with torch.autocast(z.device.type, enabled=False):
            z = z.float()
            if not self.training:
                clean = self._project(z, self.gate)
                return Routing(self._log_gates(clean, self._ranks(clean)), clean.new_zeros(()))
            clean, spread = self._project(z, torch.cat([self.gate, self.noise], dim=-1)).chunk(2)
            spread = functional.softplus(spread) + NOISE_FLOOR
            noisy = clean + torch.randn_like(clean) * spread
            rank = self._ranks(noisy)
            log_gates = self._log_gates(noisy, rank)
            if not balance:
                return Routing(log_gates, clean.new_zeros(()))
            importance = log_gates.exp().sum(dim=(1, 2))
            load = self._load(clean, noisy, spread, rank).sum(dim=(1, 2))
            return Routing(log_gates, variation(importance.T).sum() + variation(load.T).sum())

    def _project(self, z: Tensor, weights: Tensor) -> Tensor:
        """(B, N, 2, R) by (2, R, M) to (M, B, N, 2): with experts in front, all that follows runs along memory."""
        product = torch.stack([half @ own for half, own in zip(z.unbind(-2), weights.float(), strict=True)], dim=-1)
        return product.movedim(-2, 0).contiguous()

    def _ranks(self, logits: Tensor) -> Tensor:
        # One more than needed, as the release asks for: that decides which of equal ones torch.topk puts first.
        return ranks(logits) if self.ties == "first" else topk_ranks(logits, self.top_k + 1)

    def _log_gates(self, logits: Tensor, rank: Tensor) -> Tensor:
        return logits.masked_fill(rank >= self.top_k, -math.inf).log_softmax(dim=0)

    def _load(self, clean: Tensor, noisy: Tensor, spread: Tensor, rank: Tensor) -> Tensor:
        """Probability that an expert is among the first k if its own noise is drawn again: a load with a gradient."""
        if self.top_k == len(clean):
            return torch.ones_like(clean)
        last_in, first_out = (
            noisy.masked_fill(rank != place, 0.0).sum(dim=0) for place in (self.top_k - 1, self.top_k)
        )
        threshold = torch.where(rank < self.top_k, first_out, last_in)
        return torch.special.ndtr((clean - threshold) / spread)


class Experts(nn.Module):
    """E bottleneck networks R -> hidden -> R with ReLU, their weights stacked.

    Args:
        experts: Number of experts E.
        width: Width R.
        hidden: Hidden width.
    """

    def __init__(self, experts: int, width: int, hidden: int) -> None:
        super().__init__()
        inner, outer = width**-0.5, hidden**-0.5  # the ranges of nn.Linear
        self.fc1_weight = nn.Parameter(torch.empty(experts, hidden, width).uniform_(-inner, inner))
        self.fc1_bias = nn.Parameter(torch.empty(experts, hidden).uniform_(-inner, inner))
        self.fc2_weight = nn.Parameter(torch.empty(experts, width, hidden).uniform_(-outer, outer))
        self.fc2_bias = nn.Parameter(torch.empty(experts, width).uniform_(-outer, outer))

    def hidden(self, z: Tensor) -> Tensor:
        """Maps z (T, R) to what all experts have inside (E, T, hidden)."""
        hidden = functional.relu(functional.linear(z, self.fc1_weight.flatten(0, 1), self.fc1_bias.flatten()))
        return hidden.view(len(z), *self.fc1_bias.shape).transpose(0, 1)

    def outputs(self, hidden: Tensor) -> Tensor:
        """The outputs of all experts (E, T, R)."""
        return torch.baddbmm(self.fc2_bias[:, None].to(hidden.dtype), hidden, self.fc2_weight.mT.to(hidden.dtype))

    def gated(self, hidden: Tensor, log_gates: Tensor) -> Tensor:
        """``outputs`` plus the logarithms of the gates (E, T, 1): (E, T, R), float32 also under autocast.

        Biases and gates take part in the product as two more columns, which saves two passes over its result.
        """
        with torch.autocast(hidden.device.type, enabled=False):
            columns = torch.cat([hidden.float(), torch.ones_like(log_gates), log_gates], dim=-1)
            rows = torch.cat(
                [self.fc2_weight.mT, self.fc2_bias[:, None], torch.ones_like(self.fc2_bias[:, None])], dim=1
            )
            return torch.bmm(columns, rows)


class AoMoA(nn.Module):
    """What stands beside one linear layer: add its output to that of the layer.

    Both halves of the input share everything but the gate.

    Args:
        in_width: Input width of the linear layer, even.
        out_width: Output width of the linear layer, even.
        top_k: Experts per token.
        gate_std: Standard deviation of the gate weights at the start.
        ties: Which of equal experts a token gets; see ``Gate``.
        combine: ``stable`` joins experts by log-sum-exp; ``exponential`` by the plain formula of the release.
        balance: Whether the balance loss is computed in training.
        start: ``zero`` has the map up at zero, so that nothing is added at the start; ``xavier`` draws the maps down
            and up uniformly by the sum of their widths (Glorot and Bengio, AISTATS 2010), as the release does.

    Raises:
        ValueError: If a width is odd.
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        experts: int = 4,
        top_k: int = 2,
        gate_std: float = 0.0,
        ties: Ties = "first",
        combine: Combine = "stable",
        balance: bool = False,
        start: Start = "zero",
    ) -> None:
        super().__init__()
        if in_width % 2 or out_width % 2:
            raise ValueError(f"widths are {in_width} and {out_width}, expected even ones: tokens are split into halves")
        half = in_width // 2
        inner = max(4, half // 4)
        self.combine, self.balance = combine, balance
        self.norm_in = nn.LayerNorm(half)
        self.down = nn.Linear(half, inner, bias=False)
        self.norm_down = nn.LayerNorm(inner)
        self.gate = Gate(inner, experts, top_k, gate_std, ties)
        self.experts = Experts(experts, inner, max(2, inner // 8))
        self.up = nn.Linear(inner, out_width // 2, bias=False)
        self.scale = nn.Parameter(torch.ones(out_width))
        if start == "zero":
            nn.init.zeros_(self.up.weight)
        else:
            for layer in (self.down, self.up):
                nn.init.xavier_uniform_(layer.weight)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps x (B, N, in) to what has to be added to the layer's output (B, N, out), and a scalar balance loss."""
        routing, combined = self._mix(x)
        # The scale is applied to the small weight, not to the large output.
        halves = zip(combined.unbind(-2), self.scale.chunk(2), strict=True)
        raised = [functional.linear(half, scale[:, None] * self.up.weight) for half, scale in halves]
        return torch.cat(raised, dim=-1), routing.balance

    def trace(self, x: Tensor) -> Trace:
        """Intermediate results for x (B, N, in)."""
        routing, combined = self._mix(x)
        return Trace(routing.log_gates.exp().movedim(0, -1), combined, self.up(combined))

    def _mix(self, x: Tensor) -> tuple[Routing, Tensor]:
        z = self.norm_down(self.down(self.norm_in(x.unflatten(-1, (2, -1)))))
        routing = self.gate(z, self.balance)
        log_gates = routing.log_gates.flatten(1)[..., None]
        log_gates = log_gates.masked_fill(log_gates <= math.log(SMALLEST_GATE), UNUSED)
        hidden = self.experts.hidden(z.flatten(0, 2))
        if self.combine == "stable":
            combined = log_sum_exp(self.experts.gated(hidden, log_gates))
        else:
            combined = plain_exponential(self.experts.outputs(hidden), log_gates)
        return routing, combined.view(z.shape)


class _LogSumExp(torch.autograd.Function):
    """Log-sum-exp over the first dimension that keeps its exponentials for the backward pass.

    Half the passes over memory of ``torch.logsumexp``, which are most of what thin experts cost.
    """

    @staticmethod
    def forward(ctx: Any, terms: Tensor) -> Tensor:
        highest = terms.amax(dim=0)
        shares = torch.sub(terms, highest).exp_()
        total = shares.sum(dim=0)
        ctx.save_for_backward(shares, total)
        return total.log().add_(highest)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        shares, total = ctx.saved_tensors
        return shares * (gradient / total)


def log_sum_exp(terms: Tensor) -> Tensor:
    """``log sum_e g_e exp(E_e)`` without overflow.

    Args:
        terms: Expert outputs plus the logarithms of their gates (E, T, R), float32; at least one gate of a token is
            not zero, as the first of two is at least a half.

    Returns:
        (T, R).
    """
    return cast(Tensor, _LogSumExp.apply(terms))


def plain_exponential(outputs: Tensor, log_gates: Tensor) -> Tensor:
    """The same of outputs (E, T, R) and log gates (E, T, 1) by the formula as it stands.

    Overflows above 88, and underflows to epsilon.
    """
    terms = outputs.float().exp() * log_gates.exp()
    total = terms.masked_fill(log_gates <= UNUSED, 0.0).sum(dim=0)  # an unused expert may overflow: 0 * inf
    return total.masked_fill(total == 0, torch.finfo(torch.float64).eps).log()


def ranks(logits: Tensor) -> Tensor:
    """Place (0 = largest) of each entry along the first dimension; of equal ones the first comes first."""
    mine, others = logits.unsqueeze(1), logits.unsqueeze(0)
    experts = len(logits)
    earlier = torch.ones(experts, experts, dtype=torch.bool, device=logits.device).tril(-1)
    earlier = earlier.view(experts, experts, *[1] * (logits.dim() - 1))
    return ((others > mine) | ((others == mine) & earlier)).sum(dim=1)


def topk_ranks(logits: Tensor, count: int) -> Tensor:
    """Place of the ``count`` largest entries along the first dimension in the order of ``torch.topk``; of others E."""
    rows = logits.detach().movedim(0, -1)
    experts = rows.shape[-1]
    chosen = rows.topk(min(count, experts), dim=-1).indices
    places = torch.arange(chosen.shape[-1], device=logits.device).expand_as(chosen)
    return torch.full(rows.shape, experts, device=logits.device).scatter(-1, chosen, places).movedim(-1, 0)


def variation(totals: Tensor) -> Tensor:
    """Squared coefficient of variation over the last dimension; zero for a single entry."""
    if totals.shape[-1] == 1:
        return totals.new_zeros(totals.shape[:-1])
    return totals.var(dim=-1) / (totals.mean(dim=-1).square() + 1e-10)
