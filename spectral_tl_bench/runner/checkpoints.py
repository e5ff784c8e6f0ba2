"""Where the checkpoints of a cell and of a shared first stage are: found by what is trained, below the records."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from spectral_tl_bench.methods.registry import distribution_of
from spectral_tl_bench.provenance import environment
from spectral_tl_bench.runner.definitions import Cell
from spectral_tl_bench.runner.standing import DIGITS, FOLDER
from spectral_tl_bench.training.checkpoints import CheckpointStore, Rhythm, remove_checkpoints
from spectral_tl_bench.training.hardware import Hardware
from spectral_tl_bench.training.progress import Say


def resume_folder(out: Path, fingerprint: str) -> Path:
    """The folder of a cell: its checkpoints, and its progress."""
    return out / FOLDER / fingerprint[:DIGITS]


def cell_store(cell: Cell, fingerprint: str, out: Path, hardware: Hardware, say: Say) -> CheckpointStore | None:
    """Where a cell keeps checkpoints; None where it is to keep none.

    Args:
        out: Root of the record store.
        hardware: With the rhythm.
    """
    work = {"cell": fingerprint, "oracle": str(cell.oracle)}
    return _store(cell, resume_folder(out, fingerprint), work, hardware, say, cell.title)


def stage_store(
    cell: Cell, stage: str, fingerprint: str, out: Path, hardware: Hardware, say: Say
) -> CheckpointStore | None:
    """The same for a first stage that cells share.

    Args:
        cell: The cell that trains it.
        fingerprint: Of the stage's identity.
        out: Root of the record store.
        hardware: With the rhythm.
    """
    folder = out / FOLDER / f"stage-{fingerprint[:DIGITS]}"
    return _store(cell, folder, {"stage": fingerprint}, hardware, say, f"{cell.title} | {stage}")


def _store(
    cell: Cell, folder: Path, work: dict[str, str], hardware: Hardware, say: Say, title: str
) -> CheckpointStore | None:
    if not hardware.checkpoint_every:
        return None
    # The version of a package stays the same while somebody works on its code.
    made_with = environment(*distribution_of(cell.method_name), type(cell.method).__module__)
    code = {name: made_with[name] for name in ("suite code", "method code")}
    rhythm = Rhythm(hardware.checkpoint_every, hardware.checkpoint_steps)
    return CheckpointStore(folder, {**work, **code}, rhythm, say, title)


def forget_finished(out: Path, fingerprints: Iterable[str]) -> None:
    """Remove what is left of cells that were killed between the record and the end.

    Args:
        out: Root of the record store.
        fingerprints: Of cells that have a finished record.
    """
    try:
        left = {path.name for path in (out / FOLDER).iterdir()}
    except OSError:
        return
    for fingerprint in fingerprints:
        if fingerprint[:DIGITS] in left:
            forget(out, fingerprint)


def forget(out: Path, fingerprint: str) -> None:
    """Remove what is kept of a cell: it is stored, or is to begin anew."""
    remove_checkpoints(resume_folder(out, fingerprint))
