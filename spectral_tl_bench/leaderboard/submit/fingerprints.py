"""The fingerprint of a record, computed again from what it says and from the code that is installed."""

from __future__ import annotations

import functools
import json
from types import SimpleNamespace
from typing import Any, cast

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.identity import suite_code
from spectral_tl_bench.leaderboard.submit.findings import Finding, refused, warning
from spectral_tl_bench.leaderboard.submit.text import quoted, shown
from spectral_tl_bench.methods.base import Method
from spectral_tl_bench.methods.registry import distribution_of, load_method, make_method, method_entries, split_name
from spectral_tl_bench.objectives.registry import make_objectives
from spectral_tl_bench.protocol.settings import RunSettings
from spectral_tl_bench.results.schema import Record
from spectral_tl_bench.runner.definitions import Cell

SUITE = "spectral-tl-bench"
_NEEDED = ("python", "platform", SUITE, "suite code", "torch")


def check_environment(record: Record, where: str) -> list[Finding]:
    """Whether a record says with which code it was made."""
    missing = [name for name in _NEEDED if not record.environment.get(name)]
    if not any(name.startswith("method package ") for name in record.environment):
        missing.append("method package ...")
    return [refused(where, f"key 'environment' lacks {', '.join(missing)}")] if missing else []


def check_fingerprint(record: Record, benchmark: Benchmark, where: str) -> list[Finding]:
    """Compute a fingerprint again, where the code that made the record is installed here.

    Args:
        record: The record.
        benchmark: Its definition.
        where: Named in findings.

    Returns:
        A refusal if it does not follow from the record; a warning with the reason if it cannot be computed here.
    """
    entries, name = method_entries(), split_name(record.method)[0]
    ours = name in entries and distribution_of(name)[0] == SUITE
    if ours and f"method package {SUITE}" not in record.environment:
        return [refused(where, f"the method's name {quoted(name)} belongs to the suite, the record's method does not")]
    reason = _not_here(record)
    if reason is not None:
        found = _against_class(record, load_method(name), where) if ours else []
        return [*found, warning(where, f"its fingerprint cannot be computed again: {reason}")]
    try:
        method, objectives = _made(record.method, json.dumps(record.options), json.dumps(record.objectives))
    except UserError as error:
        return [refused(where, f"its options are not those of the installed method: {error.what}")]
    found = _contradictions(record, method, objectives, where)
    expected = _fingerprint(record, benchmark, method, objectives)
    if expected is None or expected.startswith(record.fingerprint):
        return found
    reason = f"key 'fingerprint' is {shown(record.fingerprint[:16])}..., it follows to be {expected[:16]}..."
    package, _ = distribution_of(record.method)
    if package != SUITE:
        return [*found, warning(where, f"{reason}; the package {package} may have been changed without a new version")]
    return [*found, refused(where, f"{reason}: the record was edited after the run")]


def _not_here(record: Record) -> str | None:
    """Why a fingerprint cannot be computed with the code that is installed; None where it can."""
    code, name = suite_code(), split_name(record.method)[0]
    if record.environment.get("suite code") != code:
        return f"made by the suite's code {quoted(record.environment.get('suite code'))}, here is {code}"
    if name not in method_entries():
        return f"method {quoted(name)} is not installed here"
    package, version = distribution_of(record.method)
    told = record.environment.get(f"method package {package}")
    if told != version:
        return f"it was made with {quoted(told)} of the package {package}, here is {version}"
    if record.data is None:
        return "it does not say which data it saw"
    if any(stage.options.get("given") for stage in record.stages):
        return "the first stage was given by hand"
    return None


@functools.lru_cache(maxsize=512)
def _made(name: str, options: str, objectives: str) -> tuple[Method, dict[str, Any]]:
    return make_method(name, json.loads(options)), dict(make_objectives(name, json.loads(objectives)))


def _contradictions(record: Record, method: Method, objectives: dict[str, Any], where: str) -> list[Finding]:
    found = {name: one.model_dump(mode="json") for name, one in objectives.items()}
    said = {"options": (record.options, method.model_dump(mode="json")), "objectives": (record.objectives, found)}
    return [*_unequal(said, record, where), *_against_class(record, type(method), where)]


def _against_class(record: Record, method: type[Method], where: str) -> list[Finding]:
    """What holds for a method whatever its options, and for one of the suite in every version of its code."""
    said = {
        "family": (record.family, method.family),
        "target_images": (record.target_images, method.target_images),
        "backbone": (record.backbone is not None, method.uses_backbone),
    }
    return _unequal(said, record, where)


def _unequal(said: dict[str, tuple[Any, Any]], record: Record, where: str) -> list[Finding]:
    return [
        refused(
            where, f"key '{key}' is {quoted(told)}, the installed method {quoted(record.method)} has {quoted(right)}"
        )
        for key, (told, right) in said.items()
        if told != right
    ]


def _fingerprint(record: Record, benchmark: Benchmark, method: Method, objectives: dict[str, Any]) -> str | None:
    """Through ``Cell.fingerprint``, which stands in one place, with the record's own word for data and backbone."""
    facts = record.backbone.model_dump(mode="json") if record.backbone is not None else None
    data = record.data
    if data is None:
        return None
    cell = Cell(
        opened=cast(Any, SimpleNamespace(benchmark=benchmark, index=SimpleNamespace(manifest=data.manifest_hash))),
        method_name=record.method,
        method=method,
        backbone=cast(Any, SimpleNamespace(facts=lambda: facts)),
        settings=RunSettings.model_validate(record.settings),
        seed=record.seed,
        objectives=objectives,
    )
    return cell.fingerprint(cast(Any, SimpleNamespace(hash=data.split_hash)))
