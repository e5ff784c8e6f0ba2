"""AoMoA's arithmetic in the classic form, which sends every token to its experts: what AoMoA is compared with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from spectralx.aomoa import NOISE_FLOOR, SMALLEST_GATE, AoMoA, variation


class Dispatcher:
    """Sorts tokens by expert and joins the experts' outputs again (Shazeer et al., ICLR 2017, section 3.1).

    Args:
        gates: (T, E), zero where a token does not go to an expert.
    """

    def __init__(self, gates: Tensor) -> None:
        # Used pairs of token and expert, sorted by expert; the host waits for the device here, and for the sizes.
        used = gates.nonzero()
        order = used[:, 1].argsort(stable=True)
        self.tokens, experts = used[order].unbind(dim=1)
        self.sizes: list[int] = (gates > 0).sum(dim=0).tolist()
        self.gates = gates[self.tokens, experts][:, None]
        self.length = len(gates)

    def split(self, z: Tensor) -> tuple[Tensor, ...]:
        """The rows of z (T, R) that each expert gets."""
        return z[self.tokens].split(self.sizes)

    def join(self, outputs: list[Tensor]) -> Tensor:
        """``log sum_e g_e exp(E_e)`` (T, R) from the experts' outputs; epsilon where the sum is zero."""
        terms = torch.cat(outputs).float().exp() * self.gates
        total = terms.new_zeros(self.length, terms.shape[1]).index_add(0, self.tokens, terms)
        return total.masked_fill(total == 0, torch.finfo(torch.float64).eps).log()


class DispatchedAdapters(nn.Module):
    """The same function as an ``AoMoA`` layer, its weights copied, computed token by expert.

    Args:
        layer: Where the weights come from.
        joint: Whether both halves of the tokens are dispatched in one go, or one after the other.
    """

    def __init__(self, layer: AoMoA, joint: bool = False) -> None:
        super().__init__()
        inner, half = layer.down.weight.shape
        outer = layer.up.weight.shape[0]
        self.joint, self.balance, self.top_k = joint, layer.balance, layer.gate.top_k
        self.norm_in, self.down, self.norm_down = nn.LayerNorm(half), nn.Linear(half, inner, False), nn.LayerNorm(inner)
        self.up = nn.Linear(inner, outer, False)
        for name in ("norm_in", "down", "norm_down", "up"):
            getattr(self, name).load_state_dict(getattr(layer, name).state_dict())
        self.scale = nn.Parameter(layer.scale.detach().clone())
        self.gate, self.noise = (nn.Parameter(w.detach().clone()) for w in (layer.gate.gate, layer.gate.noise))
        self.experts = nn.ModuleList()
        names = ("fc1_weight", "fc1_bias", "fc2_weight", "fc2_bias")
        for weights in zip(*(getattr(layer.experts, name).detach() for name in names), strict=True):
            hidden = len(weights[1])
            expert = nn.Sequential(nn.Linear(inner, hidden), nn.ReLU(), nn.Linear(hidden, inner))
            expert.load_state_dict(dict(zip(("0.weight", "0.bias", "2.weight", "2.bias"), weights, strict=True)))
            self.experts.append(expert)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps x (B, N, in) to what has to be added to the layer's output (B, N, out), and a scalar balance loss."""
        halves, gates, balance = [], [], x.new_zeros((), dtype=torch.float32)
        for half, part in enumerate(x.chunk(2, dim=-1)):
            z = self.norm_down(self.down(self.norm_in(part))).flatten(0, 1)
            routed, extra = self._route(z, half)
            halves.append(z)
            gates.append(routed)
            balance = balance + extra
        if self.joint:
            combined = list(self._mix(torch.cat(halves), torch.cat(gates)).chunk(2))
        else:
            combined = [self._mix(z, routed) for z, routed in zip(halves, gates, strict=True)]
        raised = torch.cat([self.up(y) for y in combined], dim=-1)
        return (self.scale * raised).view(*x.shape[:2], -1), balance

    def _mix(self, z: Tensor, gates: Tensor) -> Tensor:
        dispatcher = Dispatcher(gates.masked_fill(gates <= SMALLEST_GATE, 0.0))
        parts = dispatcher.split(z)
        return dispatcher.join([expert(part) for expert, part in zip(self.experts, parts, strict=True)])

    def _route(self, z: Tensor, half: int) -> tuple[Tensor, Tensor]:
        """Gates (T, E) and balance loss of one half."""
        with torch.autocast(z.device.type, enabled=False):
            z = z.float()
            clean = logits = z @ self.gate[half]
            if self.training:
                spread = functional.softplus(z @ self.noise[half]) + NOISE_FLOOR
                logits = clean + torch.randn_like(clean) * spread
            # Stable sorting rather than topk: ties have to go where AoMoA sends them.
            places = logits.sort(dim=1, descending=True, stable=True)
            kept = places.indices[:, : self.top_k]
            gates = torch.zeros_like(logits).scatter(1, kept, places.values[:, : self.top_k].softmax(dim=1))
            if not (self.training and self.balance):
                return gates, logits.new_zeros(())
            return gates, variation(gates.sum(dim=0)) + variation(self._load(clean, logits, spread, places.values))

    def _load(self, clean: Tensor, noisy: Tensor, spread: Tensor, ordered: Tensor) -> Tensor:
        if self.top_k == ordered.shape[1]:
            return clean.new_full((ordered.shape[1],), float(len(clean)))
        last_in, first_out = ordered[:, self.top_k - 1, None], ordered[:, self.top_k, None]
        threshold = torch.where(noisy > first_out, first_out, last_in)
        return torch.special.ndtr((clean - threshold) / spread).sum(dim=0)
