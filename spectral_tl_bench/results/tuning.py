"""How the configuration of a run was found by a search on source validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

MOST_DRAWS = 1_000
"""Draws of one search, so that a record stays something that can be read."""
LONGEST = 300
"""Characters of an error, and of the values of one name."""
TUNED = "tuned"
"""Stands for a value that a search has chosen, where rows are told apart and listed."""

_Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
_Text = Annotated[str, Field(min_length=1, max_length=LONGEST)]
_Values = Annotated[dict[_Name, JsonValue], Field(max_length=16)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Draw(_Strict):
    """One configuration that was tried.

    Attributes:
        options: Values of the searched options of the method.
        settings: Values of the searched settings, which are of the training budget.
        value: Source-validation mIoU of its selected checkpoint; None where it failed.
    """

    options: _Values = Field(default_factory=dict)
    settings: _Values = Field(default_factory=dict)
    value: Annotated[float, Field(ge=0, le=1)] | None = None
    error: _Text | None = None

    @model_validator(mode="after")
    def _one_ending(self) -> Draw:
        if (self.value is None) == (self.error is None):
            raise ValueError("a draw has either a value or an error")
        return self

    @model_serializer(mode="wrap")
    def _short(self, values: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what it does not say."""
        return {key: value for key, value in values(self).items() if value not in (None, {})}

    @property
    def configuration(self) -> dict[str, JsonValue]:
        """Values by name."""
        return {**self.options, **self.settings}


class Tuning(_Strict):
    """A search on source validation.

    Attributes:
        search: How configurations were drawn.
        budget: How many draws were allowed.
        space: What was drawn from, by name, as ``--space`` takes it.
        seed: Of the draws and of the training of each; the choice then serves all seeds.
        draws: All that were tried, in order.
        chosen: Number of the draw that was chosen, which is the first with the best value.
    """

    search: Literal["random", "grid"]
    budget: Annotated[int, Field(ge=1, le=MOST_DRAWS)]
    space: Annotated[dict[_Name, _Text], Field(min_length=1, max_length=16)]
    seed: Annotated[int, Field(ge=0)]
    draws: Annotated[tuple[Draw, ...], Field(min_length=1, max_length=MOST_DRAWS)]
    chosen: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _consistent(self) -> Tuning:
        if len(self.draws) > self.budget:
            raise ValueError(f"{len(self.draws)} draws are more than the budget of {self.budget}")
        if any(set(draw.configuration) != set(self.space) for draw in self.draws):
            raise ValueError("a draw has other names than the space")
        best = best_of(self.draws)
        if best is None or self.chosen != best:
            raise ValueError(f"draw {self.chosen} was not chosen by source validation: the best is {best}")
        return self

    @property
    def choice(self) -> Draw:
        """The configuration that was chosen."""
        return self.draws[self.chosen]

    @property
    def procedure(self) -> dict[str, Any]:
        """How the configuration came about, without what came of it."""
        return self.model_dump(mode="json", include={"search", "budget", "space", "seed"})

    def disagreements(self, options: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
        """Names that the choice gives another value than a run had.

        Args:
            settings: Of the run; those that can be searched are of its budget.
        """
        budget = settings.get("budget")
        had = ((self.choice.options, options), (self.choice.settings, budget if isinstance(budget, Mapping) else {}))
        return sorted(name for chosen, values in had for name in chosen if values.get(name, _ABSENT) != chosen[name])

    def masked(self, options: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Options and settings of a run with ``tuned`` where a value was searched: what its row has in common."""
        budget = {**settings.get("budget", {}), **dict.fromkeys(self.choice.settings, TUNED)}
        return (
            {**options, **dict.fromkeys(self.choice.options, TUNED)},
            {**settings, **({"budget": budget} if self.choice.settings else {})},
        )


def best_of(draws: tuple[Draw, ...] | list[Draw]) -> int | None:
    """Number of the first draw with the best value; None where all have failed."""
    known = [(-draw.value, number) for number, draw in enumerate(draws) if draw.value is not None]
    return min(known)[1] if known else None


_ABSENT = object()
