"""Records from random confusion matrices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from spectral_tl_bench.files import digest
from spectral_tl_bench.results.store import Record, read_record, write_record

CLASSES = ("water", "forest", "urban", "bare")
CHIPS = (("c1", "north", "s1"), ("c2", "north", "s2"), ("c3", "south", "s3"), ("c4", "south", "s3"))


def _frame(seed: int, quality: float = 0.6, checkpoints=("selected", "last", "oracle"), truth_seed: int = 0):
    """Evidence of four chips whose ground truth depends on ``truth_seed`` only; class ``bare`` is never true."""
    rng, rows = np.random.default_rng(seed), []
    for number, (chip, domain, site) in enumerate(CHIPS):
        truth = np.random.default_rng([truth_seed, number]).integers(50, 500, 4) * np.array([1, 1, 1, 0])
        for checkpoint in checkpoints:
            matrix = np.zeros((4, 4), dtype=np.int64)
            for label, pixels in enumerate(truth):
                right = int(pixels * quality)
                matrix[label] = rng.multinomial(pixels - right, [0.25] * 4)
                matrix[label, label] += right
            row = {"chip": chip, "domain": domain, "site": site, "checkpoint": checkpoint, "matrix": matrix.reshape(-1)}
            rows.append(row)
    return pd.DataFrame(rows)


def _fields(**changes: Any) -> dict[str, Any]:
    """Fields of a completed record."""
    base: dict[str, Any] = {
        "status": "completed",
        "benchmark": "mts12-n2s",
        "benchmark_version": "1.0",
        "dataset": "MTS12",
        "gap": "region",
        "method": "lora",
        "family": "peft",
        "options": {"rank": 16},
        "backbone": {"name": "compact", "width": 96, "depth": 4, "heads": 3, "patch": 8, "pretrained": "none"},
        "seed": 0,
        "settings": {"window": 64, "stride": 32, "steps": 10},
        "track": "reproduced",
        "data": {
            "kind": "files",
            "chips": {"train": 6, "validation": 2, "target": 4},
            "split_hash": "ab",
            "manifest_hash": "cd",
        },
        "classes": CLASSES,
        "majority_class": 1,
        "source_domains": ["east"],
        "target_domains": ["north", "south"],
        "environment": {"torch": "2.4"},
        "parameters": {"total": 1000, "trainable": 100},
        "stages": [{"name": "segment", "steps": 10, "seconds": 1.5, "trainable": 100}],
        "seconds": {"train": 1.5, "evaluate": 0.5, "total": 2.0},
        "peak_memory_mb": float("nan"),
        "device": "cpu",
        "selection": {"step": 5, "value": 0.5, "trace": [[5, 0.5], [10, float("nan")]]},
        "created": "2026-01-02T03:04:05+00:00",
    }
    if changes.get("track") == "sample":
        base["data"] = {**base["data"], "kind": "sample"}
        base["statement"] = "Synthetic scenes, seed 1."
    result = {**base, **changes}
    identity = (
        "benchmark",
        "benchmark_version",
        "method",
        "options",
        "backbone",
        "seed",
        "settings",
        "track",
        "created",
    )
    result.setdefault("fingerprint", digest(*[result[name] for name in identity]))
    return result


@pytest.fixture
def frame():
    """The function that makes evidence."""
    return _frame


@pytest.fixture
def fields():
    """The function that makes fields."""
    return _fields


@pytest.fixture
def store(tmp_path: Path):
    """Writes one cell and reads it back."""

    def write(
        quality: float = 0.6, evidence: pd.DataFrame | None = None, truth_seed: int = 0, **changes: Any
    ) -> Record:
        wanted = _fields(**changes)
        if evidence is None:
            evidence = _frame(int(wanted["fingerprint"][:8], 16), quality, truth_seed=truth_seed)
        return read_record(write_record(tmp_path / "store", wanted, evidence))

    return write


@pytest.fixture
def fail(tmp_path: Path):
    """Writes one failed cell and reads it back."""

    def write(message: str = "out of memory", **changes: Any) -> Record:
        wanted = _fields(**changes)
        for name in (
            "data",
            "majority_class",
            "parameters",
            "stages",
            "seconds",
            "peak_memory_mb",
            "device",
            "selection",
        ):
            wanted.pop(name)
        wanted |= {"status": "failed", "error": {"kind": "RuntimeError", "message": message}}
        return read_record(write_record(tmp_path / "store", wanted))

    return write
