"""Any other tuner of HuggingFace peft, by its name and the fields of its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError, model_validator
from torch import nn

from spectral_tl_bench.errors import MethodError, nearest
from spectral_tl_bench.methods.tuners import LinearTunerMethod, without_advice

if TYPE_CHECKING:
    from peft import PeftConfig

PREFIX = "config."

ELSEWHERE = {"adalora": "adalora", "ia3": "ia3", "ln_tuning": "ln-tuning"}
"""Tuners that need more than a configuration, and our methods for them."""

UNFIT = {
    "boft": "without a CUDA extension that it compiles when it is used, peft falls back to one butterfly factor, which "
    "is OFT: results would depend on the machine; use the method oft",
    "adaption_prompt": "it is for language models",
    "poly": "it needs task ids with every batch",
    "shadow": "it needs a transformer of the transformers library",
    "trainable_tokens": "it is for embeddings of words",
    "xlora": "it mixes adapters that were trained before",
}
"""Tuners that cannot be used here, and why."""

OURS = (
    "peft_type", "task_type", "target_modules", "exclude_modules", "modules_to_save", "inference_mode", "auto_mapping",
    "base_model_name_or_path", "revision", "peft_version", "layers_to_transform", "layers_pattern", "save_projection",
)  # fmt: skip
"""Fields of configurations that are not the user's to set: the suite chooses the layers and keeps the weights."""


def tuners() -> dict[str, type[PeftConfig]]:
    """The tuners of the installed peft that can be used, with their configurations."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

    kinds = {str(getattr(kind, "value", kind)).lower(): kind for kind in PEFT_TYPE_TO_TUNER_MAPPING}
    return {
        name: PEFT_TYPE_TO_CONFIG_MAPPING[kind]
        for name, kind in sorted(kinds.items())
        if name not in ELSEWHERE.keys() | UNFIT.keys()
        and "target_modules" in {field.name for field in fields(PEFT_TYPE_TO_CONFIG_MAPPING[kind])}
    }


def config_class(tuner: str) -> type[PeftConfig]:
    """The configuration of a tuner.

    Raises:
        MethodError: If the installed peft has no such tuner, or it cannot be used here.
    """
    if tuner in ELSEWHERE:
        raise MethodError(f"tuner {tuner!r} needs more than a configuration", fix=f"use --method {ELSEWHERE[tuner]}")
    if tuner in UNFIT:
        raise MethodError(f"tuner {tuner!r} of peft cannot be used here: {UNFIT[tuner]}")
    known = tuners()
    if tuner not in known:
        hint = nearest(tuner, known)
        listed = f"known: {', '.join(known)}"
        raise MethodError(
            f"the installed peft has no tuner {tuner!r}", expected=hint if hint == listed else f"{hint} {listed}"
        )
    return known[tuner]


def checked_options(tuner: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a tuner's configuration, converted from text.

    Args:
        given: Values by field.

    Raises:
        MethodError: If there is no such tuner or field, or a value is impossible.
    """
    kind = config_class(tuner)
    known = [
        field.name for field in fields(kind) if field.init and field.name not in OURS and field.name != "runtime_config"
    ]
    hints, converted = get_type_hints(kind), {}
    for name, value in given.items():
        if name not in known:
            raise MethodError(
                f"tuner {tuner!r} of peft has no option {PREFIX}{name}",
                expected=f"{nearest(name, known)} known: {', '.join(known)}",
            )
        adapter = TypeAdapter(hints[name])
        try:
            converted[name] = _convert(adapter, value)
        except ValidationError as error:
            raise MethodError(
                f"option {PREFIX}{name} of tuner {tuner!r}: {error.errors()[0]['msg'].lower()}",
                expected=f"not {value!r}",
            ) from None
    return converted


def _convert(adapter: TypeAdapter[Any], value: Any) -> Any:
    """Text becomes what the type asks for; JSON where it asks for lists or dictionaries."""
    try:
        return adapter.validate_python(value)
    except ValidationError:
        if isinstance(value, str) and value[:1] in "[{":
            return adapter.validate_json(value)
        raise


class AnyTuner(LinearTunerMethod):
    """Any tuner of peft by name, with its own settings: ``-o tuner=lokr -o config.r=8``.

    Settings that are not given are peft's defaults. Whether an untrained adapter leaves the backbone as it is, and
    whether it can be merged, is the tuner's affair.
    """

    numerics_version = 1

    reference: ClassVar[str] = "HuggingFace peft"
    starts: ClassVar[str] = "as the tuner has it"
    differs: ClassVar[tuple[str, ...]] = (
        *LinearTunerMethod.differs,
        "Sizes and start values are peft's defaults, which need not be those of a tuner's paper: not checked.",
    )

    tuner: str = Field("lokr", description="name of the tuner, as peft has it")
    config: dict[str, Any] = Field(
        default_factory=dict, description="fields of the tuner's configuration, each as config.NAME=VALUE"
    )

    @model_validator(mode="before")
    @classmethod
    def _gathered(cls, options: Any) -> Any:
        if not isinstance(options, Mapping):
            return options
        given = {key.removeprefix(PREFIX): value for key, value in options.items() if key.startswith(PREFIX)}
        rest = {key: value for key, value in options.items() if not key.startswith(PREFIX)}
        return {**rest, "config": {**rest.get("config", {}), **given}} if given else rest

    @model_validator(mode="after")
    def _checked(self) -> Self:
        converted = checked_options(self.tuner, self.config)
        self._make(converted, "blocks")
        self.config.update(converted)  # the record holds numbers, not their text
        return self

    def peft_config(self, backbone: nn.Module) -> PeftConfig:
        """The tuner's configuration on the chosen layers."""
        return self._make(self.config, self.targets(backbone))

    def _make(self, options: Mapping[str, Any], targets: str) -> PeftConfig:
        kind = config_class(self.tuner)
        # Random projections that a seed gives again do not belong into every checkpoint, once for each layer.
        kept = {"save_projection": False} if "save_projection" in {field.name for field in fields(kind)} else {}
        try:
            with without_advice():
                return kind(target_modules=targets, **kept, **options)
        except (ValueError, TypeError) as error:
            raise MethodError(f"options of tuner {self.tuner!r}: {error}", fix="change the options config.*") from None
