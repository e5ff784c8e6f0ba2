"""Turn what a user asks for into cells."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from spectral_tl_bench.benchmarks import Benchmark, resolve
from spectral_tl_bench.data.normalisation import Normalise
from spectral_tl_bench.data.source import locate, open_index
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.methods.base import Backbone, Method
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.models.backbones.input_scale import chosen_scale
from spectral_tl_bench.models.backbones.lines import input_lines, weights_line
from spectral_tl_bench.models.backbones.registry import check_input_norm, check_pictures
from spectral_tl_bench.models.patch_embedding import COMPOSITES, in_composites
from spectral_tl_bench.objectives.base import Objective
from spectral_tl_bench.objectives.registry import check_options, in_order, make_objectives
from spectral_tl_bench.protocol.base import Protocol
from spectral_tl_bench.protocol.registry import get_protocol
from spectral_tl_bench.protocol.settings import RunSettings, make_settings
from spectral_tl_bench.runner.able import Able
from spectral_tl_bench.runner.cell import Cell, OpenBenchmark, Say
from spectral_tl_bench.runner.definitions import GivenStage
from spectral_tl_bench.runner.request import Request
from spectral_tl_bench.runner.stages import check_given, open_given
from spectral_tl_bench.sensors import Sensor

LEAK = (
    "warning: --as-published validates on the labels of the target and keeps the last validated weights, as the "
    "authors' release does: this shows what was published, is no result of transfer, and stands on a board apart"
)
T = TypeVar("T")
Broken = list[tuple[str, UserError]]


def plan(requests: Request | Sequence[Request], say: Say) -> tuple[list[Cell], Broken]:
    """Turn requests into cells; every mistake that can be found without training is found here.

    Returns:
        The cells, each once, and what cannot run with the reason: benchmarks whose data cannot be used, and benchmarks
        with a method whose objectives need more source domains. The others can run.

    Raises:
        UserError: If a benchmark, method, option, backbone or setting is unknown or impossible.
    """
    planner = _Planner(_once(say))
    chosen = [planner.choose(request) for request in ([requests] if isinstance(requests, Request) else requests)]
    for one in chosen:  # only now, when nothing is wrong with any of them
        planner.enter(one)
    return planner.result()


def _once(say: Say) -> Say:
    """Says each line once."""
    said: set[str] = set()

    def once(line: str) -> None:
        if line not in said:
            said.add(line)
            say(line)

    return once


@dataclass(frozen=True)
class _Chosen:
    """A request with everything made that needs no data."""

    request: Request
    benchmarks: list[tuple[Benchmark, Path | None]]
    methods: dict[str, tuple[Method, dict[str, Objective]]]
    backbone: Backbone
    protocol: Protocol
    given: GivenStage | None

    @property
    def uses_backbone(self) -> bool:
        """Whether any of the methods does."""
        return any(method.uses_backbone for method, _ in self.methods.values())


class _Planner:
    """Makes each thing once, however many requests need it."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self.able = Able()
        self.cells: dict[str, Cell] = {}
        self.twice: dict[str, Cell] = {}
        self.broken: dict[tuple[str, str], UserError] = {}
        self._made: dict[str, Any] = {}

    def result(self) -> tuple[list[Cell], Broken]:
        """All cells, and what cannot run."""
        if self.twice:
            example = next(iter(self.twice.values())).title
            self.say(f"{len(self.twice)} cells come more than once in the plan, and are run once: {example}"
                     f"{', ...' if len(self.twice) > 1 else ''}")  # fmt: skip
        return list(self.cells.values()), [(name, error) for (name, _), error in self.broken.items()]

    def _get(self, what: str, about: object, make: Callable[[], T]) -> T:
        key = f"{what} {json.dumps(about, sort_keys=True, default=str)}"
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made

    def choose(self, request: Request) -> _Chosen:
        """Everything of a request that needs no data.

        Raises:
            UserError: As ``plan``.
        """
        folder, options, of_objectives = request.from_stage, request.options, request.objective_options
        names = list(dict.fromkeys(in_order(name) for name in request.methods))
        check_options(names, of_objectives)
        sizes, protocol = request.backbone_sizes, self._protocol(request)
        _check_leak(protocol, request)
        about = [request.backbone, request.weights, request.patch_embedding, request.level_norm, sizes]
        chosen = _Chosen(
            request,
            self._get("benchmarks", request.benchmarks, lambda: resolve(list(request.benchmarks))),
            {
                name: (
                    self._get("method", [name, options, protocol.name],
                              lambda name=name: make_method(name, options, protocol.options)),  # type: ignore[misc]
                    self._get("objectives", [name, of_objectives],
                              lambda name=name: make_objectives(name, of_objectives)),  # type: ignore[misc]
                )
                for name in names
            },
            self._get(
                "backbone", about,
                lambda: get_backbone(
                    request.backbone, request.weights, request.patch_embedding, request.level_norm, **sizes
                ),
            ),
            protocol,
            None if folder is None else self._get("stage", folder, lambda: open_given(folder)),
        )  # fmt: skip
        if chosen.uses_backbone and (line := weights_line(chosen.backbone)):
            self.say(line)
        if chosen.protocol.selection.on_target:
            self.say(LEAK)
        return chosen

    def _protocol(self, request: Request) -> Protocol:
        return self._get("protocol", request.protocol, lambda: get_protocol(request.protocol))

    def enter(self, chosen: _Chosen) -> None:
        """Add the cells of a request."""
        for benchmark, own_folder in chosen.benchmarks:
            opened = self._open(benchmark, own_folder, chosen.request)
            if isinstance(opened, UserError):
                self._refuse(benchmark.id, opened)
            else:
                self._enter(chosen, opened)

    def _enter(self, chosen: _Chosen, opened: OpenBenchmark) -> None:
        request, given = chosen.request, chosen.given
        backbone = self._backbone(chosen, opened)
        settings = self._settings(chosen, opened, backbone)
        most = "at most " if settings.budget.plateau is not None else ""
        self.say(
            f"training: {most}{settings.budget.steps} steps of {settings.budget.batch_size} windows of "
            f"{settings.window} px, "
            f"after {settings.budget.pretrain_steps} without labels where a method has such a stage (--budget, --steps)"
        )
        if chosen.protocol.pixels.windows.overlaps and settings.side_by_side(opened.chip_size):
            self.say(
                f"warning: windows of {settings.window} px, {settings.stride} px apart, do not overlap, though the "
                f"protocol asks for it; the leaderboard refuses such results (--stride {settings.window // 2})"
            )
        if chosen.uses_backbone:
            sensor = opened.benchmark.sensor
            for line in input_lines(backbone, settings.window, sensor.gsd, sensor.band_names):
                self.say(line)
        found: list[Cell] = []
        for name, (method, objectives) in chosen.methods.items():
            own = self._own(settings, method, backbone)
            first = Cell(opened, name, method, backbone, chosen.protocol, own, request.seeds[0],
                         request.oracle, given, objectives, request.variant)  # fmt: skip
            first = replace(first, method=self._resolved(first))
            cells = [replace(first, seed=seed) for seed in request.seeds]
            able, reason = self.able.cells(cells)
            if reason is not None:
                self._refuse(f"{cells[0].method_title} on {opened.benchmark.id}", reason)
            found += able
        try:
            if given is not None:
                for cell in found:
                    check_given(cell, cell.split(), given)
        except UserError as error:
            self._refuse(opened.benchmark.id, error)
            return
        if given is not None and len(request.seeds) > 1:
            self.say("the given stage serves all seeds: their spread leaves out what another first stage would change")
        for cell in found:
            self._add(cell)

    def _add(self, cell: Cell) -> None:
        key = cell.fingerprint(self.able.texts)
        if key in self.cells:
            self.twice[key] = cell
            cell = cell if cell.oracle else self.cells[key]
        self.cells[key] = cell

    def _refuse(self, name: str, error: UserError) -> None:
        self.broken.setdefault((name, str(error)), error)

    def _backbone(self, chosen: _Chosen, opened: OpenBenchmark) -> Backbone:
        """The backbone as it is on the benchmark's ground, one object for all requests that mean the same."""
        request, sensor, protocol = chosen.request, opened.benchmark.sensor, chosen.protocol
        about = [id(chosen.backbone), request.input_scale, request.input_norm, protocol.name, sensor.model_dump()]
        return self._get(
            "on the ground", about,
            lambda: on_sensor(chosen.backbone, sensor, protocol, request.input_scale, request.input_norm),
        )  # fmt: skip

    def _settings(self, chosen: _Chosen, opened: OpenBenchmark, backbone: Backbone) -> RunSettings:
        overrides, protocol = chosen.request.overrides, chosen.protocol
        about = [id(opened), id(backbone), overrides.model_dump(), protocol.name]
        return self._get(
            "settings", about,
            lambda: make_settings(
                opened.benchmark, opened.chip_size, opened.is_small, backbone, overrides, protocol
            ),
        )  # fmt: skip

    def _own(self, settings: RunSettings, method: Method, backbone: Backbone) -> RunSettings:
        """The settings with a method's rates."""
        pretrained = method.uses_backbone and backbone.weights is not None
        return self._get(
            "settings of a method", [id(settings), repr(method.recipe), pretrained],
            lambda: settings.by(method.recipe, pretrained),
        )  # fmt: skip

    def _resolved(self, cell: Cell) -> Method:
        """The cell's method as it acts here; one object for all cells where that is the same."""
        found = cell.resolved().method
        return self._get("resolved", [id(cell.method), found.model_dump(mode="json")], lambda: found)

    def _open(self, benchmark: Benchmark, own_folder: Path | None, request: Request) -> OpenBenchmark | UserError:
        """A benchmark whose chips are there and can be cut for all seeds, or the reason why not."""
        about = [benchmark.id, own_folder, request.data_root, request.trust_data, request.allow_partial, request.packed]
        try:
            opened = self._get("opened", about, lambda: open_benchmark(benchmark, own_folder, request))
            self._get("cut", [id(opened), request.seeds], lambda: [opened.split(seed) for seed in request.seeds])
        except UserError as error:
            return error
        self._get("said", [id(opened), request.seeds], lambda: _say_data(opened, request.seeds, self.say))
        return opened


def on_sensor(
    backbone: Backbone, sensor: Sensor, protocol: Protocol, scale: str | None = None, norm: str | None = None
) -> Backbone:
    """The backbone with all that depends on sensor and protocol and stands in a record.

    Args:
        scale: How many times larger images are made before it, as a user writes it.
        norm: How pixels are normalised before it, as a user writes it.

    Raises:
        UserError: If one of both is impossible with the others.
    """
    backbone = chosen_scale(backbone, scale, sensor.gsd, whole_chips=not protocol.pixels.windows.overlaps)
    backbone = replace(backbone, input_norm=check_input_norm(norm or "source"))
    if backbone.input_norm == "reflectance":
        check_pictures(backbone)
        if protocol.pixels.normalise is not Normalise:
            raise UserError(
                f"input norm 'reflectance' needs bands by the source's statistics, and protocol {protocol.name} has "
                f"{getattr(protocol.pixels.normalise, 'name', 'others')}",
                fix="leave out --input-norm, or choose the protocol strict",
            )
    if backbone.patch_embedding != COMPOSITES:
        return backbone
    return replace(backbone, composites=sensor.composite_bands or in_composites(sensor.wavelengths))


def _check_leak(protocol: Protocol, request: Request) -> None:
    """Only the one protocol that is asked for by a flag of its own may select on the target."""
    leaks = protocol.selection.on_target
    if leaks != request.as_published:
        raise UserError(
            f"protocol {protocol.name} {'validates' if leaks else 'does not validate'} on the labels of the target",
            fix="--as-published, without --protocol, is the only way to a run that does",
        )


def open_benchmark(benchmark: Benchmark, own_folder: Path | None, request: Request) -> OpenBenchmark:
    """A benchmark with its chips found and checked.

    Args:
        own_folder: Folder of its YAML file when it is the user's own.
        request: Says where the data are, and what may be missing of them.

    Raises:
        DataError: If the data are not there, or not what the benchmark says.
    """
    found = locate(benchmark, own_folder, request.data_root)
    source = replace(found, trusted=request.trust_data, packed=request.packed)
    index, track, notes = open_index(benchmark, source, own_folder is not None, request.allow_partial)
    return OpenBenchmark(benchmark, source, index, track, notes)


def _say_data(opened: OpenBenchmark, seeds: Sequence[int], say: Say) -> None:
    """What the data are, and how far apart their parts: of the first seed, and of others where it is another line."""
    say(opened.source.line)
    if opened.index.packed.line:
        say(f"{opened.benchmark.id}: {opened.index.packed.line}")
    for note in opened.notes:
        say(f"{opened.benchmark.id}: {note}")
    lines: dict[str, int] = {}
    for seed in seeds:
        lines.setdefault(opened.split(seed).distances, seed)
    for line, seed in lines.items():
        say(f"{opened.benchmark.id}{f', seed {seed}' if len(lines) > 1 else ''}: {line}")
