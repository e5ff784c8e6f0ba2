"""``stbench data list`` and ``stbench data get``: which data sets there are, and getting one."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_tl_bench.console import complain, confirm, print_rows, say, user_path
from spectral_tl_bench.errors import UserError

if TYPE_CHECKING:
    from spectral_tl_bench.data.sources.catalogue import Dataset
    from spectral_tl_bench.data.sources.listing import Listing
    from spectral_tl_bench.data.sources.placing import Presence

data_app = typer.Typer(
    help="List the data sets, get one, or look at the data of benchmarks.", no_args_is_help=True, rich_markup_mode=None
)


@data_app.command("list")
def list_datasets(
    data_root: Annotated[Path | None, typer.Option(help="Folder of the data sets; default: STBENCH_DATA.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the published data sets: where they are to be had, size, terms, and what of them is on this disk."""
    from spectral_tl_bench.data.sources.catalogue import datasets
    from spectral_tl_bench.data.sources.placing import on_disk

    root = root_folder(data_root)
    here = {name: [] if root is None else on_disk(dataset, root) for name, dataset in datasets().items()}
    if as_json:
        facts = {
            name: dataset.model_dump(mode="json")
            | {"benchmarks": [benchmark.id for benchmark in dataset.benchmarks],
               "on_disk": [asdict(one) | {"complete": one.complete} for one in here[name]]}
            for name, dataset in datasets().items()
        }  # fmt: skip
        say(json.dumps({"data_root": root and str(root), "datasets": facts}, indent=2))
        return
    for name, dataset in datasets().items():
        say(f"{name}  {dataset.dataset}")
        rows = [
            ("  benchmarks", ", ".join(benchmark.id for benchmark in dataset.benchmarks)),
            ("  size", dataset.size),
            ("  terms", f"{dataset.terms_short}; {dataset.page}"),
            *((f"  source {key}", source.line) for key, source in dataset.sources.items()),
            *(("  on disk", f"{one.layout}: {one.words}") for one in here[name]),
        ]
        print_rows(rows)
        say("")
    if root is None:
        say("on disk: not known; --data-root or STBENCH_DATA says where to look")
    else:
        say(f"data root: {root}")


@data_app.command("get")
def get_dataset(
    name: Annotated[str, typer.Argument(metavar="DATASET", help="Data set, as `stbench data list` names it.")],
    data_root: Annotated[
        Path | None, typer.Option(help="Folder to put the data set's own folder in; default: STBENCH_DATA.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Source, as `stbench data list` names it.")] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Get it from here: http(s) address of an archive, zenodo:NUMBER, hf:OWNER/NAME, "
            "an archive or a folder of archives on this machine.",
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Revision of the hub's repository.")] = None,
    files: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Only files of the source like this; may be repeated.")
    ] = None,
    accept_terms: Annotated[bool, typer.Option("--accept-terms", help="Accept the terms that are shown.")] = False,
    keep_archives: Annotated[bool, typer.Option("--keep-archives", help="Keep archives after unpacking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be got, and get nothing.")] = False,
) -> None:
    """Get a published data set, checked and unpacked; a second start goes on where the first one stopped."""
    from spectral_tl_bench.data.sources.catalogue import find_dataset
    from spectral_tl_bench.data.sources.getting import check_room, get, is_finished, open_work
    from spectral_tl_bench.data.sources.listing import list_source
    from spectral_tl_bench.data.sources.placing import on_disk

    dataset, root = find_dataset(name), root_folder(data_root)
    if root is None:
        raise UserError("there is no folder to put the data in", fix="give --data-root FOLDER or set STBENCH_DATA")
    _check_folders(root, root / dataset.folder)
    listing = list_source(dataset, source, address, revision, files or (), say)
    work = open_work(root, dataset, listing)
    if is_finished(dataset, work, listing, root):
        say(f"{dataset.dataset} is here already, just as the source has it: nothing to do")
        _show_presence(on_disk(dataset, root), root)
        return
    _show_terms(dataset, listing)
    here = [one for one in on_disk(dataset, root) if one.chips or one.problem]
    if here and address is None and all(one.complete for one in on_disk(dataset, root)):
        say(f"{dataset.dataset} is complete in {root}: nothing to do")
        return
    for one in here:
        say(f"already in {root}, {one.layout}: {one.words}; what is in the way of new folders is never replaced")
    check_room(root, listing, work, keep_archives)
    if dry_run:
        say(f"would go to {root / dataset.folder}; --dry-run: nothing was downloaded or written")
        return
    if listing.remote and not accept_terms:
        _confirm_terms()
    with _ends_told(root):
        known = get(dataset, listing, work, root, keep_archives, say)
    say(f"{dataset.dataset} is in {root / dataset.folder}")
    if keep_archives and listing.remote:
        say(f"archives are kept in {work.folder / 'archives'}")
    here = on_disk(dataset, root)
    if (cut := next((benchmark for benchmark in dataset.benchmarks if benchmark.cut), None)) is not None:
        say("its files are larger than chips, and are cut next:")
        places = (shlex.quote(str(folder)) for folder in (root / dataset.folder, root))
        say(f"  stbench data cut {cut.id} --from {next(places)} --data-root {next(places)}")
    elif not known and not any(one.chips for one in here):
        say("warning: no benchmark can read it as it is: none of the arrangements of folders and names that are")
        say(f"known for {dataset.dataset} was found in it (`stbench benchmarks layouts`, docs/data.md)")
    _show_presence(here, root)


def _check_folders(root: Path, own: Path) -> None:
    """Refuse folders that data cannot be put in, before anything is asked of a server.

    Raises:
        UserError: If one is no folder, or the data set's own is on another disk: it is put there by renaming.
    """
    for folder in (root, own):
        if os.path.lexists(folder) and not folder.is_dir():
            raise UserError(
                "this is where the data would go, and it is not a folder", where=folder,
                fix="move it away, or choose another folder with --data-root",
            )  # fmt: skip
    if own.is_dir() and own.stat().st_dev != root.stat().st_dev:
        raise UserError(
            f"{own.name} is on another disk than the data root, in which archives are unpacked", where=own.resolve(),
            fix=f"give a folder on that disk to --data-root, such as {shlex.quote(str(own.resolve().parent))}; "
            "a link to what comes can stand here afterwards",
        )  # fmt: skip


def root_folder(data_root: Path | None) -> Path | None:
    """``--data-root``, else ``STBENCH_DATA``."""
    from spectral_tl_bench.data.source import ROOT_VARIABLE

    if data_root is None and os.environ.get(ROOT_VARIABLE):
        return user_path(os.environ[ROOT_VARIABLE])
    return data_root


@contextlib.contextmanager
def _ends_told(root: Path) -> Iterator[None]:
    """Tell a user who stops it that it can go on, and one whose folder is of no use why."""
    try:
        yield
    except KeyboardInterrupt:
        complain("stopped; what has come is kept, and the same command goes on from there")
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise UserError(
            f"the data cannot be put here: {error.strerror}", where=error.filename or root,
            fix="make room, and give the same command again: what has come is kept" if full else
            "choose a folder that you may write to, with --data-root",
        ) from None  # fmt: skip


def _confirm_terms() -> None:
    """Ask whether the terms are accepted.

    Raises:
        UserError: If there is no terminal to ask.
    """
    try:
        confirm("accept these terms?")
    except UserError:
        raise UserError(
            "the terms above have to be accepted before anything is downloaded", fix="read them, and add --accept-terms"
        ) from None


def _show_terms(dataset: Dataset, listing: Listing) -> None:
    """Terms, whom to cite, and what would be got."""
    from spectral_tl_bench.storage import in_words

    say(f"{dataset.dataset} from {listing.label}")
    for note in listing.notes:
        say(f"  {note}")
    say(f"  terms: {dataset.terms} ({dataset.page})")
    for citation in (*dataset.citation, *listing.citation):
        say(f"  cite: {citation}")
    sizes = [file.size for file in listing.files]
    total = "size not known" if None in sizes else in_words(sum(size or 0 for size in sizes))
    say(f"  files: {len(sizes)}, {total}")
    for file in listing.files[:10]:
        checksum = file.checksum.partition(":")[0] or "no checksum known"
        say(f"    {file.name} ({'size not known' if file.size is None else in_words(file.size)}, {checksum})")
    if len(sizes) > 10:
        say(f"    and {len(sizes) - 10} more")


def _show_presence(here: Sequence[Presence], root: Path) -> None:
    """How much is there, and what to do next."""
    for one in here:
        say(f"  {one.layout}: {one.words}")
    readable = [benchmark for one in here if one.chips for benchmark in one.benchmarks]
    if readable:
        say(f"next: stbench data verify {' '.join(readable)} --data-root {shlex.quote(str(root))}")
