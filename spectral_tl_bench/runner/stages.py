"""The first stage of a run: found where another run has left it, given by the user, or trained now."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from spectral_tl_bench.console import clock
from spectral_tl_bench.data.loaders import SourceData
from spectral_tl_bench.data.shares import agreed, mine, spread
from spectral_tl_bench.data.splits import SplitTable
from spectral_tl_bench.errors import MethodError, StageError, StorageError
from spectral_tl_bench.methods.adapters_io import shown
from spectral_tl_bench.methods.base import Shared, Stage, Task
from spectral_tl_bench.models.weights import State, weights_digest
from spectral_tl_bench.protocol.numerics import named_parts, stage_versions
from spectral_tl_bench.runner.checkpoints import stage_store
from spectral_tl_bench.runner.definitions import Cell, GivenStage
from spectral_tl_bench.storage import STAGES, obtain
from spectral_tl_bench.training.hardware import Hardware
from spectral_tl_bench.training.pretrain import shared_stage, train_shared
from spectral_tl_bench.training.progress import Say
from spectral_tl_bench.training.stage_store import (
    CARD_FILE,
    StageCard,
    StageIdentity,
    misfits,
    read_card,
    read_tensors,
)
from spectral_tl_bench.training.trained import StageSummary, load_state

CONTENT_DIGITS = 16

BACKBONE_FLAGS = {
    "name": "--backbone {1}",
    "patch_embedding": "--patch-embedding {1}",
    "input_scale": "--input-scale {1}",
    "level_norm": "--level-norm {1}",
    "input_norm": "--input-norm {1}",
    "pretrained": "--weights with those that the stage was trained on",
    "weights": "--weights with those that the stage was trained on",
}
"""How to get what a stage was trained with, where it is no size."""


@dataclass(frozen=True)
class FirstStage:
    """A first stage whose weights are in the run's module.

    Attributes:
        carried: Names of the weights that came with it.
        reused: Whether it was trained before this run.
        given: Whether the user named it.
        seconds_here: What finding, awaiting or training it took.
        notes: Further facts for the record.
    """

    card: StageCard
    carried: frozenset[str]
    reused: bool
    given: bool
    seconds_here: float
    notes: Mapping[str, Any]

    @property
    def seconds_elsewhere(self) -> float:
        """To be added to this run's time, so that a stage costs the same whoever trained it."""
        return self.card.seconds - self.seconds_here if self.reused else 0.0

    def summary(self, options: Mapping[str, Any]) -> StageSummary:
        """What the record keeps: the original seconds, and those that were spent here."""
        facts = {
            "stage": self.card.fingerprint,
            "reused": self.reused,
            "seconds_here": round(self.seconds_here, 3),
        }
        if self.card.identity.precision != "32-true":
            facts["precision"] = self.card.identity.precision
        return StageSummary(
            self.card.identity.stage, self.card.identity.steps, self.card.seconds, self.card.trainable,
            {**options, **facts, **self.notes},
        )  # fmt: skip


def prepare(
    cell: Cell, split: SplitTable, module: nn.Module, source: SourceData, hardware: Hardware, say: Say, out: Path
) -> FirstStage | None:
    """Put the first stage of a run into its module, if its method shares one.

    Args:
        out: Root of the record store, where a training that was cut off is found.

    Returns:
        What was done; None where the method shares no stage.

    Raises:
        StageError: If a given stage does not fit, or the training diverges.
        MethodError: If the method's declaration contradicts itself.
    """
    first_stage = shared_stage(cell.method, cell.task())
    if cell.given is not None:
        check_given(cell, split, cell.given)
    if first_stage is None:
        return None
    task, stage, shared = first_stage
    started = time.monotonic()
    if cell.given is not None:
        card, reused = cell.given.card, True
        _enter(cell.given.folder, card, module, shared)
        say(f"{cell.title} | {stage.name}: starting from the given stage {card.fingerprint[:16]}")
    else:
        identity = identity_of(cell, split, task, stage, shared)
        if mine().rank == 0:
            card, reused = _found_or_trained(cell, task, stage, shared, identity, module, source, hardware, say, out)
            if reused:
                agreed(False)
        elif agreed(None):  # the first process of a group asks for help
            store = stage_store(cell, stage.name, identity.fingerprint, out, hardware, say)
            with tempfile.TemporaryDirectory(prefix="stbench-") as work:
                train_shared(
                    task, stage, shared, identity, source, Path(work), hardware=hardware, say=say, title=cell.title,
                    store=store,
                )  # fmt: skip
        if mine().size > 1:
            card, reused = agreed((card, reused) if mine().rank == 0 else None)
            spread([value for name, value in sorted(module.state_dict().items()) if shared.carries(name)])
    carried = frozenset(name for name in module.state_dict() if shared.carries(name))
    notes = _given_notes(cell, split, cell.given) if cell.given is not None else {}
    return FirstStage(card, carried, reused, cell.given is not None, time.monotonic() - started, notes)


def identity_of(cell: Cell, split: SplitTable, task: Task, stage: Stage, shared: Shared) -> StageIdentity:
    """What a cell's first stage depends on.

    Args:
        split: Who does what; only the training chips count.
        task: From ``shared_stage``, like ``stage`` and ``shared``.
        shared: How it is shared.
    """
    benchmark, budget = cell.opened.benchmark, task.budget
    chips: dict[str, dict[str, str]] = {domain: {} for domain in benchmark.source}
    frame = cell.opened.index.frame.loc[split.chips("train")]
    for name, domain, digest in frame[["domain", "content"]].itertuples():
        chips[str(domain)][str(name)] = str(digest)[:CONTENT_DIGITS]
    numerics, unmeasured = stage_versions(cell.numerics()), int(frame["nodata_pixels"].sum())
    numerics |= named_parts(cell.protocol, ("windows",))  # the names of the other parts stand beside
    if unmeasured:  # the same bytes are other pixels once a tag calls some of them nodata; seeds are made of the bytes
        numerics["unmeasured pixels"] = str(unmeasured)
    return StageIdentity(
        method=cell.method_seed_name(),
        options=shared.method.model_dump(mode="json"),
        backbone=cell.backbone.facts(),
        dataset=benchmark.dataset,
        domains=tuple(benchmark.source),
        chips=chips,
        nodata=benchmark.nodata_key,
        bands=task.bands,
        wavelengths=task.wavelengths,
        gsd=task.gsd,
        window=task.window,
        normalisation=getattr(cell.protocol.pixels.normalise, "name", "unknown"),
        augment=cell.settings.augment,
        stage=stage.name,
        steps=stage.steps,
        batch_size=budget.batch_size,
        learning_rate=stage.learning_rate or budget.rate,
        weight_decay=budget.decay,
        schedule=budget.schedule,
        precision=cell.settings.precision,
        compile=cell.settings.compile,
        seed=cell.seed,
        numerics=numerics,
    )


def open_given(folder: Path) -> GivenStage:
    """Read a trained stage that the user names.

    Raises:
        StageError: If it is missing or damaged.
    """
    card = read_card(folder)
    read_tensors(folder, card)
    return GivenStage(folder, card)


def check_given(cell: Cell, split: SplitTable, given: GivenStage) -> None:
    """Refuse a given stage that has seen the target, or was trained for another model, sensor or source.

    Shapes of tensors, and the weights that the stage stands on, are compared when there is a module.

    Raises:
        StageError: If it cannot be used; every field that differs is named.
    """
    _check_leak(cell, split, given)
    first_stage = shared_stage(cell.method, cell.task())
    if first_stage is None:
        raise StageError(
            f"method {cell.method_name} has no first stage that could be given, with these settings",
            where=given.folder,
            fix="leave out --from-stage, or choose a method and --pretrain-steps that have one",
        )
    task, stage, shared = first_stage
    has, needs = given.card.identity, identity_of(cell, split, task, stage, shared)
    problems: list[tuple[str, object, object, str]] = []
    advice = {
        "method": "run the method that the stage was trained for",
        "stage": "run the method that the stage was trained for",
        "dataset": "choose a benchmark of the same dataset",
        "domains": "choose a benchmark with the same source",
        "bands": "choose a benchmark with the same bands in the same order",
        "wavelengths": "choose a benchmark of the same sensor",
        "gsd": "choose a benchmark of the same sensor",
        "window": f"add --window {has.window}",
    }
    for name, fix in advice.items():
        if getattr(has, name) != getattr(needs, name):
            problems.append((name, getattr(has, name), getattr(needs, name), fix))
    for part, fix in (("backbone", "--backbone-size {0}={1}"), ("options", "-o {0}={1}")):
        old, new = getattr(has, part), getattr(needs, part)
        for name in sorted(old.keys() | new.keys()):
            free = part == "options" and name in shared.free
            if not free and old.get(name) != new.get(name):
                flag = BACKBONE_FLAGS.get(name, fix) if part == "backbone" else fix
                label = f"{'backbone ' if part == 'backbone' else 'option '}{name}"
                problems.append((label, old.get(name), new.get(name), "add " + flag.format(name, old.get(name))))
    if problems:
        lines = [
            f"{name}: the checkpoint has {shown(old)}, this run needs {shown(new)}" for name, old, new, _ in problems
        ]
        raise StageError(
            f"the given stage does not fit {cell.title}:\n    " + "\n    ".join(lines),
            where=given.folder / CARD_FILE,
            fix="; ".join(dict.fromkeys(fix for *_, fix in problems)) + "; or leave out --from-stage",
        )


def _check_leak(cell: Cell, split: SplitTable, given: GivenStage) -> None:
    benchmark, has = cell.opened.benchmark, given.card.identity
    domains = set() if benchmark.in_domain or has.dataset != benchmark.dataset else {*has.domains} & {*benchmark.target}
    seen = {content for chips in has.chips.values() for content in chips.values()}
    target = cell.opened.index.frame.loc[split.chips("target"), "content"].str[:CONTENT_DIGITS]
    chips = sorted(target.index[target.isin(seen)])
    if not domains and not chips:
        return
    what = f"domain {', '.join(sorted(domains))}" if domains else f"{len(chips)} of its chips, such as {chips[0]}"
    raise StageError(
        f"the given stage was pretrained on the target of {benchmark.id} ({what}): the result would be no test of "
        "transfer, since the target must not be seen before it is evaluated, not even without labels",
        where=given.folder / CARD_FILE,
        expected=f"a stage pretrained on source chips alone ({', '.join(benchmark.source)})",
        fix="leave out --from-stage, and the stage is trained on the source of this benchmark",
    )


def _found_or_trained(
    cell: Cell, task: Task, stage: Stage, shared: Shared, identity: StageIdentity, module: nn.Module,
    source: SourceData, hardware: Hardware, say: Say, out: Path,
) -> tuple[StageCard, bool]:  # fmt: skip
    """Put the stage of an identity into a module; gives its card, and whether it was there before."""
    key, title = identity.fingerprint[:16], f"{cell.title} | {stage.name}"

    def read(folder: Path) -> StageCard:
        card = read_card(folder)
        _enter(folder, card, module, shared)
        return card

    store = stage_store(cell, stage.name, identity.fingerprint, out, hardware, say)
    trained: list[Callable[[Path], StageCard]] = []

    def train(folder: Path) -> None:
        if not trained:
            kept = " (pictures, too)" if stage.pictures else ""
            agreed(True)  # the other processes of a group take part
            say(f"{title}: {stage.steps} steps without labels, kept in {STAGES.path(key)}{kept}")
            work: dict[str, Any] = {"hardware": hardware, "say": say, "title": cell.title, "store": store}
            trained.append(train_shared(task, stage, shared, identity, source, folder, **work))
        trained[0](folder)
        try:
            read(folder)
        except StageError as error:
            raise MethodError(
                f"stage {stage.name!r} of method {cell.method_name} does not fit the module that it is meant for: "
                f"{error.what}",
                expected="`carries` and `relies_on` name the same weights whatever the other options are",
            ) from error

    try:
        card, reused = obtain(STAGES, key, read, train, damaged=(StageError,), say=lambda line: say(f"{title}: {line}"))
    except StorageError as error:  # it serves this run all the same
        say(f"{title}: the stage serves this run alone: {error.what} ({error.where})")
        with tempfile.TemporaryDirectory(prefix="stbench-") as work:
            train(Path(work))
            card, reused = read(Path(work)), False
    if store is not None:
        store.remove()
    if reused:
        say(f"{title}: reusing stage {key}, trained before in {clock(card.seconds)}")
    return card, reused


def _enter(folder: Path, card: StageCard, module: nn.Module, shared: Shared) -> None:
    """Load the tensors of a stage into a module; nothing is changed where they do not fit."""
    state: State = read_tensors(folder, card)
    problems = misfits(module, state, shared.carries)
    if problems:
        more = f"\n    and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise StageError(
            "the tensors of the stage do not fit this model:\n    " + "\n    ".join(problems[:5]) + more,
            where=folder,
            fix="use the sizes and options that the stage was trained with",
        )
    if weights_digest(module, shared.relies_on) != card.relies_on:
        raise StageError(
            f"backbone weights: the checkpoint was trained on other frozen weights of "
            f"{card.identity.backbone.get('name')} than this run has",
            where=folder,
            expected=f"weights with digest {card.relies_on[:16]}",
            fix="use the backbone, its weights and the version of torch that the stage was trained with "
            f"(see {CARD_FILE}), or leave out --from-stage",
        )
    load_state(module, state)


def _given_notes(cell: Cell, split: SplitTable, given: GivenStage) -> dict[str, Any]:
    has = given.card.identity
    seen = {content for chips in has.chips.values() for content in chips.values()}
    frame = cell.opened.index.frame.loc[split.chips("validation"), "content"].str[:CONTENT_DIGITS]
    return {
        "given": True,
        "stage_seed": has.seed,
        "stage_note": "one given stage serves all seeds, whose spread therefore leaves this stage out",
        "validation_chips_in_stage": int(frame.isin(seen).sum()),
    }
