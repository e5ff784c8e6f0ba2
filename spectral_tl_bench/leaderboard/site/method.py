"""What a method is, from its class, and what the records of a row say beyond its scores."""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path

from spectral_tl_bench.leaderboard.frames import Fields
from spectral_tl_bench.leaderboard.measured import choice_of
from spectral_tl_bench.leaderboard.site.view import View
from spectral_tl_bench.objectives.registry import split_objectives
from spectral_tl_bench.plugins import installed

_GROUP = "spectral_tl_bench.methods"
_OURS = ("spectral_tl_bench.", "spectralx.")


@functools.cache
def _entries() -> Mapping[str, EntryPoint]:
    return installed(_GROUP)


@functools.cache
def summary(name: str) -> str:
    """What a method of this suite is, from its class; empty for anybody else's, which may not be installed here.

    The source is read and not imported, which would take seconds.
    """
    base = split_objectives(name)[0].partition("@")[0]
    entry = _entries().get(base)
    if entry is None or not entry.module.startswith(_OURS):
        return ""
    stem = Path(__file__).resolve().parents[3].joinpath(*entry.module.split("."))
    path = next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()), None)
    if path is None:
        return ""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == entry.attr]
    return (ast.get_docstring(kinds[0]) or "").partition("\n\n")[0].replace("\n", " ") if kinds else ""


def details(view: View, row: str) -> Fields:
    """What the records of a row say beyond its scores."""
    by_benchmark = {benchmark.id: view.by_seed(row, benchmark.id) for benchmark in view.benchmarks}
    records = [run for by_seed in by_benchmark.values() for run in by_seed.values()]
    done = [run.record for run in records if run.completed]
    backbone = records[0].record.backbone if records else None
    return {
        "backbone": backbone.model_dump(mode="json", exclude={"weights"}) if backbone else {},
        "weights": backbone.weights.model_dump(mode="json") if backbone and backbone.weights else {},
        "devices": sorted({record.device for record in done if record.device}),
        "stages": done[0].stages if done else [],
        "searches": [
            (name, run.record.tuning, choice_of(run.record))
            for name, by_seed in by_benchmark.items()
            for run in list(by_seed.values())[:1]
            if run.record.tuning is not None
        ],
        "failures": [run.record for run in records if run.record.error],
        "seeds": [
            (name, [(seed, run.miou if run.completed else None) for seed, run in by_seed.items()])
            for name, by_seed in by_benchmark.items()
            if len(by_seed) > 1
        ],
    }
