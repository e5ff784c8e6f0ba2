"""Records of schema 1 as records of today: the same numbers, their identity rebuilt from their own facts.

Schema 1 knew a result by a hash over the suite's source text, which no later version of the suite can compute again.
What the number depends on is in the record all the same, but for the numerics versions of the code. These are known for
the states of the code in ``KNOWN_CODE`` alone.
"""

from __future__ import annotations

from typing import Any

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.identity import RunIdentity, backbone_inputs, benchmark_digest
from spectral_tl_bench.methods.registry import distribution_of, make_method
from spectral_tl_bench.models.backbones import load_backbone
from spectral_tl_bench.models.backbones.registry import backbone_entries
from spectral_tl_bench.objectives.registry import make_objectives, objective_entries
from spectral_tl_bench.plugins import installed, package_of
from spectral_tl_bench.protocol.names import GROUP as PROTOCOLS
from spectral_tl_bench.protocol.numerics import numerics_of
from spectral_tl_bench.protocol.registry import get_protocol
from spectral_tl_bench.results.evidence import Evidence
from spectral_tl_bench.results.reading import validated
from spectral_tl_bench.results.schema import Record

SUITE = "spectral-tl-bench"

KNOWN_CODE = {"976bc6c03589762f": "1"}
"""Numerics version of all components of the suite, by the hash of its code (``environment["suite code"]``).

976bc6c03589762f (commit 012d057) made all results that were published under schema 1. On one machine, with one set of
libraries, it and the code that knows numerics versions gave the same confusion matrices and validation traces, bit for
bit, in all of 15 short cells: a floor, networks, tuners, both readings of SpectralX, an objective, kept features.
"""


def bring_over(record: Record, evidence: Evidence | None, benchmark: Benchmark | None) -> tuple[Record, str]:
    """A record as schema 2 has it.

    Args:
        record: As it was read; of a record of today's schema nothing but how its evidence is known can change.
        evidence: Its evidence, checked; None for a failed cell.
        benchmark: The definition that the record names; None where there is none.

    Returns:
        The record, and why its identity is not known: it then keeps the hash that it came with. The reason is empty
        where the identity is known.

    Raises:
        RecordError: If the record contradicts itself.
    """
    fields = record.model_dump(mode="json")
    if evidence is not None:
        fields["evidence"] = {"sha256": evidence.sha256}
    reason = ""
    if record.identity() is None:
        identity, reason = _identity(record, benchmark)
        if identity is not None:
            fields |= {
                "definition": identity.definition,
                "numerics": identity.numerics,
                "fingerprint": identity.fingerprint,
                "earlier_fingerprint": record.fingerprint,
            }
    return validated(fields, record.path), reason


def _identity(record: Record, benchmark: Benchmark | None) -> tuple[RunIdentity | None, str]:
    """What the result depended on, or why that cannot be said."""
    code = record.environment.get("suite code", "")
    if code not in KNOWN_CODE:
        return None, "nothing is known about the numbers of the code that made it (key 'environment.suite code')"
    if record.data is None:
        return None, "it has no facts about its data"
    if benchmark is None or benchmark.version != record.benchmark_version:
        return None, f"version {record.benchmark_version} of its benchmark is not known here"
    if any(stage.options.get("given") for stage in record.stages):
        return None, "it started from a given first stage, of which it does not say the content"
    try:
        numerics = _numerics(record, KNOWN_CODE[code])
    except UserError as error:
        return None, error.what
    return RunIdentity(
        benchmark=record.benchmark, definition=benchmark_digest(benchmark.model_dump(mode="json")),
        manifest=record.data.manifest_hash, split=record.data.split_hash, method=record.method,
        options=record.options, objectives=record.objectives,
        backbone=backbone_inputs(record.backbone.model_dump(mode="json") if record.backbone else None),
        settings=record.settings, stage=None, seed=record.seed, numerics=numerics,
    ), ""  # fmt: skip


def _numerics(record: Record, version: str) -> dict[str, str]:
    """The components that took part, those of the suite in one version."""
    method = make_method(record.method, record.options)
    objectives = dict(make_objectives(record.method, record.objectives))
    objective_options = {name: objective.model_dump(mode="json") for name, objective in objectives.items()}
    if method.model_dump(mode="json") != record.options or objective_options != record.objectives:
        raise UserError("its method has other options today")
    package, version_here = distribution_of(record.method)
    version_told = record.environment.get(f"method package {package}")
    if version_told is None or (package != SUITE and version_told != version_here):
        raise UserError(f"its method is not of {package} {version_here}, which is installed here")
    entries = [installed(PROTOCOLS)[record.protocol], *(objective_entries()[name] for name in objectives)]
    if record.backbone is not None and record.backbone.name in backbone_entries():
        entries.append(backbone_entries()[record.backbone.name])
    strangers = [entry.name for entry in entries if package_of(entry)[0] != SUITE]
    if strangers:
        raise UserError(f"it does not say of which version of its package {strangers[0]!r} is")
    backbone: Any = load_backbone(record.backbone.name) if record.backbone is not None else None
    components = numerics_of(get_protocol(record.protocol), record.method, method, objectives, backbone)
    own = {name: version for name in components if package == SUITE or not name.startswith("method ")}
    return {**components, **own}
