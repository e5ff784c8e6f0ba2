"""The rows of the SpectralX paper as runs of this suite: one table, for the plan and for the comparison with print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from spectral_tl_bench.errors import UserError, nearest
from spectral_tl_bench.leaderboard.reported import MEAN, MIOU

REFERENCE = "SpectralX"
"""How the name of the paper begins, in the column ``reference`` of the reported numbers."""
STEPS = {"segment": 45_000, "pretrain": 25_000}
"""Steps of the paper's stages, by name of ours."""
WIDTH, DEPTH = 1024, 24
"""Of a ViT-L, which the paper names for every backbone."""


@dataclass(frozen=True)
class Method:
    """A method of the paper, as it is run here.

    Attributes:
        name: Ours, with its preset.
        options: Those that the paper's row needs beside the preset's.
        like: A preset whose other options it shares; empty for none.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    like: str = ""


_RELEASED = "spectralx@released"
METHODS: dict[str, Method] = {
    "Full fine-tuning": Method("full"),
    "LoRA": Method("lora-biased", {"reading": "released"}),
    "SLR": Method("slr", {"reading": "released"}),
    "SpectralX": Method(_RELEASED),
    "Frozen": Method("spectralx@freeze"),
    "HyperT": Method("spectralx@hypert", like=_RELEASED),
    "HyperT + AoMoA": Method("spectralx@hypert-aomoa", like=_RELEASED),
    "HyperT, without stage 1": Method("spectralx@hypert-no-stage1", like=_RELEASED),
    "HyperT + AoMoA, without stage 1": Method("spectralx@hypert-aomoa-no-stage1", like=_RELEASED),
    "HyperT + AoMoA + Are, without stage 1": Method("spectralx@no-stage1", like=_RELEASED),
}
"""By the name in the column ``method``."""
IN_TABLE = {("Table IV", "Full fine-tuning"): Method("spectralx@full")}
"""Where a table means another run by the same name: the ablation's is the model with nothing added."""
BACKBONES = {
    "ViT-L ScaleMAE": "scalemae-large",
    "ViT-L SatMAE++": "satmaepp-large",
    "ViT-L SpectralGPT+": "spectralgpt-plus",
    "ViT-L HyperSIGMA": "hypersigma-large",
}
"""By the name in the column ``backbone``."""
ABOUT_BACKBONES = {
    "spectralgpt-plus": "the paper names a ViT-L; of SpectralGPT+, only the ViT-B is published, which this is",
}
IN_DOMAIN = "-id"
"""End of the ids of benchmarks without a gap."""
ABOUT_IN_DOMAIN = "cut by place here, at random in the paper, where neighbouring chips stand on both sides"
NOT_HERE = dict.fromkeys(("SSC", "DAEN", "DSTC"), "a network of its authors' own, which this suite does not have")
"""Methods of the paper that cannot be run here, and why."""


@dataclass(frozen=True)
class Row:
    """A printed row, and the run that corresponds to it.

    Attributes:
        table: As the paper numbers it, ``Table I``.
        printed: Its method there.
        printed_backbone: Its backbone there.
        benchmarks: Our ids, in the order of the table.
        method: Ours; None where there is none.
        backbone: Ours; empty where there is none.
    """

    table: str
    printed: str
    printed_backbone: str
    benchmarks: tuple[str, ...]
    method: Method | None
    backbone: str

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.printed}, {self.printed_backbone}"


def rows_of(reported: pd.DataFrame, table: str = "") -> list[Row]:
    """The printed rows of the SpectralX paper with an mIoU, in the order of the file.

    Args:
        reported: As ``reported.read_reported`` gives it.
        table: ``I`` or ``Table I``; empty for all tables.

    Raises:
        UserError: If the reported numbers hold no such table.
    """
    lines = reported[reported["reference"].str.startswith(REFERENCE) & (reported["metric"] == MIOU)]
    lines = lines[lines["class"] == MEAN]
    known = list(dict.fromkeys(lines["source_table"]))
    if table:
        wanted = f"Table {table.upper().removeprefix('TABLE').strip()}"
        if wanted not in known:
            raise UserError(
                f"the numbers of the paper that are at hand hold no {wanted}",
                expected=nearest(wanted, known) if known else "numbers as `stbench report` reads them",
                fix="LoRA, SLR and SpectralX with a gap are printed in none of them" if known else None,
            )
        lines = lines[lines["source_table"] == wanted]
    groups: dict[tuple[str, str, str], list[str]] = {}
    for line in lines.to_dict("records"):
        groups.setdefault((line["source_table"], line["method"], line["backbone"]), []).append(line["benchmark"])
    return [
        Row(*key, tuple(benchmarks), IN_TABLE.get(key[:2], METHODS.get(key[1])), BACKBONES.get(key[2], ""))
        for key, benchmarks in groups.items()
    ]


def runnable(rows: list[Row]) -> Iterator[tuple[Row, Method]]:
    """The rows that this suite can run, with the method."""
    for row in rows:
        if row.method is not None and row.backbone:
            yield row, row.method


def why_not(row: Row) -> str:
    """Why a row cannot be run."""
    return NOT_HERE.get(row.printed, "no method or backbone of this suite is known to correspond to it")
