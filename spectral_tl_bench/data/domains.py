"""The domain of chips whose files' names do not tell it: from a table of the user's, or from where the chips lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.data.checks import fail
from spectral_tl_bench.data.ground import BOX, degrees, horizontal, on_sphere
from spectral_tl_bench.data.layouts.table import read_table
from spectral_tl_bench.errors import DataError, nearest

TABLE = "domains.csv"
"""In the dataset's own folder: one row per chip, with the columns ``chip`` and ``domain``."""
REACH = 150_000.0
"""Metres from the centre of a domain within which its chips lie."""


def with_domains(
    benchmark: Benchmark, base: Path, frame: pd.DataFrame, table: Path | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Name the domain of every chip, and leave out those of domains that the benchmark does not use.

    What a table says is held against the footprints where there are any. Nothing is guessed: a chip that lies near no
    domain, or near two, is refused.

    Args:
        benchmark: The benchmark, whose domains have centres (``lon_lat``).
        base: The dataset's own folder.
        frame: Rows of a chip index by chip name, with an empty domain where the layout knows none.
        table: By default ``domains.csv`` in the dataset's folder, if it is there.

    Returns:
        The rows that the benchmark uses, and what a reader of results must know.

    Raises:
        DataError: If the domain of a chip is not known, or table and footprint contradict each other.
    """
    unknown = frame["domain"] == ""
    if not unknown.any():
        if table is not None:
            raise DataError("the files' names tell the domain of every chip", where=base, fix="leave out --domains")
        return frame, []
    if any(domain.scale is not None or domain.offset is not None for domain in benchmark.domains):
        raise DataError(
            "the files' names do not tell the domain, by which their unit goes", where=base,
            expected="one scale and offset for all domains",
        )  # fmt: skip
    chips = frame[unknown]
    by_place = _by_place(benchmark, chips)
    path = table or base / TABLE
    if table is not None or path.exists():
        _check_rule(benchmark, "table", path)
        domains, how = _by_table(benchmark, path, chips, by_place), "in a table"
    else:
        _check_rule(benchmark, "geometry", path)
        _check_placed(benchmark, base, chips, by_place)
        domains, how = by_place, f"by their footprints, within {REACH / 1000:.0f} km of a domain's centre"
    frame = frame.assign(domain=frame["domain"].where(~unknown, domains))
    used = frame["domain"].isin([*benchmark.source, *benchmark.target])
    return frame[used], [f"the names of {len(chips)} chips tell no domain; it was found {how}"]


def _check_rule(benchmark: Benchmark, rule: str, table: Path) -> None:
    """Refuse what names domains by another rule than the benchmark says."""
    if not benchmark.domains_by or rule in benchmark.domains_by:
        return
    said = f"{benchmark.id} says that domains are named by {' or '.join(benchmark.domains_by)} (domains_by), "
    if rule == "table":
        raise DataError(f"{said}and here is a table of them", where=table, fix="remove it, or mend domains_by")
    raise DataError(
        f"{said}and names of files and layout tell none", where=table.parent,
        expected=f"a table of chips and domains ({table.name})" if "table" in benchmark.domains_by else None,
        fix="give one to `stbench data check --domains`" if "table" in benchmark.domains_by else "mend domains_by",
    )  # fmt: skip


def _by_place(benchmark: Benchmark, chips: pd.DataFrame) -> pd.Series[str]:
    """The domain in whose reach the middle of each chip lies; empty where there is none, or more than one."""
    found = pd.Series("", index=chips.index)
    centres = {domain.id: domain.lon_lat for domain in benchmark.domains if domain.lon_lat is not None}
    if not centres:
        return found
    centre = on_sphere(*np.array(list(centres.values()), dtype=float).T)
    for crs, group in chips.groupby("crs"):
        if (known := horizontal(str(crs)) if crs else None) is None:
            continue
        box = group[BOX].to_numpy(dtype=float)
        lon, lat = degrees(known, (box[:, :2] + box[:, 2:]) / 2, "EPSG:4326")
        placed = np.isfinite(lon)
        near = np.zeros((len(group), len(centres)), dtype=bool)
        near[placed] = np.linalg.norm(on_sphere(lon[placed], lat[placed])[:, None] - centre, axis=-1) <= REACH
        one = near.sum(axis=1) == 1
        found[group.index[one]] = np.array(list(centres))[near[one].argmax(axis=1)]
    return found


def _by_table(benchmark: Benchmark, path: Path, chips: pd.DataFrame, by_place: pd.Series[str]) -> pd.Series[str]:
    table = read_table(path)
    for column in ("chip", "domain"):
        if column not in table.columns:
            raise DataError(
                f"the table of domains has no column {column!r}", where=path, expected="the columns chip, domain",
                fix=nearest(column, [str(name) for name in table.columns]),
            )  # fmt: skip
    table = table.dropna(subset=["chip", "domain"])
    names = table["chip"].astype(str).str.removesuffix(".tif")
    twice = sorted(names[names.duplicated()])
    if twice:
        fail(f"{len(twice)} chips stand in the table of domains more than once", path, twice, ["" for _ in twice])
    known = [domain.id for domain in benchmark.domains]
    said = pd.Series(table["domain"].astype(str).to_numpy(), index=names.to_numpy())
    strange = said[~said.isin(known)]
    if len(strange):
        fail(f"{len(strange)} rows of the table of domains name none of {benchmark.dataset}", path, strange.index,
             strange.map("domain {!r}".format), expected=f"one of {', '.join(known)}")  # fmt: skip
    said = said.reindex(chips.index)
    missing = said.index[said.isna()]
    if len(missing):
        fail(f"{len(missing)} of {len(chips)} chips are not in the table of domains", path, missing,
             ["no row" for _ in missing], fix="add them")  # fmt: skip
    other = said[(by_place != "") & (by_place != said)]
    if len(other):
        fail(f"{len(other)} of {len(chips)} chips lie in another domain than the table of domains says", path,
             other.index, "table: " + other + ", footprint: " + by_place[other.index],
             fix="mend the table, or the georeference of the images")  # fmt: skip
    return said


def _check_placed(benchmark: Benchmark, base: Path, chips: pd.DataFrame, by_place: pd.Series[str]) -> None:
    """Refuse chips whose footprint names no domain."""
    lost = chips[by_place == ""]
    if not len(lost):
        return
    where = lost["crs"].map(lambda crs: "lies near no domain, or near two" if crs else "has no CRS")
    fail(f"the domain of {len(lost)} of {len(chips)} chips is not known: neither name nor place tells it",
         base, lost.index, where,
         expected=f"footprints within {REACH / 1000:.0f} km of one of {', '.join(d.id for d in benchmark.domains)}",
         fix=f"write a table with the columns chip and domain, and give it to `stbench data check --domains` "
             f"({base / TABLE})")  # fmt: skip
