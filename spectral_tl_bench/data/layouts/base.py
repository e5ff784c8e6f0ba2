"""The contract between the suite and a layout: which files are the chips of a benchmark."""

from __future__ import annotations

import contextlib
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.errors import DataError


@dataclass(frozen=True)
class ChipFiles:
    """One chip before it is opened.

    Attributes:
        chip: Name, unique within the benchmark.
        domain: Id of its domain; empty where the name does not tell it, which is then found by a table of the user's or
            by the chip's footprint (``data.domains``).
        site: Place it must not be separated from, where the layout knows one.
        image: Path of a raster of all bands, relative to the base folder.
        label: Likewise for the label: a raster, or MATLAB with one 2-D variable ``label``.
        footprint: (crs, xmin, ymin, xmax, ymax) where the name alone tells it.
    """

    chip: str
    domain: str
    site: str
    image: str
    label: str
    footprint: tuple[str, float, float, float, float] | None = None


_gathered: ContextVar[list[DataError] | None] = ContextVar("gathered", default=None)


@contextlib.contextmanager
def gathering() -> Iterator[list[DataError]]:
    """Within the block, what `refuse` is given is gathered, and the other chips are found all the same."""
    found: list[DataError] = []
    token = _gathered.set(found)
    try:
        yield found
    finally:
        _gathered.reset(token)


def refuse(error: DataError) -> None:
    """Raise what is wrong with some of the chips, unless somebody wants to hear of the others as well."""
    if (found := _gathered.get()) is None:
        raise error
    found.append(error)


LONGEST_TEXT = 1000


def text_problem(text: str) -> str:
    """What is wrong with a name or path that somebody else has written; empty if nothing is."""
    if len(text) > LONGEST_TEXT:
        return f"a text of {len(text)} characters"
    if not text.isprintable() and any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
        return "control characters in a name"  # they move the cursor of a terminal, or end a path early
    return ""


class Layout(BaseModel, ABC):
    """Base class of all layouts. Fields are options, which stand in a benchmark's YAML beside the layout's name.

    A whole layout::

        class Pairs(Layout):
            \"\"\"``DOMAIN/NAME.tif`` beside ``DOMAIN/NAME_truth.tif``.\"\"\"

            ending: str = "_truth"

            def chips(self, base: Path, benchmark: Benchmark) -> list[ChipFiles]:
                return [
                    ChipFiles(label.stem, domain.id, "", f"{domain.id}/{label.name.replace(self.ending, '')}",
                              f"{domain.id}/{label.name}")
                    for domain in benchmark.domains
                    for label in (base / domain.id).glob(f"*{self.ending}.tif")
                ]

    in its ``pyproject.toml``::

        [project.entry-points."spectral_tl_bench.layouts"]
        pairs = "my_package:Pairs"

    and in the YAML of a benchmark::

        layout: {kind: pairs, ending: _label}
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    published: ClassVar[bool] = False
    """Whether this is how a dataset is published, so that results on a complete copy are those of the dataset."""
    sites: ClassVar[bool] = False
    """Whether chips have a site, which ``split.place: site`` needs."""

    domains_by: ClassVar[str] = ""
    """By what it names the domains that it names: ``name``, ``folder`` or ``table``; empty if it does not say."""

    other_sizes: ClassVar[Mapping[int, str]] = {}
    """Sides in pixels by which a copy of the dataset that must not be used is recognised, and why not."""

    @abstractmethod
    def chips(self, base: Path, benchmark: Benchmark) -> list[ChipFiles]:
        """The chips below the base folder, in any order, those of other domains may be among them. Opens no raster.

        Raises:
            DataError: If images, labels or names are missing or not those of the layout.
        """

    def base(self, root: Path, benchmark: Benchmark) -> Path:
        """The folder that the chips' paths start from, below a data root that exists.

        Raises:
            DataError: If the dataset is not there.
        """
        del benchmark
        return root

    def wanted(self) -> str:
        """What a data root has to hold, for messages."""
        return "the dataset"

    def own_root(self) -> str | None:
        """The data root relative to the benchmark's YAML file; None if the user has to name it."""
        return None
