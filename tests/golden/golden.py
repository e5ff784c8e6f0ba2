"""Committed numbers of every component, and the rule about them: numbers move together with a numerics version.

Results are found again by an identity that names the numerics version of every component (``spectral_tl_bench.
identity``). A change that moves numbers and leaves the version as it is would let old and new results stand side by
side. Here each component has a small case: a few numbers, computed from seeds, and kept in ``values/`` with the
versions that they belong to. The only way to other values is to raise the version first.

**Tolerance.** Whole numbers must be the same. Of a list of other numbers none may differ by more than ``TOLERANCE``
times the largest of the list. Numbers that belong into one list have one unit and one size for that reason; norms of
gradients, which span decades, are kept as logarithms. Machines differ by rounding alone, since all chance comes from
torch's generator on the CPU and from NumPy, whose streams do not depend on the machine (torch draws ``dropout`` by
another library on Intel's processors, so layers of dropout are switched off, and their rates are numbers of the case).
What would blow rounding up is kept out: steps of methods go along the gradient and have a given length, because
AdamW's first ones are signs; and norms over groups or batches have a larger epsilon in methods' cases, because two
values are normalised to signs, too. The largest difference that was measured between kernels
(``ATEN_CPU_CAPABILITY=default``, ``avx2`` and ``avx512``) is 5e-6, a twentieth of the tolerance; between one thread and
two 1e-5; between Python 3.11 with TorchGeo 0.8 and NumPy 2.4 and Python 3.13 with TorchGeo 0.10 and NumPy 2.5 none.
Confusion matrices of trained modules are shares of about a thousand pixels: one that tips over counts as moved.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectral_tl_bench.data import rasters
from spectral_tl_bench.evaluation import evaluate
from spectral_tl_bench.features import kept
from spectral_tl_bench.files import write_text
from spectral_tl_bench.methods.registry import load_method, method_entries
from spectral_tl_bench.models import decoders, patch_embedding
from spectral_tl_bench.models.backbones import input_scale
from spectral_tl_bench.models.backbones.registry import backbone_entries, load_backbone
from spectral_tl_bench.objectives.registry import load_objective, objective_entries
from spectral_tl_bench.plugins import package_of
from spectral_tl_bench.protocol.registry import get_protocol
from spectral_tl_bench.training import plateau, task

VALUES = Path(__file__).parent / "values"
TOLERANCE = 1e-4
OURS = "spectral-tl-bench"
DIGITS = 7

Numbers = list[int] | list[float]
Values = Mapping[str, Numbers]


@dataclass(frozen=True)
class Case:
    """A component's numbers.

    Attributes:
        name: Of the component, as ``protocol.numerics`` has it, or of something that another one's version speaks for.
        numbers: Yields named lists of numbers, the cheap ones first: a comparison stops where they begin to differ.
        speaks: The components whose versions the numbers belong to, first the one to raise when they move. Without
            any, nothing may ever move them.
    """

    name: str
    numbers: Callable[[], Iterable[tuple[str, Numbers]]]
    speaks: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The committed values."""
        return VALUES / f"{self.name.replace(' ', '-')}.json"

    def versions(self) -> dict[str, str]:
        """The numerics versions that the numbers belong to, as they are now."""
        return {name: str(getattr(*owner_of(name))) for name in self.speaks}


def ours(entries: Mapping[str, Any]) -> list[str]:
    """Names of the entry points that this distribution brings, in order."""
    return sorted(name for name, entry in entries.items() if package_of(entry)[0] == OURS)


@functools.cache
def kinds(group: str) -> dict[str, type]:
    """Our methods or objectives by name: ``method`` or ``objective``."""
    if group == "method":
        return {name: load_method(name) for name in ours(method_entries())}
    return {name: load_objective(name) for name in ours(objective_entries())}


@functools.cache
def families() -> dict[str, list[str]]:
    """Our backbones by family."""
    found: dict[str, list[str]] = {}
    for name in ours(backbone_entries()):
        found.setdefault(load_backbone(name).make.family, []).append(name)  # type: ignore[attr-defined]
    return dict(sorted(found.items()))


def owner_of(component: str) -> tuple[Any, str]:
    """The object that a component's numerics version stands on, and the attribute's name.

    Raises:
        KeyError: If there is no such component.
    """
    kind, _, name = component.partition(" ")
    if kind in ("method", "objective"):
        return kinds(kind)[name], "numerics_version"
    if component == "backbone reading":
        return input_scale, "NUMERICS_VERSION"
    if kind == "backbone":
        return load_backbone(families()[name][0]).make, "numerics_version"
    modules = {
        "data": rasters, "training": task, "evaluation": evaluate, "kept features": kept, "decoder": decoders,
        "patch embedding": patch_embedding, "plateau": plateau,
    }  # fmt: skip
    if component in modules:
        return modules[component], "NUMERICS_VERSION"
    part = get_protocol(kind).parts()[name] if name else get_protocol("strict").parts()[component]
    return (part if isinstance(part, type) else type(part)), "numerics_version"


def components() -> list[str]:
    """All components of this distribution that have a numerics version."""
    return [
        "data", "training", "evaluation", "kept features", "decoder", "patch embedding", "plateau",
        *get_protocol("strict").parts(),
        *(f"published {part}" for part in ("normalisation", "augmentation", "windows")), "as-published selection",
        "backbone reading", *(f"backbone {name}" for name in families()),
        *(f"objective {name}" for name in kinds("objective")),
        *(f"method {name}" for name in kinds("method")),
    ]  # fmt: skip


def complaint(case: Case) -> str | None:
    """What is wrong with a component's numbers; None where they are the committed ones."""
    how = f"`make golden COMPONENT='{case.name}'`"
    if not case.path.is_file():
        return f"{case.name} has no golden values: write them with {how} and commit {case.path.name}"
    stored = json.loads(case.path.read_text(encoding="utf-8"))
    other = changed(stored["versions"], case.versions())
    if other:
        return f"the numerics version of {other}: write the golden values of {case.name} anew, with {how}"
    difference = first_difference(stored["values"], case.numbers())
    if difference is None:
        return None
    if not case.speaks:
        return f"the numbers of {case.name} moved: they must never, take the change back\n  {difference}"
    lines = [
        f"the numbers of {case.name} moved: raise its numerics version, or take the change back",
        f"  {difference}",
        f"  its version: {place_of(case.speaks[0])}; when it is raised, write the new values with {how}",
    ]
    return "\n".join(lines)


def place_of(component: str) -> str:
    """Where a numerics version is written."""
    owner, attribute = owner_of(component)
    name = getattr(owner, "__qualname__", "")
    if component.startswith("backbone ") and attribute == "numerics_version":
        return f"@family({component.partition(' ')[2]!r}, numerics_version=...) in {owner.__module__}"
    return f"{owner.__module__}.{name}.{attribute}" if name else f"{owner.__name__}.{attribute}"


def changed(stored: Mapping[str, str], now: Mapping[str, str]) -> str:
    """The first version that is not the stored one, in words; empty where all are."""
    for name, version in now.items():
        if stored.get(name) != version:
            verb = "was lowered" if lower(version, stored.get(name)) else "was raised"
            return f"{name} {verb} ({stored.get(name, 'none')} -> {version})"
    return ""


def lower(version: str, than: str | None) -> bool:
    """Whether a version went down; only of whole numbers that can be said."""
    return than is not None and version.isdigit() and than.isdigit() and int(version) < int(than)


def first_difference(expected: Values, numbers: Iterable[tuple[str, Numbers]]) -> str | None:
    """The first numbers that are not as expected, in words."""
    seen = set()
    for name, found in numbers:
        seen.add(name)
        wanted = expected.get(name)
        if wanted is None:
            return f"{name}: {shown(found)} is new"
        if differ(wanted, found):
            return f"{name}: expected {shown(wanted)}, found {shown(rounded(found))}"
    missing = [name for name in expected if name not in seen]
    return f"{missing[0]}: expected {shown(expected[missing[0]])}, found nothing" if missing else None


def differ(expected: Numbers, found: Numbers) -> bool:
    """Whether two lists of numbers are not the same, within the tolerance."""
    if len(expected) != len(found):
        return True
    if all(isinstance(value, int) for value in [*expected, *found]):
        return expected != found
    return deviation(expected, found) > TOLERANCE


def deviation(expected: Numbers, found: Numbers) -> float:
    """The largest difference of two lists, in multiples of the largest number of the first."""
    scale = max((abs(value) for value in expected), default=0.0) or 1.0
    return max(
        (abs(one - other) / scale if math.isfinite(other) else math.inf
         for one, other in zip(expected, found, strict=True)),
        default=0.0,
    )  # fmt: skip


def shown(values: Numbers) -> str:
    """The first of some numbers."""
    text = ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values[:6])
    return f"[{text}{', ...' if len(values) > 6 else ''}]"


def rounded(values: Numbers) -> Numbers:
    """The values as they are written."""
    return [value if isinstance(value, int) else float(f"{value:.{DIGITS}g}") for value in values]  # type: ignore[return-value]


class RefusedError(Exception):
    """Values that may not be written."""


def write(case: Case) -> bool:
    """Write a component's values, if their version has been raised or they are new.

    Returns:
        Whether anything was written; not where the committed values hold.

    Raises:
        RefusedError: If the numbers moved and no version did, or a version went down.
    """
    versions = case.versions()
    if case.path.is_file():
        stored = json.loads(case.path.read_text(encoding="utf-8"))
        if stored["versions"] == versions:
            if (problem := complaint(case)) is not None:
                raise RefusedError(problem)
            return False
        for name, version in versions.items():
            if lower(version, stored["versions"].get(name)):
                raise RefusedError(f"the numerics version of {changed(stored['versions'], versions)}: it only goes up")
    values = {name: rounded(numbers) for name, numbers in case.numbers()}
    write_text(case.path, as_json(versions, values))
    return True


def as_json(versions: Mapping[str, str], values: Values) -> str:
    """Versions and values, a line for each list."""
    lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(numbers)}" for name, numbers in values.items())
    return f'{{\n  "versions": {json.dumps(versions)},\n  "values": {{\n{lines}\n  }}\n}}\n'


def named(prefix: str, numbers: Iterable[tuple[str, Numbers]]) -> Iterator[tuple[str, Numbers]]:
    """Numbers with something in front of their names."""
    for name, values in numbers:
        yield f"{prefix}: {name}", values
