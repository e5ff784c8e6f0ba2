"""MixStyle: features of a window with the mean and spread of another window's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from spectral_tl_bench.errors import MethodError, nearest
from spectral_tl_bench.methods.base import Batch
from spectral_tl_bench.objectives.base import Objective, Setting

EPSILON = 1e-6  # added to the variance, as in the authors' code
PYRAMID_STAGES = re.compile(r"(^|.*\.)(layer([12])|stages[._]([01]))")


def mix_statistics(features: Tensor, partners: Tensor, shares: Tensor) -> Tensor:
    """Give features the mixed mean and standard deviation of their own and a partner's.

    MixStyle, Section 3: statistics per window and channel over all places; they carry no gradient.

    Args:
        features: (B, C, h, w) maps, or (B, N, C) tokens.
        partners: (B,) int64, the window that each window is mixed with.
        shares: (B,) the share that a window keeps of its own statistics.

    Returns:
        Features of the same shape.
    """
    places = (2, 3) if features.ndim == 4 else (1,)
    mean = features.mean(dim=places, keepdim=True).detach()
    spread = (features.var(dim=places, keepdim=True) + EPSILON).sqrt().detach()
    share = shares.to(features).reshape(-1, *[1] * (features.ndim - 1))
    mixed_mean = share * mean + (1 - share) * mean[partners]
    mixed_spread = share * spread + (1 - share) * spread[partners]
    return (features - mean) / spread * mixed_spread + mixed_mean


def choose_partners(
    domains: np.ndarray[Any, Any], across: bool, generator: np.random.Generator
) -> np.ndarray[Any, Any]:
    """A partner for each window of a batch.

    Args:
        domains: (B,) the windows' domains.
        across: Choose among the windows of other domains, where the batch has any; otherwise permute the batch.
    """
    if not across:
        return generator.permutation(len(domains))
    everything = np.arange(len(domains))
    partners = []
    for domain in domains:
        others = everything[domains != domain]
        partners.append(generator.choice(others if len(others) else everything))
    return np.array(partners)


class MixStyle(Objective):
    """Mixes feature statistics of windows of different domains after early parts of the encoder, in training only.

    At each place, with probability ``p`` per forward pass, every window's channel means and standard deviations are
    mixed with those of a partner; the share is drawn from Beta(alpha, alpha). ``p`` and ``alpha`` are the authors'.
    The paper mixes after the first two of four stages of a ResNet. Here these are the first two stages of a pyramid
    encoder; of a vision transformer it is the tokens before the first block, class token included, and after the first
    quarter of the blocks. A method that runs its blocks piece by piece keeps a place from being reached; the record
    names those that were. Where the loss is computed domain by domain, all windows of a pass are of one domain.
    """

    numerics_version = 1

    reference: ClassVar[str] = "Zhou et al., Domain Generalization with MixStyle, ICLR 2021, Section 3"
    source_code: ClassVar[str] = "KaiyangZhou/mixstyle-release, from memory: not checked against the code"
    differs: ClassVar[tuple[str, ...]] = (
        "`mix=crossdomain` is the default here, the paper's choice where domains are known; the authors' code has "
        "`random` by default.",
        "Crossdomain partners are drawn among the windows of all other domains of the batch; the authors' code swaps "
        "the two halves of a batch that holds two domains.",
        "The paper mixes after the first two of four stages of a ResNet; vision transformers are mixed before the "
        "first block and after the first quarter of them.",
    )

    p: float = Field(0.5, ge=0, le=1, description="probability of mixing at a place, per forward pass")
    alpha: float = Field(0.1, gt=0, description="of the Beta distribution that the shares come from")
    mix: Literal["crossdomain", "random"] = Field("crossdomain", description="partners: of another domain, or any")
    layers: str = Field("", description="modules whose output is mixed, by name, separated by commas")

    _chance: np.random.Generator | None = PrivateAttr(None)
    _reached: dict[str, None] = PrivateAttr(default_factory=dict)

    def needs(self) -> int:
        """Two domains, if windows are mixed across them."""
        return 2 if self.mix == "crossdomain" else 1

    def begin(self, setting: Setting) -> None:
        """A source of chance of its own, so that dropout and data order stay those of a run without."""
        self._chance = np.random.default_rng(setting.seed)
        self._reached = {}

    @contextmanager
    def wrap(self, module: nn.Module, batch: Batch) -> Iterator[None]:
        """Mix in this forward pass; evaluation and other passes are left alone."""
        places, domains = self._places(module), batch["domain"].cpu().numpy()
        called: dict[str, None] = {}

        def hook(name: str) -> Any:
            def change(_: nn.Module, __: Any, output: Any) -> Any:
                if not isinstance(output, Tensor) or output.ndim not in (3, 4) or len(output) != len(domains):
                    raise MethodError(
                        f"mixstyle cannot mix the output of {name!r}: neither maps (B, C, h, w) nor tokens (B, N, C)",
                        fix="name other modules: -O mixstyle.layers=NAME",
                    )
                called[name] = None
                return self._mixed(output, domains)

            return change

        handles = [layer.register_forward_hook(hook(name)) for name, layer in places.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        missing = [name for name in places if name not in called]
        if missing and (self.layers or not called):
            raise MethodError(
                f"mixstyle: the forward pass does not call {', '.join(missing)}",
                fix="name other modules: -O mixstyle.layers=NAME",
            )
        self._reached |= called

    def _mixed(self, features: Tensor, domains: np.ndarray[Any, Any]) -> Tensor:
        if self._chance is None:
            raise RuntimeError("begin was not called")
        if self._chance.random() >= self.p:
            return features
        shares = self._chance.beta(self.alpha, self.alpha, len(domains))
        partners = choose_partners(domains, self.mix == "crossdomain", self._chance)
        return mix_statistics(
            features, torch.from_numpy(partners).to(features.device), torch.from_numpy(shares).to(features.device)
        )

    def _places(self, module: nn.Module) -> dict[str, nn.Module]:
        named = dict(module.named_modules())
        if self.layers:
            wanted = [name.strip() for name in self.layers.split(",") if name.strip()]
            for name in wanted:
                if name not in named:
                    raise MethodError(
                        f"mixstyle.layers names {name!r}, which is no module of the method",
                        expected=nearest(name, named),
                    )
            return {name: named[name] for name in wanted}
        for name, layer in named.items():
            blocks = getattr(layer, "blocks", None)
            if isinstance(blocks, nn.Sequential | nn.ModuleList) and len(blocks) > 1 and hasattr(layer, "norm_pre"):
                prefix = f"{name}." if name else ""
                places = [f"{prefix}norm_pre", f"{prefix}blocks.{max(0, round(len(blocks) / 4) - 1)}"]
                return {place: named[place] for place in places}
        stages = {name: layer for name, layer in named.items() if PYRAMID_STAGES.fullmatch(name)}
        if not stages:
            raise MethodError(
                "mixstyle found neither the blocks of a vision transformer nor the stages of a pyramid encoder",
                fix="name modules of the method: -O mixstyle.layers=NAME,OTHER",
            )
        return stages

    def state(self) -> dict[str, Any]:
        """The source of chance by its state."""
        chance = self._chance.bit_generator.state if self._chance is not None else None
        return {**super().state(), "_chance": chance}

    def restore(self, state: dict[str, Any]) -> None:
        """The other way."""
        chance, self._chance = state["_chance"], np.random.default_rng()
        self._chance.bit_generator.state = chance
        self._reached = state["_reached"]

    def facts(self) -> dict[str, Any]:
        """Where statistics were mixed."""
        return {"places": list(self._reached)}
