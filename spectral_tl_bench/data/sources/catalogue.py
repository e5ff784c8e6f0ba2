"""What is known of the published data sets: sources, terms, whom to cite."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

from spectral_tl_bench.benchmarks import Benchmark, builtin_benchmarks, further_benchmarks
from spectral_tl_bench.errors import UserError, nearest

UNUSABLE = {
    "gfm-bench/dfc2020": "its chips are cut to 96 px with overlap and divided anew, which no benchmark here can use",
}
"""Repositories of the hub that look right and are not, and why."""


class Source(BaseModel):
    """One place where a data set is to be had.

    Attributes:
        kind: ``hub`` for a data set repository of the Hugging Face hub, ``hand`` for what the user has to fetch.
        about: What is special about it.
        repo: Name of the repository.
        revision: Revision that is wanted.
        files: Files that are wanted, with checksums; empty where the names of files are not known.
        do: What the user does.
        citation: Whom to cite as well.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["hub", "hand"]
    about: str
    repo: str = ""
    revision: str | None = None
    files: dict[str, str] = {}
    do: str = ""
    citation: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """Kind and place, for lists."""
        place = f"{self.repo} on the Hugging Face hub" if self.kind == "hub" else "by hand"
        return f"{place}, {self.about}"


class Dataset(BaseModel):
    """A published data set; the attributes are explained in ``sources.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    dataset: str
    folder: str
    size: str
    terms_short: str
    terms: str
    citation: tuple[str, ...]
    page: str
    sources: dict[str, Source]

    @property
    def benchmarks(self) -> list[Benchmark]:
        """The suite's benchmarks on this data set."""
        known = (*builtin_benchmarks().values(), *further_benchmarks().values())
        return [benchmark for benchmark in known if benchmark.dataset == self.dataset]

    def source(self, name: str | None) -> tuple[str, Source]:
        """Name and facts of a source; the default for None.

        Raises:
            UserError: If there is none of that name.
        """
        if name is None:
            return next(iter(self.sources.items()))
        if name not in self.sources:
            raise UserError(f"{self.id} has no source {name!r}", expected=nearest(name, self.sources))
        return name, self.sources[name]


@functools.cache
def datasets() -> dict[str, Dataset]:
    """All data sets by id."""
    raw = yaml.safe_load((Path(__file__).parent / "sources.yaml").read_text(encoding="utf-8"))
    return {name: Dataset(id=name, **facts) for name, facts in raw.items()}


def find_dataset(name: str) -> Dataset:
    """A data set by its id; capitals do not matter.

    Raises:
        UserError: If there is none of that name.
    """
    known = datasets()
    if name.lower() not in known:
        raise UserError(f"there is no data set {name!r} to get", expected=nearest(name.lower(), known))
    return known[name.lower()]
