"""Objectives by name, as parts of a method's full name: ``lora+groupdro``, ``spectralx@hypert+vrex+swad``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint
from typing import Any

from spectral_tl_bench.console import enter_once
from spectral_tl_bench.errors import MethodError, UserError, nearest
from spectral_tl_bench.objectives.base import Objective
from spectral_tl_bench.plugins import NAME, imported_class, installed, offered, with_options

GROUP = "spectral_tl_bench.objectives"
SEPARATOR = "+"
"""Stands between a method, with its preset if it has one, and every objective."""

Options = Mapping[str, Mapping[str, Any]]
"""Values by objective and option."""


def split_objectives(name: str) -> tuple[str, tuple[str, ...]]:
    """The method, with its preset, and the objectives of a full name."""
    method, *objectives = name.split(SEPARATOR)
    return method, tuple(objectives)


def in_order(name: str) -> str:
    """A full name with its objectives in alphabetical order, so that it does not depend on how it was typed."""
    method, objectives = split_objectives(name)
    return SEPARATOR.join((method, *sorted(objectives)))


def objective_entries() -> dict[str, EntryPoint]:
    """All installed objectives by name; nothing is imported."""
    return installed(GROUP)


def check_objectives(name: str) -> None:
    """Refuse objectives in a full name that no installed package offers; nothing is imported.

    Raises:
        MethodError: If one is unknown, or named twice.
    """
    _, objectives = split_objectives(name)
    for objective in objectives:
        if "@" in objective:
            raise MethodError(
                f"objective {objective!r} in {name!r} has a preset, which only methods have",
                expected="method@preset+objective",
            )
        entry = offered(objective, GROUP, "objective", where=name)
        if not NAME.fullmatch(objective):
            raise MethodError(
                f"the objective name {objective!r} cannot be part of a folder name, which records need",
                where=entry.value,
                expected="letters, digits, dots, dashes and underscores, 64 at most",
            )
    twice = sorted({objective for objective in objectives if objectives.count(objective) > 1})
    if twice:
        raise MethodError(f"objective {twice[0]!r} is named twice", where=name)


def check_options(names: Iterable[str], options: Options) -> None:
    """Refuse options of objectives that no method of a run has.

    Raises:
        UserError: If there are any.
    """
    used = {objective for name in names for objective in split_objectives(name)[1]}
    for objective, values in options.items():
        if objective not in objective_entries():
            raise UserError(
                f"--objective-option {objective}.{next(iter(values), '')}: there is no objective {objective!r}",
                expected=nearest(objective, objective_entries()),
            )
        if objective not in used:
            raise UserError(
                f"--objective-option {objective}.{next(iter(values), '')}: no method of this run has the objective "
                f"{objective!r}",
                expected=nearest(objective, used) if used else None,
                fix=f"add it to a method: --method lora{SEPARATOR}{objective}",
            )


def load_objective(name: str) -> type[Objective]:
    """The class of one objective.

    Raises:
        MethodError: If its package cannot be imported or holds no objective.
    """
    return imported_class(objective_entries()[name], f"objective {name!r}", Objective)


def make_objectives(name: str, options: Options | None = None) -> dict[str, Objective]:
    """The objectives of a full name, in its order.

    Args:
        name: A method's full name.
        options: Values by objective and option; those of other objectives are passed over. Text is converted.

    Raises:
        MethodError: If an objective or option is unknown, a value impossible, or two objectives exclude each other.
    """
    check_objectives(name)
    objectives = {
        key: with_options(load_objective(key), f"objective {key!r}", (options or {}).get(key, {}))
        for key in split_objectives(name)[1]
    }
    for hook, what in (("risk", "say what is made of the losses of the domains"), ("average", "average the weights")):
        both = [key for key, objective in objectives.items() if objective.has(hook)]
        if len(both) > 1:
            raise MethodError(f"{' and '.join(both)} cannot be combined: each of them would {what}", where=name)
    return objectives


def read_options(entries: Sequence[str] | Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Values by objective and option, from texts of the form ``objective.option=value`` or as Python gives them.

    Raises:
        UserError: If a text is of another form, or an option comes twice.
    """
    if isinstance(entries, Mapping):
        return {name: dict(values) for name, values in entries.items()}
    options: dict[str, dict[str, str]] = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        objective, dot, option = key.strip().rpartition(".")
        if not (equals and dot and objective and option):
            raise UserError(f"--objective-option {entry!r} is not of the form objective.option=value")
        own, name = options.setdefault(objective, {}), option.replace("-", "_")
        enter_once(own, name, value.strip(), "--objective-option", f"{objective}.")
    return options


def check_domains(name: str, objectives: Mapping[str, Objective], benchmark: str, domains: Sequence[str]) -> None:
    """Refuse objectives that need more source domains than there are.

    Args:
        name: The method's full name.
        domains: The source domains that have training chips.

    Raises:
        UserError: If one of them cannot act.
    """
    for key, objective in objectives.items():
        if len(domains) < objective.needs():
            raise UserError(
                f"objective {key!r} of {name} needs {objective.needs()} source domains, {benchmark} has "
                f"{len(domains)} with training chips ({', '.join(domains)})",
                where=benchmark,
                fix="leave the objective out, or choose a benchmark with several source domains: whuohs-s2t, "
                "whuohs-t2s, dfc2020-autumn",
            )
