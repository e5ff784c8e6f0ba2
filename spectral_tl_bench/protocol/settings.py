"""Everything about a run that can change its result, in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.errors import UserError, nearest
from spectral_tl_bench.methods.base import Backbone, Budget, Plateau, Recipe
from spectral_tl_bench.methods.budget import BY_RECIPE
from spectral_tl_bench.protocol.names import DEFAULT_PROTOCOL

if TYPE_CHECKING:
    from spectral_tl_bench.protocol.base import Protocol

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


class RunSettings(BaseModel):
    """The protocol's settings for one cell.

    Attributes:
        window: Side of training and evaluation windows, pixels.
        stride: Step of evaluation windows, pixels; smaller than the window, so that windows overlap, unless the
            protocol's windows are whole chips.
        validations: How often validation is done during the last stage.
        augment: Which augmentation training windows get.
        precision: Of training and source validation; the target is always evaluated in float32.
        compile: Whether training steps are compiled, which changes the last digits as a precision does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: str = DEFAULT_PROTOCOL
    budget: Budget
    window: int = Field(ge=8)
    stride: int = Field(ge=1)
    validations: int = Field(10, ge=1)
    augment: str = "flips-and-turns"
    precision: Precision = "32-true"
    compile: bool = False

    def side_by_side(self, chip_side: int | None) -> bool:
        """Whether a chip is cut into windows that do not overlap, which only some protocols allow.

        Args:
            chip_side: Side of a chip in pixels; None where it is not known.
        """
        return self.stride >= self.window and not (chip_side is not None and self.window >= chip_side)

    def by(self, recipe: Recipe, pretrained: bool) -> RunSettings:
        """The same settings with numbers from a method's recipe where the budget has none, see ``Budget.by``."""
        return self.model_copy(update={"budget": self.budget.by(recipe, pretrained)})

    @model_validator(mode="after")
    def _overlap(self) -> RunSettings:
        if self.stride > self.window:
            raise ValueError("the evaluation stride is larger than the window, so pixels would be skipped")
        return self


class Overrides(BaseModel):
    """What the user set on the command line; None keeps the default."""

    model_config = ConfigDict(extra="forbid")

    budget: str | None = None
    steps: int | None = Field(None, ge=1)
    pretrain_steps: int | None = Field(None, ge=0)
    batch_size: int | None = Field(None, ge=1)
    learning_rate: float | None = Field(None, gt=0)
    weight_decay: float | None = Field(None, ge=0)
    pretrained_rate: float | None = Field(None, gt=0, le=1)
    warmup_share: float | None = Field(None, ge=0, lt=1)
    schedule: Literal["constant", "cosine"] | None = None
    until_plateau: bool = False
    validate_every: int | None = Field(None, ge=1)
    patience: int | None = Field(None, ge=1)
    window: int | None = Field(None, ge=8)
    stride: int | None = Field(None, ge=1)
    validations: int | None = Field(None, ge=1)
    precision: Precision = "32-true"
    compile: bool = False


def _windows(patch: int, limit: int) -> str:
    """The sides that windows may have, in words."""
    least, most = -(-8 // patch) * patch, limit // patch * patch
    return f"a multiple of {patch} from {least} to {most}" if least <= most else f"chips of {least} px or more"


def _nearest_window(window: int, patch: int, limit: int) -> int:
    """The side nearest to what was wanted, below it where that is possible; 0 where there is none."""
    least, most = -(-8 // patch) * patch, limit // patch * patch
    return min(max(window // patch * patch, least), most) if least <= most else 0


RATES = (
    "steps", "pretrain_steps", "batch_size", "learning_rate", "weight_decay", "pretrained_rate", "warmup_share",
    "schedule",
)  # fmt: skip
"""What of a budget a user may change one by one."""
LONGER, MOST = 50, 20_000
"""Until a plateau, a stage has so many times the budget's steps at most, and never more than these."""


def _until_plateau(budget: Budget, overrides: Overrides, protocol: Protocol) -> Budget:
    """The budget of a training that ends at a plateau, with the rates of the methods' recipes."""
    if protocol.selection.takes_last or protocol.selection.on_target:
        raise UserError(f"--until-plateau: protocol {protocol.name} does not select on source validation",
                        fix="leave it out, or choose another protocol")  # fmt: skip
    others = {"--schedule cosine": overrides.schedule == "cosine", "--validations": overrides.validations}
    for flag, given in others.items():
        if given:
            raise UserError(f"{flag} does not go with --until-plateau",
                            expected="a constant rate that falls at a plateau, and --validate-every")  # fmt: skip
    rule = {name: getattr(overrides, name) for name in ("validate_every", "patience")}
    return budget.model_copy(update={
        "steps": min(LONGER * budget.steps, MOST), "pretrain_steps": min(LONGER * budget.pretrain_steps, MOST),
        **BY_RECIPE, "schedule": "constant",
        "plateau": Plateau(**{name: value for name, value in rule.items() if value is not None}),
    })  # fmt: skip


def _grain(backbone: Backbone) -> str:
    if backbone.token == backbone.patch:
        return f"the patch of {backbone.name} is {backbone.patch} px"
    return f"a token of {backbone.name} covers {backbone.token} px with --input-scale {backbone.input_scale:g}"


def make_settings(
    benchmark: Benchmark, chip_size: int, small: bool, backbone: Backbone, overrides: Overrides, protocol: Protocol
) -> RunSettings:
    """The settings of a run: defaults for the data at hand, then what the user set.

    Args:
        chip_size: Side of the chips that were found.
        small: Whether the small budget is the default; it suits the sample and first steps on data of one's own.
        backbone: What a token of it covers must divide the window.
        protocol: Gives the defaults.

    Raises:
        UserError: If the window does not fit the chips or the backbone.
    """
    name = overrides.budget or ("small" if small else protocol.usual_budget)
    if name not in protocol.budgets:
        raise UserError(f"--budget {name!r}: protocol {protocol.name} has none of that name",
                        expected=nearest(name, protocol.budgets))  # fmt: skip
    budget, validations = protocol.budgets[name]
    if overrides.until_plateau:
        budget = _until_plateau(budget, overrides, protocol)
    elif overrides.validate_every is not None or overrides.patience is not None:
        raise UserError(f"--{'patience' if overrides.validate_every is None else 'validate-every'} says how training "
                        "until a plateau goes", fix="add --until-plateau")  # fmt: skip
    changed: dict[str, Any] = {name: getattr(overrides, name) for name in RATES if getattr(overrides, name) is not None}
    if overrides.learning_rate is not None:  # one rate for everything, unless another is given
        changed = {"pretrained_rate": 1.0, **changed}
    budget = budget.model_copy(update=changed)
    if budget.plateau is not None:
        validations = max(1, budget.steps // budget.plateau.validate_every)
    limit = protocol.pixels.windows.largest(chip_size)
    usual = min(protocol.small_window if small else protocol.window, limit)
    window = overrides.window or usual // backbone.token * backbone.token
    if window > limit or window % backbone.token or window < max(8, backbone.token):
        nearest_one = _nearest_window(window, backbone.token, limit)
        raise UserError(
            f"{f'a window of {window} px does not suit' if window else 'no window suits'} {benchmark.id}: chips are "
            f"{chip_size} px, {_grain(backbone)}",
            expected=_windows(backbone.token, limit),
            fix=f"--window {nearest_one}, or leave it out" if nearest_one else "choose a backbone with smaller patches",
        )
    overlaps = protocol.pixels.windows.overlaps
    stride = overrides.stride or (max(1, window // 2) if overlaps else window)
    if stride != window and not overlaps:
        raise UserError(f"--stride {stride}: under protocol {protocol.name} a window is a whole chip",
                        fix="leave out --stride")  # fmt: skip
    if stride > window:
        raise UserError(f"a stride of {stride} px skips pixels between windows of {window} px", fix="lower --stride")
    return RunSettings(
        protocol=protocol.name,
        augment=getattr(protocol.pixels.augment, "name", "none"),
        budget=budget,
        window=window,
        stride=stride,
        validations=overrides.validations or validations,
        precision=overrides.precision,
        compile=overrides.compile,
    )
