"""How much a method may be trained, and with which rates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from spectral_tl_bench.later_options import LaterOptions

BY_RECIPE: dict[str, Any] = dict.fromkeys(("learning_rate", "weight_decay", "pretrained_rate", "warmup_share"))
"""What of a budget leaves the rates to the methods."""
FEW, GROWTH = 1_000, 4.0
"""Trainings of fewer steps get a larger rate, up to so many times that of the recipe."""
WARMUP = 0.05
"""Share of the steps in which the rate rises, where nothing else is said."""


@dataclass(frozen=True)
class Recipe:
    """The optimiser settings of a method, where budget and user give none.

    Attributes:
        rate: AdamW learning rate of what is drawn new: adapters, decoder, networks from scratch; of ``FEW`` steps or
            more.
        pretrained: Share of it for the trainable weights of the submodule ``backbone``, where they are pretrained ones.
        warmup: Share of the steps in which the rate rises; a constant rate has none.
        source: Where the numbers are from: paper and section, or ``ours``.
    """

    rate: float = 5e-4
    pretrained: float = 1.0
    weight_decay: float = 1e-4
    warmup: float = WARMUP
    source: str = "ours"

    @property
    def words(self) -> str:
        """All of it in a line, to be shown."""
        share = f", {self.pretrained:g} of it for pretrained weights that train" if self.pretrained != 1 else ""
        return (
            f"learning rate {self.rate:g}{share} (up to {GROWTH:g} times as much in fewer than {FEW:,} steps), "
            f"weight decay {self.weight_decay:g}, where budget and user give none; {self.source}"
        )

    def rate_of(self, steps: int) -> float:
        """The learning rate of a training of so many steps: short ones get more, or they end before they have begun.

        It grows with the root of what is missing from ``FEW`` steps, up to ``GROWTH`` times; with three digits.
        """
        return float(f"{self.rate * min(GROWTH, max(1.0, math.sqrt(FEW / max(1, steps)))):.3g}")


FINE_TUNING = Recipe(
    pretrained=0.1, weight_decay=0.05,
    source="weight decay: He et al., MAE, CVPR 2022, appendix A.1 (fine-tuning); rates: ours",
)  # fmt: skip
"""For methods that train the pretrained backbone itself."""


class Plateau(BaseModel):
    """Training until source validation no longer gains.

    The rate is constant, falls to a tenth at the first plateau, and training stops at the second.

    Attributes:
        validate_every: Steps between two validations.
        patience: Validations in a row without a gain that make a plateau.
        gain: What counts as one, in mIoU above the last value that was one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    validate_every: int = Field(100, ge=1)
    patience: int = Field(5, ge=1)
    gain: float = Field(0.002, ge=0)


class Budget(LaterOptions):
    """How much training a method may use; every method of a comparison gets the same.

    A budget of a protocol may leave the rates to the methods (None); the budget of a run has numbers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    later: ClassVar[Mapping[str, Any]] = {"pretrained_rate": 1.0, "warmup_share": WARMUP, "plateau": None}

    steps: int = Field(45_000, ge=0, description="optimiser steps with labels; the most, where there is a plateau")
    pretrain_steps: int = Field(
        25_000, ge=0, description="optimiser steps without labels, for methods that have such a stage"
    )
    batch_size: int = Field(32, ge=1, description="windows per step")
    learning_rate: float | None = Field(1e-4, gt=0, description="AdamW learning rate; None for the method's recipe")
    weight_decay: float | None = Field(1e-4, ge=0, description="None for the method's recipe")
    schedule: Literal["constant", "cosine"] = "constant"
    pretrained_rate: float | None = Field(
        1.0, gt=0, le=1, description="share of the rate for trainable weights of the backbone, in stages with labels"
    )
    warmup_share: float | None = Field(
        WARMUP, ge=0, lt=1, description="share of the steps in which the rate rises, in stages with labels"
    )
    plateau: Plateau | None = Field(None, description="train until source validation no longer gains")

    @model_validator(mode="after")
    def _constant(self) -> Budget:
        if self.plateau is not None and self.schedule != "constant":
            raise ValueError("until a plateau the rate is constant, and falls where one is found")
        return self

    def by(self, recipe: Recipe, pretrained: bool) -> Budget:
        """The same budget with numbers from a recipe where it has none.

        Args:
            pretrained: Whether the method stands on a backbone with pretrained weights.
        """
        filled = {
            "learning_rate": recipe.rate if self.plateau is not None else recipe.rate_of(self.steps),
            "weight_decay": recipe.weight_decay,
            "pretrained_rate": recipe.pretrained if pretrained else 1.0,
            "warmup_share": recipe.warmup,
        }
        return self.model_copy(update={name: value for name, value in filled.items() if getattr(self, name) is None})

    @property
    def rate(self) -> float:
        """The learning rate.

        Raises:
            ValueError: If it is left to the methods.
        """
        return _said(self.learning_rate)

    @property
    def decay(self) -> float:
        """The weight decay.

        Raises:
            ValueError: If it is left to the methods.
        """
        return _said(self.weight_decay)


def _said(value: float | None) -> float:
    if value is None:
        raise ValueError("this budget leaves the rates to the methods: Budget.by(recipe) gives it numbers")
    return value
