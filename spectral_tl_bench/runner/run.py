"""Plan the cells of a run and work through them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectral_tl_bench.benchmarks import Benchmark, resolve
from spectral_tl_bench.data.source import locate, open_index
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.runner.cell import Cell, OpenBenchmark, Outcome, Say, run_cell
from spectral_tl_bench.runner.settings import Overrides, make_settings
from spectral_tl_bench.runner.stages import check_given, open_given
from spectral_tl_bench.training.fit import Hardware


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        benchmarks: Ids, groups or paths of YAML files.
        methods: Entry-point names, each by itself or with a preset (``name@preset``).
        options: Method options, for every method of the request; they win over a preset's.
        backbone: Backbone name.
        backbone_sizes: Changed sizes of the backbone.
        seeds: Seeds.
        data_root: ``--data-root``, if given.
        allow_partial: Whether published data may be incomplete.
        overrides: Changed protocol settings.
        oracle: Also report the oracle checkpoint.
        from_stage: Folder of a trained first stage to start from.
    """

    benchmarks: Sequence[str]
    methods: Sequence[str]
    options: dict[str, Any] = field(default_factory=dict)
    backbone: str = "compact"
    backbone_sizes: dict[str, int] = field(default_factory=dict)
    seeds: Sequence[int] = (0,)
    data_root: Path | None = None
    allow_partial: bool = False
    overrides: Overrides = field(default_factory=Overrides)
    oracle: bool = False
    from_stage: Path | None = None


def plan(request: Request, say: Say) -> tuple[list[Cell], list[tuple[str, UserError]]]:
    """Turn a request into cells; every mistake that can be found without training is found here.

    Args:
        request: What the user asked for.
        say: Prints one line.

    Returns:
        The cells, and for each benchmark whose data cannot be used its id and the reason. The others can run.

    Raises:
        UserError: If a benchmark, method, option, backbone or setting is unknown or impossible.
    """
    chosen = resolve(list(request.benchmarks))
    given = open_given(request.from_stage) if request.from_stage is not None else None
    methods = {name: make_method(name, request.options) for name in request.methods}
    backbone = get_backbone(request.backbone, **request.backbone_sizes)
    opened, broken, said = [], [], set()

    def once(line: str) -> None:
        if line not in said:
            said.add(line)
            say(line)

    for benchmark, own_folder in chosen:
        try:
            one = _open(benchmark, own_folder, request)
            for seed in request.seeds:
                one.split(seed)
        except UserError as error:
            broken.append((benchmark.id, error))
            continue
        once(one.source.line)
        for note in one.notes:
            once(f"{benchmark.id}: {note}")
        opened.append(one)
    cells = []
    for one in opened:
        chip_size = int(one.index.frame[["height", "width"]].to_numpy().min())
        # The published settings are for the published data; anything else starts with minutes, not days.
        small = one.track in ("sample", "own") or chip_size != one.benchmark.chip_size
        settings = make_settings(one.benchmark, chip_size, small, backbone, request.overrides)
        budget = settings.budget
        once(
            f"training: {budget.steps} steps of {budget.batch_size} windows of {settings.window} px, after "
            f"{budget.pretrain_steps} without labels where a method has such a stage (--budget, --steps)"
        )
        own = [
            Cell(one, name, method, backbone, settings, seed, request.oracle, given)
            for name, method in methods.items()
            for seed in request.seeds
        ]
        try:
            if given is not None:
                for cell in own:
                    check_given(cell, cell.split(), given)
        except UserError as error:
            broken.append((one.benchmark.id, error))
            continue
        if given is not None and len(request.seeds) > 1:
            once("the given stage serves all seeds: their spread leaves out what another first stage would change")
        cells += own
    return cells, broken


def _open(benchmark: Benchmark, own_folder: Path | None, request: Request) -> OpenBenchmark:
    source = locate(benchmark, own_folder, request.data_root)
    index, track, notes = open_index(benchmark, source, own_folder is not None, request.allow_partial)
    return OpenBenchmark(benchmark, source, index, track, notes)


def execute(
    cells: Sequence[Cell], out: Path, hardware: Hardware, workers: int, say: Say, fresh: bool = False
) -> list[Outcome]:
    """Run cells one after the other in this process; each leaves its record as soon as it ends."""
    outcomes = []
    for cell in cells:
        outcomes.append(run_cell(cell, out, hardware, workers, say, fresh))
        say(closing_line(outcomes[-1], len(outcomes), len(cells)))
    return outcomes


def closing_line(outcome: Outcome, number: int, total: int) -> str:
    """One line on how a cell ended."""
    before = "finished before, " if outcome.state == "found" else ""
    missing = f"{outcome.state}: {outcome.message}"
    ending = missing if outcome.miou is None else f"{before}target mIoU {outcome.miou:.3f}"
    return f"[{number}/{total}] {outcome.cell.title} | {ending}"
