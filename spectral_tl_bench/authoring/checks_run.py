"""Checks that run a method as ``stbench run`` does, on a few synthetic chips, and look for the target in what comes."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import rasterio
from scipy.io import loadmat, savemat
from torch import nn

from spectral_tl_bench.authoring.trial import Ran, Trial
from spectral_tl_bench.authoring.verdict import FailedCheckError
from spectral_tl_bench.authoring.watching import differing, listed
from spectral_tl_bench.data.source import ROOT_VARIABLE
from spectral_tl_bench.errors import RecordError, UserError
from spectral_tl_bench.methods.adapters_io import read_adapter
from spectral_tl_bench.protocol.settings import Overrides
from spectral_tl_bench.results.store import WEIGHTS_FILE, read_record, verify
from spectral_tl_bench.runner.definitions import Cell
from spectral_tl_bench.runner.run import Request, execute, plan
from spectral_tl_bench.runner.write import ERROR_FILE
from spectral_tl_bench.sample import write_mts12
from spectral_tl_bench.storage import CACHE_VARIABLE
from spectral_tl_bench.training.hardware import Hardware

BENCHMARK = "mts12-n2s"


def run(trial: Trial) -> str:
    """A run of two steps leaves a record that verifies."""
    _first(trial)
    return ""


def wall(trial: Trial) -> str:
    """Nothing of the target acts on training: no file of it is opened, and other labels give the same weights."""
    first = _first(trial)
    _poison(trial, trial.folder / "data")
    second = _run(trial, trial.folder / "data", trial.folder / "second")
    opened = list(dict.fromkeys(first.opened + second.opened))
    fix = "train on what the batches hold; nothing else may be read before the run is over"
    if opened:
        more = f" and {len(opened) - 1} more" if len(opened) > 1 else ""
        raise FailedCheckError(f"a file of the target is opened: {opened[0]}{more}", fix)
    what = "labels" if trial.method.target_images else "labels and images"
    changed = differing(first.weights, second.weights)
    if changed:
        raise FailedCheckError(f"other {what} of the target give other weights: {listed(changed)}", fix)
    if first.record.selection != second.record.selection:
        raise FailedCheckError(f"other {what} of the target give another selected checkpoint", fix)
    return f"same weights and selection with other target {what}"


def _first(trial: Trial) -> Ran:
    """The run on a few small synthetic chips, made once."""
    if trial.ran is None:
        root = trial.folder / "data"
        write_mts12(root / "MTS12", chip=max(32, trial.backbone.patch), north=8, south=4)
        trial.ran = _run(trial, root, trial.folder / "first")
    return trial.ran


def _run(trial: Trial, root: Path, out: Path) -> Ran:
    request = Request(
        (BENCHMARK,), (trial.name,), options=trial.options, backbone=trial.backbone_name,
        backbone_sizes=trial.backbone_sizes, weights=trial.weights, data_root=root, allow_partial=True,
        overrides=Overrides(steps=2, pretrain_steps=1, batch_size=2, validations=1, learning_rate=1e-2),
    )  # fmt: skip
    cells, broken = plan(request, lambda _: None)
    if broken:
        raise FailedCheckError(f"the run is refused: {broken[0][1].what}", broken[0][1].fix or "see the message")
    (cell,) = cells
    module = type(trial.method).__module__
    ours = module.split(".")[0] == "spectral_tl_bench"
    reading = Reading(METHODS if ours else module.split(".")[0])
    reading.guard(target_files(cell, images=not trial.method.target_images))
    # Where a method might look for the data by itself.
    os.environ[ROOT_VARIABLE] = str(root)
    # Each run trains its own first stage: one that another run has left would hide what this one does.
    os.environ[CACHE_VARIABLE] = str(out / "cache")
    with watched(reading):
        (outcome,) = execute(cells, out, Hardware("cpu"), 0, lambda _: None)
    if outcome.state != "done" or outcome.record is None:
        log = outcome.record.with_name(ERROR_FILE) if outcome.record else None
        last = _where(log.read_text(encoding="utf-8")) if log is not None and log.is_file() else ""
        raise FailedCheckError(f"the run {outcome.state}: {outcome.message.splitlines()[0]}{last}", "see the message")
    try:
        record = read_record(outcome.record)
        verify(record)
        _, weights = read_adapter(outcome.record.with_name(WEIGHTS_FILE))
    except (RecordError, UserError) as error:
        raise FailedCheckError(f"the record does not verify: {error.what}", "see the message") from None
    return Ran(record, weights, reading.opened)


def _where(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("File ")]
    return f" ({lines[-1]})" if lines else ""


def target_files(cell: Cell, images: bool) -> list[Path]:
    """Labels of the target chips of a cell, and their images if ``images``."""
    index = cell.opened.index
    columns = ["label", "image"] if images else ["label"]
    frame = index.frame.loc[cell.split().chips("target"), columns]
    return [index.root / name for name in frame.to_numpy().ravel()]


def _poison(trial: Trial, root: Path) -> None:
    """Replace labels of the target by others, and its images where the method must not see them."""
    rng = np.random.default_rng(5)
    cells, _ = plan(Request((BENCHMARK,), ("majority",), data_root=root, allow_partial=True), lambda _: None)
    for path in target_files(cells[0], images=not trial.method.target_images):
        if path.suffix == ".mat":
            label = loadmat(path)["label"]
            savemat(path, {"label": rng.permutation(np.unique(label))[rng.integers(0, 2, label.shape)]})
        else:
            with rasterio.open(path, "r+") as file:
                pixels = file.read()
                file.write(rng.permutation(pixels.ravel()).reshape(pixels.shape))


TRAINING = frozenset(
    f"spectral_tl_bench.training.{name}"
    for name in ("train", "gradient", "task", "closed_form", "averaging", "pretrain")
)
"""Modules in whose calls no file of the target is opened, whoever does it."""

METHODS = "spectral_tl_bench.methods"

_CALLS = {nn.Module._call_impl.__code__, nn.Module._wrapped_call_impl.__code__}


class Reading:
    """What was opened, of the files that must not be.

    Args:
        package: Top-level package of the method, or of the suite's own methods.
    """

    def __init__(self, package: str) -> None:
        self.package = package
        self.guarded: frozenset[str] = frozenset()
        self.opened: list[str] = []
        self._busy = False

    def guard(self, paths: Collection[str | os.PathLike[str]]) -> None:
        """Watch these files from now on."""
        self.guarded = frozenset(os.path.realpath(path) for path in paths)

    def note(self, path: Any) -> None:
        """Keep a file that is opened, if it is guarded and a method's code or training is on the way to it."""
        if self._busy or not self.guarded or not isinstance(path, str | bytes | os.PathLike):
            return
        self._busy = True  # finding out about it opens nothing, but asks for links
        try:
            real = os.path.realpath(os.fsdecode(path))
            if real in self.guarded and (way := self._way(sys._getframe(1))):
                self.opened.append(f"{Path(real).name} ({way})")
        finally:
            self._busy = False

    def _way(self, frame: FrameType | None) -> str:
        """The first frame, from within, that must not lead to the target; empty if there is none."""
        within = None
        while frame is not None:
            name = str(frame.f_globals.get("__name__", ""))
            if name == self.package or name.startswith(f"{self.package}."):
                path = Path(frame.f_code.co_filename).parts
                return f"{'/'.join(path[-2:])}, line {frame.f_lineno}"
            if name in TRAINING or frame.f_code in _CALLS:
                within = within or f"within {frame.f_code.co_name} of {name}"
            frame = frame.f_back
        return within or ""


_active: list[Reading] = []
_hooked: list[bool] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _active and event == "open" and arguments:
        for reading in _active:
            reading.note(arguments[0])


@contextmanager
def watched(reading: Reading) -> Iterator[Reading]:
    """Note what is opened in the block."""
    if not _hooked:
        sys.addaudithook(_hook)  # stays for good, and does nothing while nothing is watched
        _hooked.append(True)
    original = rasterio.open

    def noting(path: Any, *arguments: Any, **options: Any) -> Any:
        reading.note(path)
        return original(path, *arguments, **options)

    _active.append(reading)
    rasterio.open = noting
    try:
        yield reading
    finally:
        rasterio.open = original
        _active.remove(reading)
