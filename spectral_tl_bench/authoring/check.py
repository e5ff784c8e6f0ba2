"""``check_method``: puts an installed method through its paces and says how each check ended."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from spectral_tl_bench.authoring import checks_interface, checks_run, checks_training
from spectral_tl_bench.authoring.surroundings import undone
from spectral_tl_bench.authoring.trial import TINY, Trial
from spectral_tl_bench.authoring.verdict import FailedCheckError, NotApplicableError, Verdict, described
from spectral_tl_bench.errors import MethodError, UserError, nearest
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.objectives.registry import split_objectives

BACKBONE = "compact"


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        function: Raises where a method does not pass; returns a note, or nothing.
        needs: Checks without which this one would say nothing new.
        runs: Whether it runs the method on chips, which takes seconds.
    """

    name: str
    title: str
    function: Callable[[Trial], str]
    needs: tuple[str, ...] = ()
    runs: bool = False


_BASIS = ("cpu", "build", "logits", "numbers")

CHECKS = (
    Check("cpu", "runs without a GPU", checks_interface.cpu),
    Check("build", "builds a float32 module; the last stage is labelled", checks_interface.build, ("cpu",)),
    Check("options", "options can be stored; goes to other processes", checks_interface.kept),
    Check("logits", "logits are (B, K, H, W)", checks_interface.logits, _BASIS[:2]),
    Check("numbers", "logits are finite float32", checks_interface.numbers, _BASIS[:3]),
    Check("device", "goes along to the device it is given", checks_interface.device, _BASIS),
    Check("evaluation", "predicting twice is the same and changes nothing", checks_training.evaluation, _BASIS),
    Check("bands", "any number of bands: 1, 3, 13, 32", checks_interface.bands, _BASIS),
    Check("windows", "any size of window", checks_interface.windows, _BASIS),
    Check("void", "a finite loss where labels are void", checks_interface.void, _BASIS),
    Check("stages", "every stage trains a few steps", checks_training.stages, (*_BASIS, "void")),
    Check("batches", "a batch of one; images do not act on each other", checks_interface.batches,
          (*_BASIS, "evaluation", "stages")),
    Check("trains", "what is declared trainable trains, nothing else", checks_training.trains, (*_BASIS, "stages")),
    Check("seed", "the same seed gives the same training", checks_training.seed, (*_BASIS, "stages")),
    Check("files", "stored weights predict the same", checks_training.files,
          (*_BASIS, "options", "stages", "evaluation", "trains", "seed")),
    Check("surroundings", "nothing outside the module changes", checks_training.surroundings, (*_BASIS, "void")),
    Check("run", "a run leaves a record that verifies", checks_run.run,
          (*_BASIS, "options", "bands", "stages"), runs=True),
    Check("wall", "training knows nothing of the target", checks_run.wall, (*_BASIS, "run", "seed"), runs=True),
)  # fmt: skip
"""In the order in which they are made."""


def check_method(
    name: str,
    options: Mapping[str, Any] | None = None,
    *,
    backbone: str = BACKBONE,
    backbone_sizes: Mapping[str, int] | None = None,
    weights: str | None = None,
    only: Iterable[str] | None = None,
    runs: bool = True,
    on_verdict: Callable[[Verdict], None] | None = None,
) -> list[Verdict]:
    """Check an installed method, on the CPU, with tiny models and data.

    A check that needs another one which the method does not pass is ``not applicable``, so that one mistake gives one
    failure.

    Args:
        name: Entry-point name, by itself or with a preset.
        options: Values by option name.
        backbone_sizes: Changed sizes of it; by default tiny ones where it is ``compact``.
        weights: Pretrained weights of the backbone; see ``get_backbone``.
        only: Names of checks, to make these and those that they need; by default all.
        runs: Whether to make the checks that run the method on chips, which take seconds.
        on_verdict: Called with every verdict as it is reached.

    Raises:
        UserError: If the method, an option, the backbone or a check is unknown.
    """
    if split_objectives(name)[1]:
        raise MethodError(f"{name!r} has objectives", fix=f"check the method alone: {split_objectives(name)[0]}")
    chosen = _chosen(only, runs)
    sizes = dict(TINY if backbone_sizes is None and backbone == BACKBONE else backbone_sizes or {})
    given = dict(options or {})
    spec = get_backbone(backbone, weights, None, None, **sizes)
    method, window = make_method(name, given), max(spec.patch, 32 // spec.patch * spec.patch)
    verdicts: dict[str, Verdict] = {}
    with TemporaryDirectory(prefix="stbench-") as folder:
        trial = Trial(
            name, given, method, spec, window=window, backbone_name=backbone, backbone_sizes=sizes, weights=weights,
            folder=Path(folder).resolve(),
        )  # fmt: skip
        for check in chosen:
            verdicts[check.name] = _verdict(check, trial, verdicts)
            if on_verdict is not None:
                on_verdict(verdicts[check.name])
    return list(verdicts.values())


def failures(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """The failed ones among some verdicts."""
    return [verdict for verdict in verdicts if verdict.state == "fail"]


def _chosen(only: Iterable[str] | None, runs: bool) -> list[Check]:
    known = {check.name: check for check in CHECKS}
    wanted = set(known) if only is None else set(only)
    for name in sorted(wanted - known.keys()):
        raise UserError(f"there is no check {name!r}", expected=nearest(name, known))
    wanted |= {need for name in wanted for need in known[name].needs}
    return [check for check in CHECKS if check.name in wanted and (runs or not check.runs)]


def _verdict(check: Check, trial: Trial, verdicts: Mapping[str, Verdict]) -> Verdict:
    missing = [need for need in check.needs if need in verdicts and verdicts[need].state == "fail"]
    if missing:
        return Verdict(check.name, check.title, "not applicable", f"needs {', '.join(missing)}")
    lost = [need for need in check.needs if need in verdicts and verdicts[need].reason.startswith("needs ")]
    if lost:
        return Verdict(check.name, check.title, "not applicable", verdicts[lost[0]].reason)
    started = time.monotonic()
    with undone(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            note = check.function(trial)
            verdict = Verdict(check.name, check.title, "pass", note)
        except NotApplicableError as error:
            verdict = Verdict(check.name, check.title, "not applicable", str(error))
        except FailedCheckError as error:
            verdict = Verdict(check.name, check.title, "fail", error.reason, error.fix)
        except Exception as error:  # whatever a method raises
            fix = "see the message; `stbench run` on the sample leaves the whole traceback beside its record"
            verdict = Verdict(check.name, check.title, "fail", described(error), fix)
    return Verdict(verdict.check, verdict.title, verdict.state, verdict.reason, verdict.fix, time.monotonic() - started)
