"""Images that need no random numbers, and a short run on real chips."""

from __future__ import annotations

from pathlib import Path

import torch
from shared import REPOSITORY
from torch import Tensor

from spectral_tl_bench.protocol.settings import Overrides
from spectral_tl_bench.results.schema import Record
from spectral_tl_bench.results.store import read_records, verify
from spectral_tl_bench.runner.run import Request, execute, plan
from spectral_tl_bench.training.hardware import Hardware

HLS = (0.443, 0.482, 0.561, 0.655, 0.865, 1.609, 2.201)


def pattern(bands: int, side: int) -> Tensor:
    """Images (1, bands, side, side)."""
    steps = torch.arange(bands * side * side, dtype=torch.float64)
    return (steps * 0.37 + (steps / 50).sin()).sin().float().reshape(1, bands, side, side)


def short_run(method: str, backbone: str, weights: Path, chips: Path, runs: Path, **settings: int) -> Record:
    """Two steps on a few real chips; the record has been verified, and the licence of the weights was said."""
    said: list[str] = []
    request = Request(
        [str(REPOSITORY / "docs" / "examples" / "hls-worldcover-w2m.yaml")], [method], backbone=backbone,
        weights=str(weights), data_root=chips, allow_partial=True,
        overrides=Overrides(steps=2, batch_size=2, validations=1, **settings),
    )  # fmt: skip
    cells, broken = plan(request, said.append)
    assert not broken and any(f"weights of {backbone}: file" in line and "; licence: " in line for line in said)
    (outcome,) = execute(cells, runs, Hardware("cpu"), 0, lambda _: None)
    assert outcome.state == "done", outcome.message
    (record,) = read_records([runs])
    assert verify(record)["selected"].miou == outcome.miou
    return record
