"""Methods by name, found through entry points: ours and anybody's in the same way.

A name may be followed by one of the method's presets, and by objectives: ``spectralx@hypert+vrex+swad``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint
from types import MappingProxyType
from typing import Annotated, Any, cast

from pydantic import TypeAdapter, ValidationError

from spectral_tl_bench.errors import MethodError, UserError, nearest
from spectral_tl_bench.methods.base import Method
from spectral_tl_bench.objectives.registry import check_objectives, split_objectives
from spectral_tl_bench.plugins import NAME, imported_class, installed, offered, package_of, with_options

GROUP = "spectral_tl_bench.methods"
SEPARATOR = "@"
"""Stands between the name of a method and that of a preset."""


def split_name(name: str) -> tuple[str, str | None]:
    """The method's own name, and that of the preset where there is one; objectives are left out."""
    base, separator, preset = split_objectives(name)[0].partition(SEPARATOR)
    return base, preset if separator else None


def method_entries() -> dict[str, EntryPoint]:
    """All installed methods by name; nothing is imported."""
    return installed(GROUP)


def check_known(names: Iterable[str]) -> None:
    """Refuse names that no installed package offers; nothing is imported, hence presets are not looked at.

    Raises:
        MethodError: If a name is unknown; it names the closest ones.
    """
    for full_name in names:
        name, _ = split_name(full_name)
        entry = offered(name, GROUP, "method")
        if not NAME.fullmatch(name):
            raise MethodError(
                f"the method name {name!r} cannot be a folder name, which records need",
                where=entry.value,
                expected="letters, digits, dots, dashes and underscores, 64 at most",
            )
        check_objectives(full_name)


def load_method(name: str) -> type[Method]:
    """The class of a method; a preset in the name changes nothing about it.

    Raises:
        MethodError: If the name is unknown, or its package cannot be imported or holds no method.
    """
    check_known([name])
    name, _ = split_name(name)
    return imported_class(method_entries()[name], f"method {name!r}", Method)


def make_method(
    name: str, options: dict[str, Any] | None = None, usual: Mapping[str, Any] = MappingProxyType({})
) -> Method:
    """A method with options.

    Args:
        name: Entry-point name, by itself or with a preset.
        options: Values by option name; text is converted to the option's type. They win over those of the preset.
        usual: Values by option name that the preset wins over, as a protocol may have them. Those that the method's
            option of that name does not take are passed over, as are those without such an option.

    Raises:
        MethodError: If the preset or an option is unknown, or an option has an impossible value.
    """
    kind = load_method(name)
    known = {option: value for option, value in usual.items() if _takes(kind, option, value)}
    return with_options(kind, f"method {name!r}", {**known, **preset_options(kind, name), **(options or {})})


def _takes(kind: type[Method], option: str, value: Any) -> bool:
    """Whether a method has an option of that name and such a value."""
    field = kind.model_fields.get(option)
    if field is None:
        return False
    try:
        TypeAdapter(cast(Any, Annotated)[field.annotation, field]).validate_python(value)
    except (ValidationError, UserError):
        return False
    return True


def preset_options(kind: type[Method], name: str) -> dict[str, Any]:
    """The options that a full name stands for; none without a preset.

    Args:
        kind: The method's class.
        name: Entry-point name, by itself or with a preset.

    Raises:
        MethodError: If the method has no such preset, or its name cannot be a folder name.
    """
    base, preset = split_name(name)
    if preset is None:
        return {}
    if not kind.presets:
        raise MethodError(f"method {base!r} has no presets", where=name, fix=f"use {base} and options")
    if preset not in kind.presets:
        raise MethodError(f"method {base!r} has no preset {preset!r}", expected=nearest(preset, kind.presets))
    if not NAME.fullmatch(preset):
        raise MethodError(
            f"the preset name {preset!r} of method {base!r} cannot be part of a folder name, which records need",
            where=f"{kind.__module__}.{kind.__name__}",
            expected="letters, digits, dots, dashes and underscores, 64 at most",
        )
    return dict(kind.presets[preset])


def distribution_of(name: str) -> tuple[str, str]:
    """Name and version of the installed package that a method comes from."""
    return package_of(method_entries()[split_name(name)[0]])
