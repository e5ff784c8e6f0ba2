"""A user's own chips: two folders and a table."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pydantic import field_validator

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.data.layouts.base import ChipFiles, Layout, text_problem
from spectral_tl_bench.errors import DataError, nearest

if TYPE_CHECKING:
    import pandas as pd

_ADDRESS = re.compile(r"[A-Za-z]:|[A-Za-z0-9+.-]+://?")
"""A Windows drive, or a server."""
_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


class TableLayout(Layout):
    """A table with one row per chip (CSV or GeoParquet), and paths filled in from its columns.

    Attributes:
        table: CSV or GeoParquet with one row per chip, relative to the data root.
        image: Path of a chip's image relative to the data root; ``{column}`` is replaced from its row.
        label: Likewise for the label (GeoTIFF, or MATLAB with one 2-D variable ``label``).
        chip: Column that names a chip uniquely.
        domain: Column that names the chip's domain; left out where the place of a chip does, for which ``domains`` of
            the benchmark have centres (``lon_lat``).
        site: Column that names the place: chips of one site are never divided between training and validation; left
            out where the ground tells (``split.place: grid``).
        root: Data root relative to the YAML file, where ``--data-root`` is not given.
        folders: Names of the data set's own folder below a data root, where the table may lie in it.
    """

    sites = True
    domains_by = "table"

    table: str
    image: str
    label: str
    chip: str
    domain: str = ""
    site: str = ""
    root: str = "."
    folders: tuple[str, ...] = ()

    @field_validator("table", "image", "label")
    @classmethod
    def _inside(cls, value: str) -> str:
        path = Path(value)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"must be a path inside the data root, got {value!r}")
        return value

    def wanted(self) -> str:
        """The table."""
        return self.table

    def own_root(self) -> str:
        """``layout.root``."""
        return self.root

    def base(self, root: Path, benchmark: Benchmark) -> Path:
        """The data root, or the data set's own folder below it."""
        places = [root, *(root / name for name in self.folders)]
        found = next((place for place in places if (place / self.table).exists()), None)
        if found is None and self.folders:
            cut = f"`stbench data cut {benchmark.id} --from FOLDER` makes it of the published files; "
            raise DataError(
                f"no {benchmark.dataset} data for {benchmark.id} were found", where=root,
                expected="one of " + ", ".join(f"{Path(name) / self.table}" for name in ("", *self.folders)),
                fix=f"{cut if benchmark.cut else ''}point --data-root at the folder that holds the dataset",
            )  # fmt: skip
        return found or root

    def chips(self, base: Path, benchmark: Benchmark) -> list[ChipFiles]:
        """One chip per row."""
        del benchmark
        path = base / self.table
        table = read_table(path)
        columns = {str(column) for column in table.columns}
        named = {"chip": self.chip, "site": self.site, "domain": self.domain}
        needed = {key: column for key, column in named.items() if column}
        for template in ("image", "label"):
            needed |= {f"{template} {{{name}}}": name for name in _PLACEHOLDER.findall(getattr(self, template))}
        for key, column in needed.items():
            if column not in columns:
                raise DataError(
                    f"the table has no column {column!r}, which layout.{key} names",
                    where=path,
                    expected=nearest(column, columns),
                )
        if table.empty:
            raise DataError("the table of chips is empty", where=path)
        used = sorted(set(needed.values()))
        blank = table[used].isna().any(axis=1)
        if blank.any():
            row = int(blank.to_numpy().argmax())
            raise DataError(
                f"row {row + 2} of the table has an empty cell", where=path, expected=f"values in {', '.join(used)}"
            )
        records = table[used].to_dict("records")
        for number, record in enumerate(records):
            for name, value in record.items():
                if problem := text_problem(str(value)):
                    raise DataError(f"row {number + 2} of the table has {problem}, in column {name!r}", where=path)
        return [
            ChipFiles(
                chip=str(record[self.chip]).removesuffix(".tif"),
                domain=str(record[self.domain]) if self.domain else "",
                site=str(record[self.site]) if self.site else "",
                image=fill(self.image, record, path),
                label=fill(self.label, record, path),
            )
            for record in records
        ]


def read_table(path: Path) -> pd.DataFrame:
    """A CSV with all values as text, or a GeoParquet.

    Raises:
        DataError: If it is missing or cannot be read.
    """
    import pandas as pd

    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise DataError("the table of chips is no file", where=path)
    try:
        if path.suffix in (".parquet", ".geoparquet", ".pq"):
            return pd.read_parquet(path)
        # A domain may well be called NA; only an empty cell is empty.
        return pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
    except FileNotFoundError:
        raise DataError(
            "the table of chips is missing", where=path, fix="check layout.table and the data root"
        ) from None
    except Exception as error:  # pandas and pyarrow raise a dozen kinds for a file that is not what it says
        raise DataError(f"the table of chips cannot be read: {error}", where=path) from None


def fill(template: str, record: dict[Any, Any], table: Path) -> str:
    """A path from a template and a row.

    Raises:
        DataError: If it would leave the data root.
    """
    text = _PLACEHOLDER.sub(lambda match: str(record[match.group(1)]), template)
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\\" in text or _ADDRESS.match(text):
        raise DataError(
            f"the table leads outside the data root: {text[:200]!r}",
            where=table,
            expected="paths below the data root, without ..",
        )
    return str(path)
