"""Layouts by name; asks that of a benchmark for its chips, and checks the answer."""

from __future__ import annotations

import traceback
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint
from pathlib import Path

from spectral_tl_bench.benchmarks import LAYOUTS, Benchmark
from spectral_tl_bench.console import is_text
from spectral_tl_bench.data.layouts.base import ChipFiles, Layout, refuse, text_problem
from spectral_tl_bench.endings import contained
from spectral_tl_bench.errors import BenchmarkError, DataError, UserError
from spectral_tl_bench.plugins import imported_class, installed, offered, with_options


def layout_entries() -> dict[str, EntryPoint]:
    """All installed layouts by name; nothing is imported."""
    return installed(LAYOUTS)


def load_layout(name: str) -> type[Layout]:
    """The class of a layout.

    Raises:
        BenchmarkError: If the name is unknown, or its package cannot be imported or holds no layout.
    """
    entry = offered(name, LAYOUTS, "layout", BenchmarkError)
    return imported_class(entry, f"layout {name!r}", Layout, BenchmarkError)


def layout_of(benchmark: Benchmark) -> Layout:
    """The layout of a benchmark with its options.

    Raises:
        BenchmarkError: If there is none of that name, or it does not have these options.
    """
    choice = benchmark.layout
    return with_options(load_layout(choice.kind), f"layout {choice.kind!r}", choice.options, BenchmarkError)


def find_chips(benchmark: Benchmark, root: Path) -> tuple[Path, list[ChipFiles]]:
    """Find the chips of a benchmark's domains below a data root.

    Args:
        root: Data root, or the dataset's own folder.

    Returns:
        The folder that the relative paths start from, and the chips sorted by name.

    Raises:
        DataError: If nothing or only a part was found; the message lists what was looked for.
        BenchmarkError: If there is no such layout, or it does not have the options that the benchmark gives.
    """
    layout = layout_of(benchmark)
    if not _may_read(root.is_dir):
        raise DataError(
            "the data root does not exist" if not root.exists() else "the data root is not a folder",
            where=root,
            expected=f"a folder that holds {layout.wanted()}",
            fix="check --data-root and STBENCH_DATA, or leave both out to run on the bundled synthetic sample",
        )
    base, chips = _ask(layout, benchmark, root)
    paths = (f"{base}/{path}" for chip in chips for path in (chip.image, chip.label, chip.chip))
    if (odd := next((path for path in paths if not is_text(path)), None)) is not None:
        raise DataError(
            f"the name {odd!r} is not valid UTF-8", where=base, expected="names of files in UTF-8",
            fix="rename the file or folder",
        )  # fmt: skip
    _check_rule(benchmark, layout, base, chips)
    if all(chip.domain for chip in chips):
        check_sides(benchmark, base, (chip.domain for chip in chips))
    wanted = {*benchmark.source, *benchmark.target, ""}
    chips = [chip for chip in chips if chip.domain in wanted]
    twice = [name for name, count in Counter(chip.chip for chip in chips).items() if count > 1]
    if twice:
        raise DataError(
            f"{len(twice)} chip names occur more than once, for example {twice[0]!r}",
            where=base,
            expected="one file per chip name",
            fix="remove the copies: a chip that is counted twice weighs twice",
        )
    _check_names(base, chips)
    return base, sorted(chips, key=lambda chip: chip.chip)


def _may_read(look: Callable[[], bool]) -> bool:
    try:
        return look()
    except PermissionError as error:
        raise _forbidden(error) from error


def _forbidden(error: PermissionError) -> DataError:
    return DataError(
        "the data may not be read", where=error.filename, expected=f"a right to read them (got: {error.strerror})",
        fix="have their owner give it, such as by `chmod -R a+rX FOLDER`",
    )  # fmt: skip


def check_sides(benchmark: Benchmark, base: Path, domains: Iterable[str]) -> None:
    """Refuse data without a chip of some domain.

    Args:
        base: Folder that the chips' paths start from.

    Raises:
        DataError: If one is missing; with what is there.
    """
    counts = Counter(domains)
    for side in ("source", "target"):
        missing = [name for name in getattr(benchmark, side) if not counts[name]]
        if missing:
            state = "empty" if len(missing) == len(getattr(benchmark, side)) else "incomplete"
            present = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items())) or "none"
            refuse(DataError(
                f"the {side} of {benchmark.id} is {state}: no chip of domain {', '.join(missing)}",
                where=base,
                expected=f"chips of the domains {', '.join(getattr(benchmark, side))}",
                fix=f"found only: {present}; complete the data, or check the domain names",
            ))  # fmt: skip


def _check_rule(benchmark: Benchmark, layout: Layout, base: Path, chips: list[ChipFiles]) -> None:
    """Refuse domains that the layout has named by another rule than the benchmark says."""
    rules, named = benchmark.domains_by, sum(bool(chip.domain) for chip in chips)
    known = {layout.domains_by} if layout.domains_by else {"name", "folder", "table"}
    if rules and named and not known & set(rules):
        raise DataError(
            f"{benchmark.id} says that domains are named by {' or '.join(rules)} (domains_by), and its layout "
            f"{benchmark.layout.kind} has named those of {named} chips by {' or '.join(sorted(known))}",
            where=base, fix="mend domains_by, or have the layout name no domain",
        )  # fmt: skip


def _check_names(base: Path, chips: list[ChipFiles]) -> None:
    """Refuse names that collide on disks which know no capitals or compose letters, and what is no text for people."""
    first: dict[str, str] = {}
    for chip in chips:
        for text in (chip.chip, chip.site, chip.image, chip.label):
            if problem := text_problem(str(text)):
                raise DataError(f"a chip has {problem}: {text[:60]!r}", where=base, expected="names and plain paths")
        folded = unicodedata.normalize("NFC", chip.chip).casefold()
        other = first.setdefault(folded, chip.chip)
        if other != chip.chip:
            raise DataError(
                f"the chip names {other!r} and {chip.chip!r} differ only by capitals or accents",
                where=base,
                expected="names that differ on every disk",
                fix="rename one",
            )


def _ask(layout: Layout, benchmark: Benchmark, root: Path) -> tuple[Path, list[ChipFiles]]:
    """The base folder and the chips; whatever a foreign class does wrong becomes a line for people."""
    kind = benchmark.layout.kind
    try:
        with contained():
            base = layout.base(root, benchmark)
            chips = list(layout.chips(base, benchmark))
    except UserError:
        raise
    except PermissionError as error:
        raise _forbidden(error) from error
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise DataError(
            f"layout {kind!r} failed: {type(error).__name__}: {error}",
            where=f"{frame.filename}:{frame.lineno}",
            fix=f"tell the authors of {type(layout).__module__}",
        ) from error
    strange = next((chip for chip in chips if not isinstance(chip, ChipFiles)), None)
    if strange is not None:
        raise DataError(
            f"layout {kind!r} gives {type(strange).__name__} as a chip",
            where=f"{type(layout).__module__}.{type(layout).__name__}",
            expected="spectral_tl_bench.data.layouts.ChipFiles",
        )
    return base, chips
