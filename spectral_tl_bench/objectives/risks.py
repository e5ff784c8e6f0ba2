"""What is made of the losses of several domains: their mean, the worst of them, or how much they differ."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from spectral_tl_bench.objectives.base import DomainLosses, Objective, Setting


class Erm(Objective):
    """Empirical risk minimisation: the method's own loss, as without any objective.

    With ``balanced`` windows are drawn as for the objectives that compare domains, which makes it their control.
    """

    numerics_version = 1

    reference: ClassVar[str] = "Vapnik, Statistical Learning Theory, 1998"
    differs: ClassVar[tuple[str, ...]] = ("It is the method's own loss, whatever that is.",)

    balanced: bool = Field(False, description="draw each source domain equally often")

    def wants_balance(self) -> bool:
        """As the option says."""
        return self.balanced


class _DomainRisk(Objective):
    domains_needed: ClassVar[int] = 2

    balanced: bool = Field(True, description="draw each source domain equally often")

    def wants_balance(self) -> bool:
        """As the option says."""
        return self.balanced


class GroupDro(_DomainRisk):
    """Group distributionally robust optimisation: weights follow the domains that are learned worst.

    Algorithm 1 of the paper, with the losses of a batch: q_d <- q_d exp(step_size * l_d), q normalised to sum 1, and
    the loss is sum_d q_d l_d. A domain that is not in the batch has l_d = 0, as in the authors' code: its weight
    changes by the normalisation alone. The weights carry no gradient and begin equal. The adjustment for small groups
    (Section 3.3) is left out, which is the authors' default of 0.
    """

    numerics_version = 1

    source_code: ClassVar[str] = "kohpangwei/group_DRO, from memory: not checked against the code"
    differs: ClassVar[tuple[str, ...]] = (
        "Groups are source domains, and a group's loss is the mean over its labelled pixels in the batch.",
        "The adjustment for small groups is left out, whose default is 0 in the authors' code.",
    )
    reference: ClassVar[str] = "Sagawa et al., Distributionally Robust Neural Networks, ICLR 2020, Algorithm 1"

    step_size: float = Field(0.01, gt=0, description="step of the domains' weights; 0.01 as in the authors' code")

    _names: tuple[str, ...] = PrivateAttr(())
    _weights: Tensor | None = PrivateAttr(None)

    def begin(self, setting: Setting) -> None:
        """All domains weigh the same."""
        self._names = setting.domains
        self._weights = torch.full((len(setting.domains),), 1 / len(setting.domains))

    def risk(self, losses: DomainLosses) -> Tensor:
        """The weighted sum, after the weights have followed the losses."""
        values = losses.values.detach().float().where(losses.present, 0.0)
        if self._weights is None:
            raise RuntimeError("begin was not called")
        # By its logarithm, so that a diverging loss gives no infinity over infinity.
        raised = self._weights.to(values.device).log() + self.step_size * values
        self._weights = raised.softmax(0)
        return (self._weights * losses.values).sum()

    def facts(self) -> dict[str, Any]:
        """The weights at the end."""
        values = [] if self._weights is None else self._weights.tolist()
        return {"weights": {name: round(value, 6) for name, value in zip(self._names, values, strict=False)}}


class Vrex(_DomainRisk):
    """Variance risk extrapolation: the mean of the domains' losses and a multiple of their variance.

    Equation 8 of the paper, with the mean in place of the sum over domains, so that the learning rate does not depend
    on their number: mean_d l_d + weight * mean_d (l_d - mean l)^2, over the domains that are in the batch. During the
    first ``anneal`` of the steps the multiple is 1. ``weight`` and ``anneal`` are those of DomainBed (10, and 500 of
    5,000 steps); it also resets Adam when the multiple jumps, which is not done here.
    """

    numerics_version = 1

    source_code: ClassVar[str] = "facebookresearch/DomainBed, from memory: not checked against the code"
    differs: ClassVar[tuple[str, ...]] = (
        "The mean of the domains' losses stands for the sum of equation 8, as in DomainBed.",
        "Adam is not reset where the weight jumps, as DomainBed does.",
    )
    reference: ClassVar[str] = "Krueger et al., Out-of-Distribution Generalization via Risk Extrapolation, ICML 2021"

    weight: float = Field(10.0, ge=0, description="multiple of the variance after the anneal")
    anneal: float = Field(0.1, ge=0, le=1, description="share of the steps in which the multiple is 1")

    _left: int = PrivateAttr(0)

    def begin(self, setting: Setting) -> None:
        """Count the steps of the anneal."""
        self._left = round(self.anneal * setting.steps)

    def risk(self, losses: DomainLosses) -> Tensor:
        """Mean and variance; the variance of a single domain is 0."""
        weight = 1.0 if self._left > 0 else self.weight
        self._left -= 1
        mean = losses.mean()
        deviations = (losses.values - mean).where(losses.present, 0.0)
        return mean + weight * deviations.square().sum() / losses.present.sum().clamp(min=1)
