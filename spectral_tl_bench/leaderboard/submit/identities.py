"""The identity of a record, held against the benchmark and the code that are here."""

from __future__ import annotations

import functools
import json
from typing import Any, cast

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.identity import benchmark_digest
from spectral_tl_bench.later_options import as_recorded
from spectral_tl_bench.leaderboard.submit.findings import Finding, refused, warning
from spectral_tl_bench.leaderboard.submit.text import quoted
from spectral_tl_bench.methods.base import Method
from spectral_tl_bench.methods.registry import distribution_of, load_method, make_method, method_entries, split_name
from spectral_tl_bench.models.backbones import load_backbone
from spectral_tl_bench.objectives.registry import load_objective, make_objectives
from spectral_tl_bench.protocol.numerics import numerics_of
from spectral_tl_bench.protocol.registry import get_protocol
from spectral_tl_bench.results.schema import Record

SUITE = "spectral-tl-bench"
_NEEDED = ("python", "platform", SUITE, "suite code", "torch")


def check_environment(record: Record, where: str) -> list[Finding]:
    """Whether a record says with which code it was made."""
    missing = [name for name in _NEEDED if not record.environment.get(name)]
    if not any(name.startswith("method package ") for name in record.environment):
        missing.append("method package ...")
    return [refused(where, f"key 'environment' lacks {', '.join(missing)}")] if missing else []


def check_identity(record: Record, benchmark: Benchmark, where: str) -> list[Finding]:
    """Hold a record's identity against the benchmark, and against the method that is installed here.

    That the fingerprint follows from what the record says is a rule of the record itself.

    Args:
        where: Named in findings.

    Returns:
        Refusals for what contradicts; warnings with the reason for what cannot be told here.
    """
    entries, name = method_entries(), split_name(record.method)[0]
    ours = name in entries and distribution_of(name)[0] == SUITE
    if ours and f"method package {SUITE}" not in record.environment:
        return [refused(where, f"the method's name {quoted(name)} belongs to the suite, the record's method does not")]
    if record.numerics is None or record.definition is None:
        findings = _against_class(record, load_method(name), where) if ours else []
        return [*findings, warning(where, "its identity is not known: it comes from an earlier version of the suite")]
    if record.definition != benchmark_digest(benchmark.model_dump(mode="json")):
        return [refused(where, "it was run on another definition of the benchmark than the one that stands here")]
    if name not in entries:
        return [warning(where, f"its options cannot be checked: method {quoted(name)} is not installed here")]
    try:
        method, objectives = _made(record.method, json.dumps(record.options), json.dumps(record.objectives))
    except UserError as error:
        return [refused(where, f"its options are not those of the installed method: {error.what}")]
    return [*_contradictions(record, method, objectives, where), *_other_versions(record, method, objectives, where)]


def _other_versions(record: Record, method: Method, objectives: dict[str, Any], where: str) -> list[Finding]:
    """Whether other components took part than here, or in other versions."""
    try:
        facts = record.backbone
        backbone = load_backbone(facts.name).reading_as(facts) if facts is not None else cast(Any, None)
        until_plateau = "plateau" in cast(dict[str, Any], record.settings["budget"])
        protocol = get_protocol(record.protocol)
        installed = numerics_of(protocol, record.method, method, objectives, backbone, until_plateau)
    except UserError as error:
        return [warning(where, f"its numerics versions cannot be compared: {error.what}")]
    versions = record.numerics or {}
    if versions.keys() != installed.keys():
        odd = ", ".join(sorted(versions.keys() ^ installed.keys()))
        return [refused(where, f"key 'numerics' names other components than take part: {quoted(odd)}")]
    other = [
        f"{name} {quoted(versions[name])}, here {installed[name]}"
        for name in installed
        if versions[name] != installed[name]
    ]
    return [warning(where, f"made by other numerics versions: {'; '.join(other)}")] if other else []


@functools.lru_cache(maxsize=512)
def _made(name: str, options: str, objectives: str) -> tuple[Method, dict[str, Any]]:
    of_objectives = {key: as_recorded(load_objective(key), values) for key, values in json.loads(objectives).items()}
    method = make_method(name, as_recorded(load_method(name), json.loads(options)))
    return method, dict(make_objectives(name, of_objectives))


def _contradictions(record: Record, method: Method, objectives: dict[str, Any], where: str) -> list[Finding]:
    objective_options = {name: objective.model_dump(mode="json") for name, objective in objectives.items()}
    said = {
        "options": (record.options, method.model_dump(mode="json")),
        "objectives": (record.objectives, objective_options),
    }
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
            where, f"key '{key}' is {quoted(value)}, the installed method {quoted(record.method)} has {quoted(right)}"
        )
        for key, (value, right) in said.items()
        if value != right
    ]
