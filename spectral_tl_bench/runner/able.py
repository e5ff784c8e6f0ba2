"""Which cells can run: asked of methods and objectives before anything is trained."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch

from spectral_tl_bench.data.windows import SlidingWindows
from spectral_tl_bench.endings import contained
from spectral_tl_bench.errors import MethodError, UserError
from spectral_tl_bench.identity import Texts
from spectral_tl_bench.methods.base import Method, Task
from spectral_tl_bench.models.backbones import Backbone, backbone_entries, load_backbone
from spectral_tl_bench.models.patch_embedding import COMPOSITES
from spectral_tl_bench.objectives.registry import check_domains
from spectral_tl_bench.runner.cell import Cell, is_foreign
from spectral_tl_bench.trial import fate_of


class Able:
    """Asks about cells of one plan: what several of them share is asked once."""

    def __init__(self) -> None:
        self.texts = Texts()
        self._foreign: dict[tuple[str, str, str], bool] = {}
        self._paired: dict[tuple[object, ...], None] = {}
        self._domains: dict[tuple[int, int], list[str]] = {}
        self._held: list[Cell] = []  # so that no other object gets an id that is known

    def cells(self, seeds: Iterable[Cell]) -> tuple[list[Cell], UserError | None]:
        """The cells of one method on one benchmark, which differ in their seed alone, and why there are no others.

        Args:
            seeds: The cells.

        Returns:
            Those before the first that cannot run, and the reason that this one gives.
        """
        able: list[Cell] = []
        for cell in seeds:
            if not able and (reason := self._first(cell)) is not None:
                return [], reason
            try:
                with contained():
                    self._check_objectives(cell)
                    cell.fingerprint(self.texts)
            except UserError as error:
                return able, error
            except Exception as error:
                return able, _unasked(error)
            able.append(cell)
        return able, None

    def _first(self, cell: Cell) -> UserError | None:
        """What stands against all seeds."""
        self._held.append(cell)
        key = (cell.method_name, cell.backbone.name, cell.protocol.name)
        if key not in self._foreign:
            self._foreign[key] = is_foreign(cell)
        if self._foreign[key] and (fate := fate_of(functools.partial(self._ask, cell))):
            return MethodError(f"when it is asked about its options and stages, {fate}")
        try:
            with contained():
                self._check(cell)
        except UserError as error:
            return error
        except Exception as error:  # whatever a foreign class raises when it is asked about its stages
            return _unasked(error)
        return None

    def _ask(self, cell: Cell) -> None:
        """All that foreign code is asked in this process, and not in that of its cell."""
        self._check(cell)
        self._check_objectives(cell)
        cell.identity(cell.split())

    def _check(self, cell: Cell) -> None:
        task = cell.task()
        pair = (id(cell.method), id(cell.backbone), task.num_bands, task.num_classes, task.window)
        if pair not in self._paired:
            check_pair(cell.method_name, cell.method, task)
            self._paired[pair] = None
        _check_stages(cell)
        _check_target_images(cell)
        _check_protocol(cell)

    def _check_objectives(self, cell: Cell) -> None:
        if not cell.objectives:
            return
        key = (id(cell.opened), cell.seed)
        if key not in self._domains:
            domains = cell.opened.index.frame.loc[cell.split().chips("train"), "domain"].astype(str).unique()
            self._domains[key] = sorted(domains)
        check_domains(cell.method_name, cell.objectives, cell.opened.benchmark.id, self._domains[key])


def _unasked(error: Exception) -> MethodError:
    return MethodError(f"it failed before training: {type(error).__name__}: {error}")


def _check_stages(cell: Cell) -> None:
    if not cell.objectives:
        return
    names = ", ".join(cell.objectives)
    if cell.method.kept_features() is not None:
        raise UserError(f"{names}: objectives need images, not kept features", fix="leave out cache=true")
    if not any(stage.labelled and stage.fit is None for stage in cell.method.stages(cell.task())):
        raise UserError(
            f"{names}: objectives change training by gradients, of which {cell.method_name} has none with labels",
            fix="run the method without objectives",
        )


def _check_protocol(cell: Cell) -> None:
    protocol, windows = cell.protocol, cell.protocol.pixels.windows
    for name, objective in cell.objectives.items():
        if objective.has("augment") and not windows.keeps_unit:
            raise UserError(
                f"{name} changes pixels in the unit of the files, and protocol {protocol.name} scales each chip first",
                fix="run it under protocol strict, or leave out the objective",
            )
        if objective.has("average") and protocol.selection.takes_last:
            raise UserError(
                f"{name} selects an average of weights by validation, and under {protocol.name} the last weights count",
                fix="run it under protocol published, or leave out the objective",
            )
    if cell.method.kept_features() is not None and type(windows) is not SlidingWindows:
        raise UserError(
            f"{cell.method_name}: kept features need the sliding windows of the protocol `strict`, "
            f"{protocol.name} has others",
            fix="leave out cache=true",
        )


def _check_target_images(cell: Cell) -> None:
    if not cell.method.target_images:
        return
    if cell.method.kept_features() is not None:
        raise UserError(f"{cell.method_name}: target images do not go with kept features", fix="leave out cache=true")
    if any(stage.shared for stage in cell.method.stages(cell.task())):
        raise UserError(
            f"{cell.method_name} shares a stage with other runs and asks for target images, which they must not see",
            fix="leave out `shared`, or `target_images`",
        )


ANYWHERE = ("full", "frozen", "linear-probe", "bitfit")
"""Our methods that leave the layers of a backbone as they are, and therefore go with every backbone."""

OTHERWISE = "choose another --backbone, or leave out --patch-embedding"


def check_pair(name: str, method: Method, task: Task) -> None:
    """Refuse a method that cannot be built on a backbone which is not the plain vision transformer.

    What a method raises on a plain one is its own mistake, and ends its own cells later on.

    Raises:
        UserError: If it cannot; it names the backbones that are of the usual kind.
    """
    backbone = task.backbone
    if _plain(backbone):
        return
    try:
        with torch.device("meta"):
            method.build(task)
    except MethodError as error:
        raise MethodError(
            f"method {name!r} does not go with {_described(backbone)}: {error.what}",
            where=error.where,
            expected="; ".join(part for part in (error.expected, _expected()) if part),
            fix=_advice() if backbone.kind == "pyramid" or backbone.form else error.fix,
        ) from error
    except UserError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        text = (str(error).strip().splitlines() or [""])[0][:300]
        if not text or isinstance(error, (AttributeError, KeyError)):  # those of others are written for people
            text = f"{type(error).__name__}: {text}"
        raise MethodError(
            f"method {name!r} does not go with {_described(backbone)}: {text}",
            expected=_expected(),
            fix=_advice() if backbone.kind == "pyramid" else OTHERWISE,
        ) from error
    except Exception:  # noqa: S110 (meta tensors hold no numbers: the cell will tell whether this matters)
        pass


def plain_backbones() -> list[str]:
    """Names of the installed vision transformers with an ordinary patch embedding."""
    names = []
    for name in backbone_entries():
        try:
            spec = load_backbone(name)
        except UserError:  # of another package, which is not asked for
            continue
        if spec.kind == "vit" and not (spec.reads_wavelengths or spec.form):
            names.append(name)
    return names


def _expected() -> str:
    return f"a plain vision transformer: {', '.join(plain_backbones())}, or timm:NAME of one"


def _advice() -> str:
    return f"choose another --backbone, or a method that goes with all of them: {', '.join(ANYWHERE)}"


def _plain(backbone: Backbone) -> bool:
    usual = (
        backbone.kind == "vit"
        and not backbone.reads_wavelengths
        and backbone.patch_embedding not in ("lowrank", COMPOSITES)
    )
    return usual and not (backbone.architecture or backbone.form or backbone.input_norm != "source")


def _described(backbone: Backbone) -> str:
    notes = {"pyramid": "four maps of different widths"}.get(backbone.kind, "a vision transformer")
    if backbone.reads_wavelengths:
        notes += " with a patch embedding of its own"
    if backbone.form:
        notes += f" with {backbone.form}"
    return f"backbone {backbone.name} ({notes}, patch embedding {backbone.patch_embedding!r})"
