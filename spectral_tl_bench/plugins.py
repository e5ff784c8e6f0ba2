"""What installed packages offer through entry points: finding it, importing it, making it with options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from spectral_tl_bench.errors import MethodError, UserError, nearest

Model = TypeVar("Model", bound=BaseModel)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a method, preset or objective may be called: its name becomes part of a folder name."""


def installed(group: str, kind: str) -> dict[str, EntryPoint]:
    """All entry points of a group by name; nothing is imported.

    Args:
        group: The entry-point group.
        kind: What the group holds, for the message.

    Raises:
        MethodError: If two different packages offer the same name.
    """
    entries: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        other = entries.get(entry.name)
        if other is not None and other.value != entry.value:
            raise MethodError(
                f"two installed packages offer {kind} {entry.name!r}: {other.value} and {entry.value}",
                fix="uninstall one of them, or rename its entry point",
            )
        entries[entry.name] = entry
    return dict(sorted(entries.items()))


def package_of(entry: EntryPoint | None) -> tuple[str, str]:
    """Name and version of the distribution that an entry point comes from."""
    distribution = entry.dist if entry is not None else None
    return (distribution.name, distribution.version) if distribution else ("unknown", "unknown")


def imported(entry: EntryPoint, label: str, failure: type[UserError] = MethodError) -> Any:
    """The object behind an entry point.

    Args:
        entry: The entry point.
        label: What it is, with its name, for the message.
        failure: What to raise.

    Raises:
        UserError: As ``failure``, if the package cannot be imported.
    """
    try:
        return entry.load()
    except Exception as error:  # whatever a foreign package raises at import
        raise failure(f"{label} cannot be imported: {type(error).__name__}: {error}", where=entry.value) from error


def imported_class(entry: EntryPoint, label: str, base: type, failure: type[UserError] = MethodError) -> Any:
    """The class behind an entry point.

    Args:
        entry: The entry point.
        label: What it is, with its name, for the message.
        base: What it has to be a subclass of.
        failure: What to raise.

    Raises:
        UserError: As ``failure``, if the package cannot be imported or holds something else.
    """
    kind = imported(entry, label, failure)
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise failure(f"{label} is not a subclass of {base.__module__}.{base.__name__}", where=entry.value)
    return kind


def with_options(
    kind: type[Model], label: str, options: Mapping[str, Any], failure: type[UserError] = MethodError
) -> Model:
    """An object of a class, with options.

    Args:
        kind: The class.
        label: What it is, with its name, for the message.
        options: Values by option name; text is converted to the option's type.
        failure: What to raise.

    Raises:
        UserError: As ``failure``, if an option is unknown or has an impossible value, or the class is abstract.
    """
    try:
        return kind(**options)
    except TypeError as error:  # an abstract class
        raise failure(f"{label} is not complete: {error}", where=f"{kind.__module__}.{kind.__name__}") from None
    except ValidationError as error:
        item = error.errors()[0]
        option = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            raise failure(f"{label} has no option {option!r}", expected=nearest(option, kind.model_fields)) from None
        message = item["msg"].removeprefix("Value error, ")
        if not option:  # a rule about several options
            raise failure(f"options of {label}: {message}") from None
        raise failure(
            f"option {option!r} of {label}: {message[0].lower()}{message[1:]}", expected=f"not {item['input']!r}"
        ) from None
