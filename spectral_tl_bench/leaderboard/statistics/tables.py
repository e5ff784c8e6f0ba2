"""The tables of an analysis: cells, domains and classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spectral_tl_bench.leaderboard.board import mean, spread
from spectral_tl_bench.leaderboard.cells import Cell
from spectral_tl_bench.leaderboard.statistics.intervals import combine
from spectral_tl_bench.leaderboard.statistics.scores import RowScores

Fields = dict[str, Any]
NAN = float("nan")
_CHECKPOINTS = ("selected", "last", "oracle")
_WHOLE = ("rank", "trainable_min", "trainable_max", "places", "trainable", "parameters")
_TEXT = ("reason", "worst_domain", "error", "incomplete_reason")


@dataclass(frozen=True)
class About:
    """What is known of a benchmark before anybody ran it."""

    benchmark: str
    dataset: str
    gap: str
    classes: tuple[str, ...]
    domains: tuple[str, ...]

    @property
    def reference(self) -> bool:
        """Whether it is an in-domain reference."""
        return self.gap == "none"


def cell_fields(row: str, about: About, state: str, cells: Mapping[int, Cell], scores: RowScores | None) -> Fields:
    """One line of the cells table, without the drop."""
    done = [cells[seed] for seed in sorted(cells) if cells[seed].completed]
    failed = [cells[seed] for seed in sorted(cells) if not cells[seed].completed]
    blocks = {name: [cell.blocks[name] for cell in done if name in cell.blocks] for name in _CHECKPOINTS}
    chosen = blocks["selected"]
    released = [(block.release_miou, block.miou) for block in chosen if block.release_miou is not None]
    worst_domain, worst = _worst(done)
    parameters = [cell.record.parameters for cell in done if cell.record.parameters is not None]
    errors = [f"{cell.record.error.kind}: {cell.record.error.message}" for cell in failed if cell.record.error]
    return {
        **_about(row, about),
        "state": state,
        "seeds": ", ".join(f"{seed}" if cells[seed].completed else f"{seed} (failed)" for seed in sorted(cells)),
        "miou": mean(block.miou for block in chosen),
        "std": spread(block.miou for block in chosen),
        **_interval(scores, "nothing completed"),
        "last": mean(block.miou for block in blocks["last"]),
        "oracle": mean(block.miou for block in blocks["oracle"]),
        "oa": mean(block.oa for block in chosen),
        "mean_f1": mean(block.mean_f1 for block in chosen),
        "kappa": mean(block.kappa for block in chosen if block.kappa is not None),
        "worst_domain": worst_domain,
        "worst_miou": worst,
        "release": mean(said for said, _ in released),
        "inflation": mean(said - ours for said, ours in released),
        "trainable": max((one.trainable for one in parameters), default=None),
        "parameters": max((one.total for one in parameters), default=None),
        "seconds": mean(cell.record.seconds.total for cell in done if cell.record.seconds is not None),
        "peak_memory_mb": mean(cell.record.peak_memory_mb for cell in done if cell.record.peak_memory_mb is not None),
        "error": errors[0] if errors else "",
    }


def floor_fields(row: str, about: About, state: str, miou: float, scores: RowScores | None) -> Fields:
    """One line of the cells table for the majority class, which has neither checkpoints nor parameters to train."""
    worst_domain, worst = "", NAN
    if scores is not None:
        values = {name: scores.within(name).estimate.value for name in about.domains}
        known = {name: value for name, value in values.items() if not np.isnan(value)}
        worst_domain = min(known, key=lambda name: (known[name], name), default="")
        worst = known.get(worst_domain, NAN)
    return {
        **_about(row, about),
        "state": state,
        "seeds": "",
        "miou": miou,
        "std": NAN,
        **_interval(scores, "nothing completed"),
        "worst_domain": worst_domain,
        "worst_miou": worst,
        "trainable": 0,
        "parameters": 0,
        "error": "",
    }


def drop_fields(scores: RowScores | None, reference: RowScores | None) -> Fields:
    """In-domain mIoU minus mIoU on the target, over the seeds that both have.

    The two are drawn independently, except where a stratum of places is the same in both.
    """
    shared = sorted(scores.seeds.keys() & reference.seeds.keys()) if scores and reference else []
    if not shared or scores is None or reference is None:
        return {"in_domain": NAN, "drop": NAN, "drop_low": NAN, "drop_high": NAN}
    target, inside = scores.only(shared), reference.only(shared)
    parts = [(1.0, inside.draws, inside.estimate), (-1.0, target.draws, target.estimate)]
    found = combine(inside.miou - target.miou, parts)
    low, high = found.interval(-1.0, 1.0)
    return {"in_domain": inside.miou, "drop": found.value, "drop_low": low, "drop_high": high}


def domain_fields(row: str, about: About, scores: RowScores) -> list[Fields]:
    """Lines of the domains table."""
    lines = []
    for domain in about.domains:
        found = scores.within(domain)
        if not found.places:
            continue
        low, high = found.estimate.interval(0.0, 1.0)
        lines.append({
            "row": row, "benchmark": about.benchmark, "domain": domain, "miou": found.estimate.value,
            "std": float(_over_seeds(np.array(found.values)[:, None])[1][0]), "low": low, "high": high,
            "places": found.places, "estimable": found.estimate.estimable,
        })  # fmt: skip
    return lines


def class_fields(row: str, about: About, scores: RowScores) -> list[Fields]:
    """Lines of the classes table; pixels are means over seeds, of which the ground truth usually has one value."""
    right, union, truth = (
        np.stack([getattr(one, name).sum(axis=0) for one in scores.counts]) for name in ("right", "union", "truth")
    )
    iou = np.divide(right, union, out=np.full(right.shape, np.nan), where=union > 0)
    predicted = (union - truth + right).mean(axis=0)
    return [
        {
            "row": row, "benchmark": about.benchmark, "index": index, "name": name, "iou": value, "std": std,
            "truth_pixels": round(true), "predicted_pixels": round(said),
        }
        for index, (name, value, std, true, said) in enumerate(
            zip(about.classes, *map(np.ndarray.tolist, (*_over_seeds(iou), truth.mean(axis=0), predicted)), strict=True)
        )
    ]  # fmt: skip


def frame(lines: Sequence[Fields], columns: Sequence[str]) -> pd.DataFrame:
    """Lines as a frame with these columns, numbers as float64 or Int64, missing text empty."""
    result = pd.DataFrame({name: [line.get(name) for line in lines] for name in columns})
    for name in columns:
        if name in _WHOLE:
            result[name] = result[name].astype("Int64")
        elif name in _TEXT:
            result[name] = result[name].fillna("").astype(object)
        elif result[name].dtype == object and not any(isinstance(value, str | bool) for value in result[name]):
            result[name] = result[name].astype("float64")
    return result


def _over_seeds(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and sample standard deviation (columns,) of the known values of each column."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    average = np.where(known, values, 0).sum(axis=0) / np.where(count, count, np.nan)
    squares = np.where(known, values - average, 0) ** 2
    return average, np.sqrt(squares.sum(axis=0) / np.where(count > 1, count - 1, np.nan))


def _about(row: str, about: About) -> Fields:
    return {
        "row": row,
        "benchmark": about.benchmark,
        "dataset": about.dataset,
        "gap": about.gap,
        "reference": about.reference,
    }


def _interval(scores: RowScores | None, otherwise: str) -> Fields:
    if scores is None:
        return {"low": NAN, "high": NAN, "places": None, "estimable": False, "reason": otherwise}
    low, high = scores.estimate.interval(0.0, 1.0)
    reason = scores.estimate.reason
    return {"low": low, "high": high, "places": scores.places, "estimable": not reason, "reason": reason}


def _worst(cells: Iterable[Cell]) -> tuple[str, float]:
    """The domain with the lowest mean over seeds."""
    values: dict[str, list[float]] = {}
    for cell in cells:
        for domain, value in cell.blocks["selected"].per_domain.items():
            if value is not None:
                values.setdefault(domain, []).append(value)
    means = {domain: mean(found) for domain, found in values.items()}
    domain = min(means, key=lambda name: (means[name], name), default="")
    return domain, means.get(domain, NAN)
