"""Methods by name, found through entry points: ours and anybody's in the same way."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import ValidationError

from spectral_tl_bench.errors import MethodError, nearest
from spectral_tl_bench.methods.base import Method

GROUP = "spectral_tl_bench.methods"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def method_entries() -> dict[str, EntryPoint]:
    """All installed methods by name; nothing is imported.

    Raises:
        MethodError: If two different packages offer a method of the same name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        other = found.get(entry.name)
        if other is not None and other.value != entry.value:
            raise MethodError(
                f"two installed packages offer a method {entry.name!r}: {other.value} and {entry.value}",
                fix="uninstall one of them, or rename its entry point",
            )
        found[entry.name] = entry
    return dict(sorted(found.items()))


def check_known(names: Iterable[str]) -> None:
    """Refuse names that no installed package offers; nothing is imported.

    Raises:
        MethodError: If a name is unknown; it names the closest ones.
    """
    entries = method_entries()
    for name in names:
        if name not in entries:
            raise MethodError(
                f"there is no method {name!r}",
                expected=nearest(name, entries),
                fix=f"a method of your own needs an entry point in the group {GROUP!r} and `pip install -e .`",
            )
        if not NAME.fullmatch(name):
            raise MethodError(
                f"the method name {name!r} cannot be a folder name, which records need",
                where=entries[name].value,
                expected="letters, digits, dots, dashes and underscores, 64 at most",
            )


def load_method(name: str) -> type[Method]:
    """The class of a method.

    Raises:
        MethodError: If the name is unknown, or its package cannot be imported or holds no method.
    """
    check_known([name])
    entries = method_entries()
    try:
        found = entries[name].load()
    except Exception as error:  # whatever a foreign package raises at import
        raise MethodError(
            f"method {name!r} cannot be imported: {type(error).__name__}: {error}", where=entries[name].value
        ) from error
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise MethodError(
            f"method {name!r} is not a subclass of spectral_tl_bench.methods.base.Method", where=entries[name].value
        )
    return found


def make_method(name: str, options: dict[str, Any] | None = None) -> Method:
    """A method with options.

    Args:
        name: Entry-point name.
        options: Values by option name; text is converted to the option's type.

    Raises:
        MethodError: If an option is unknown or has an impossible value.
    """
    kind = load_method(name)
    try:
        return kind(**(options or {}))
    except ValidationError as error:
        item = error.errors()[0]
        option = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            raise MethodError(
                f"method {name!r} has no option {option!r}", expected=nearest(option, kind.model_fields)
            ) from None
        message = item["msg"].removeprefix("Value error, ")
        if not option:  # a rule about several options
            raise MethodError(f"options of method {name!r}: {message}") from None
        raise MethodError(
            f"option {option!r} of method {name!r}: {message[0].lower()}{message[1:]}",
            expected=f"not {item['input']!r}",
        ) from None
    except TypeError as error:  # an abstract class
        raise MethodError(
            f"method {name!r} is not complete: {error}", where=f"{kind.__module__}.{kind.__name__}"
        ) from None


def distribution_of(name: str) -> tuple[str, str]:
    """Name and version of the installed package that a method comes from."""
    distribution = method_entries()[name].dist
    return (distribution.name, distribution.version) if distribution else ("unknown", "unknown")
