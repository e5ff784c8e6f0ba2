"""What installed packages offer through entry points: finding it, importing it, making it with options."""

from __future__ import annotations

import contextlib
import functools
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from spectral_tl_bench.endings import LeftError, contained
from spectral_tl_bench.errors import MethodError, UserError, nearest
from spectral_tl_bench.trial import fate_of

Model = TypeVar("Model", bound=BaseModel)

_READ: dict[str, tuple[tuple[object, ...], dict[str, EntryPoint], list[Broken]]] = {}
"""What was read of each group, behind the state that Python's folders were in."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a method, preset or objective may be called: its name becomes part of a folder name."""

SUITE = "spectral-tl-bench"
PLACE = re.compile(r"[\w.]+\s*(:\s*[\w.]+\s*)?(\[.*\]\s*)?")
"""What an entry point may name: a module, mostly with an object in it."""


@dataclass(frozen=True)
class Broken:
    """An entry point that cannot be used.

    Attributes:
        name: What it wants to be called.
        package: Its distribution, with the version.
        place: The object that it names.
    """

    name: str
    package: str
    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} of {self.package} ({self.place}): {self.reason}"


def installed(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group that have a name of their own and name a place, by name; nothing is imported."""
    return _sifted(group)[0]


def broken(group: str) -> list[Broken]:
    """The other entry points of a group; nothing is imported."""
    return _sifted(group)[1]


def listed(group: str, load: Callable[[str], object]) -> tuple[dict[str, EntryPoint], list[Broken]]:
    """The entry points of a group that can be used, and the others.

    Args:
        load: Loads an object by name; it is asked for those of other packages, ours being tested.
    """
    usable, unusable = _sifted(group)
    for name, entry in list(usable.items()):
        if not is_ours(entry):
            try:
                load(name)
            except UserError as error:
                unusable.append(_broken(usable.pop(name), error.what))
    return usable, sorted(unusable, key=lambda one: (one.name, one.package))


def offered(name: str, group: str, noun: str, failure: type[UserError] = MethodError, **hints: Any) -> EntryPoint:
    """The entry point of a name; nothing is imported.

    Args:
        noun: What the group holds.
        failure: What to raise.
        **hints: Parts of the message where nothing is called so, instead of the usual ones.

    Raises:
        UserError: As ``failure``, if there is none that can be used; it names the closest ones.
    """
    usable, unusable = _sifted(group)
    if name in usable:
        return usable[name]
    reasons = [one for one in unusable if one.name == name]
    if reasons:
        raise failure(
            f"{noun} {name!r} cannot be used: {reasons[0].reason}",
            where=", ".join(f"{one.place} of {one.package}" for one in reasons),
            fix="uninstall the package, or mend its entry point",
        )
    usual = {
        "expected": nearest(name, usable),
        "fix": f"your own {noun} needs an entry point in the group {group!r} and `pip install -e .`",
    }
    raise failure(f"there is no {noun} {name!r}", **{**usual, **hints})


def _sifted(group: str) -> tuple[dict[str, EntryPoint], list[Broken]]:
    """Entry points that can be told apart and found, by name; and the others. Read again once packages have changed."""
    state = _state()  # before reading: what changes meanwhile is read next time
    if group not in _READ or _READ[group][0] != state:
        _READ[group] = (state, *_sift(group))
    _, usable, unusable = _READ[group]
    return dict(usable), list(unusable)


def _state() -> tuple[object, ...]:
    """What differs after a package was installed or removed: where Python looks, and when each folder last changed."""
    changed = []
    for folder in sys.path:
        try:
            changed.append(Path(folder).stat().st_mtime_ns)
        except OSError:
            changed.append(0)
    return *sys.path, *changed, *sys.meta_path


def _sift(group: str) -> tuple[dict[str, EntryPoint], list[Broken]]:
    entries, unusable = _entries(group)
    by_name: dict[str, dict[str, EntryPoint]] = {}
    usable: dict[str, EntryPoint] = {}
    ours = {id(entry.dist): is_ours(entry) for entry in {id(entry.dist): entry for entry in entries}.values()}
    for entry in entries:
        if ours[id(entry.dist)]:
            usable[entry.name] = entry
        else:
            by_name.setdefault(entry.name, {})[entry.value] = entry
    for name, rivals in by_name.items():
        for entry in list(rivals.values()):
            if name in usable:
                unusable.append(_broken(entry, "the name belongs to the suite"))
            elif not PLACE.fullmatch(entry.value):
                unusable.append(_broken(rivals.pop(entry.value), f"{entry.value!r} is no place: module:object"))
        if len(rivals) > 1 and name not in usable:
            packages = " and ".join(f"{package_of(entry)[0]} ({value})" for value, entry in sorted(rivals.items()))
            reason = f"two installed packages offer this name: {packages}"
            unusable += [_broken(entry, reason) for entry in rivals.values()]
        elif name not in usable:
            usable.update((name, entry) for entry in rivals.values())
    return dict(sorted(usable.items())), unusable


def _entries(group: str) -> tuple[list[EntryPoint], list[Broken]]:
    """All entry points of a group, and the packages whose list of them cannot be read."""
    with contextlib.suppress(Exception):  # one unreadable list and there is none
        return list(entry_points(group=group)), []
    entries: list[EntryPoint] = []
    unusable = []
    for distribution in distributions():
        try:
            entries += distribution.entry_points.select(group=group)
        except Exception as error:
            with contextlib.suppress(Exception):
                if group in (distribution.read_text("entry_points.txt") or ""):
                    reason = f"its entry points cannot be read: {type(error).__name__}: {error}"
                    package = f"{distribution.name} {distribution.version}"
                    unusable.append(Broken("?", package, "entry_points.txt", reason))
    return entries, unusable


def _broken(entry: EntryPoint, reason: str) -> Broken:
    return Broken(entry.name, " ".join(package_of(entry)), entry.value, reason)


def is_ours(entry: EntryPoint | None) -> bool:
    """Whether an entry point comes from the suite itself."""
    return re.sub(r"[-_.]+", "-", package_of(entry)[0]).lower() == SUITE


def package_of(entry: EntryPoint | None) -> tuple[str, str]:
    """Name and version of the distribution that an entry point comes from."""
    return _named(entry.dist if entry is not None else None)


@functools.lru_cache  # of the object, which is kept: each look parses the README
def _named(distribution: Distribution | None) -> tuple[str, str]:
    if distribution is None:
        return "unknown", "unknown"
    return distribution.name or "unknown", distribution.version or "unknown"


def imported(entry: EntryPoint, label: str, failure: type[UserError] = MethodError) -> Any:
    """The object behind an entry point.

    Args:
        label: What it is, with its name, for the message.
        failure: What to raise.

    Raises:
        UserError: As ``failure``, if the package cannot be imported.
    """
    if not is_ours(entry) and entry.module not in sys.modules and (fate := fate_of(entry.load)):
        raise failure(f"{label} cannot be imported: {fate}", where=entry.value)
    try:
        with contained():
            return entry.load()
    except Exception as error:  # whatever a foreign package raises at import
        reason = str(error) if isinstance(error, LeftError) else f"{type(error).__name__}: {error}"
        raise failure(f"{label} cannot be imported: {reason}", where=entry.value) from error


def imported_class(entry: EntryPoint, label: str, base: type, failure: type[UserError] = MethodError) -> Any:
    """The class behind an entry point.

    Args:
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
        label: What it is, with its name, for the message.
        options: Values by option name; text is converted to the option's type.
        failure: What to raise.

    Raises:
        UserError: As ``failure``, if an option is unknown or has an impossible value, or the class is abstract.
    """
    try:
        with contained():
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
    except UserError:
        raise
    except Exception as error:  # whatever a foreign class does with its options
        raise failure(f"{label} does not take its options: {type(error).__name__}: {error}") from error
