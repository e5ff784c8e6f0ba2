"""What a record says about a cell apart from what is measured."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from spectral_tl_bench.data.source import SYNTHETIC
from spectral_tl_bench.data.splits import SplitTable
from spectral_tl_bench.identity import RunIdentity
from spectral_tl_bench.methods.registry import distribution_of
from spectral_tl_bench.provenance import environment
from spectral_tl_bench.runner.definitions import Cell


def data_facts(cell: Cell, split: SplitTable) -> dict[str, Any]:
    """Which pixels the run sees."""
    index, roles = cell.opened.index, ("train", "validation", "target")
    return {
        "kind": cell.opened.source.kind,
        "chips": {role: len(split.chips(role)) for role in roles},
        "split_hash": split.hash,
        "manifest_hash": index.manifest,
        "notes": [*cell.opened.notes, *split.notes],
        "unit": index.unit,
        "unmeasured": {role: int(index.frame.loc[split.chips(role), "nodata_pixels"].sum()) for role in roles},
    }


def common_fields(cell: Cell, split: SplitTable, identity: RunIdentity, threads: int) -> dict[str, Any]:
    """The fields of a record that are known before anything is measured."""
    benchmark = cell.opened.benchmark
    made_with = environment(*distribution_of(cell.method_name), type(cell.method).__module__)
    return {
        "benchmark": benchmark.id,
        "benchmark_version": benchmark.version,
        "dataset": benchmark.dataset,
        "gap": benchmark.gap,
        "method": cell.method_name,
        "family": cell.method.family,
        "options": cell.method.model_dump(mode="json"),
        "objectives": cell.objective_options(),
        "backbone": cell.backbone_facts(),
        "target_images": cell.method.target_images,
        "protocol": cell.settings.protocol,
        "seed": cell.seed,
        "settings": cell.settings.model_dump(mode="json"),
        "track": cell.opened.track,
        "fingerprint": identity.fingerprint,
        "definition": identity.definition,
        "numerics": identity.numerics,
        "given_stage": identity.stage,
        "classes": list(benchmark.labels.names),
        "source_domains": list(benchmark.source),
        "target_domains": list(benchmark.target),
        "environment": {**made_with, "threads": str(threads)},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "statement": SYNTHETIC if cell.opened.track == "sample" else None,
        "data": data_facts(cell, split),
        "tuning": cell.tuning and cell.tuning.model_dump(mode="json"),
    }
