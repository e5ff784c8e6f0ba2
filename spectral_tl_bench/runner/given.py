"""Tests weights that somebody else has trained on a benchmark's target. No record: nobody knows what they have seen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from spectral_tl_bench.benchmarks.catalogue import resolve
from spectral_tl_bench.console import in_percent
from spectral_tl_bench.data.loaders import EvaluationData, LoaderSettings, SourceData
from spectral_tl_bench.data.source import locate, open_index
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.evaluation.evaluate import evaluate
from spectral_tl_bench.evaluation.metrics import ReleasedScores, Scores, released_from_strict, score
from spectral_tl_bench.protocol.registry import get_protocol
from spectral_tl_bench.runner.definitions import OpenBenchmark
from spectral_tl_bench.runner.seeds import order_seed


@dataclass(frozen=True)
class GivenResult:
    """What given weights reach.

    Attributes:
        chips: One row per target chip, with its confusion matrix.
        scores: Of the sum of the matrices.
        published: The same matrix by the release's own rule; see ``released_score`` for what is wrong with it.
    """

    benchmark: str
    protocol: str
    chips: pd.DataFrame
    scores: Scores
    published: ReleasedScores

    def __str__(self) -> str:
        """Lines for people."""
        return (
            f"given weights on {self.benchmark}, {len(self.chips)} target chips, protocol {self.protocol}\n"
            f"mIoU {in_percent(self.scores.miou)}, OA {in_percent(self.scores.oa)}, kappa {self.scores.kappa:.3f}\n"
            f"by the release's own rule: mIoU {in_percent(self.published.miou)}, OA {in_percent(self.published.oa)}\n"
            "not trained here, so no record and no place on a board"
        )


def evaluate_given(
    module: nn.Module,
    benchmark: str,
    *,
    window: int,
    data_root: Path | str | None = None,
    trust_data: bool = False,
    protocol: str = "strict",
    seed: int = 0,
    device: str = "cpu",
) -> GivenResult:
    """Test a trained module on the target chips of a benchmark.

    Images are normalised by the statistics of the benchmark's source training chips, as in every run: weights that
    were trained with another normalisation will not do well.

    Args:
        module: Maps images (B, C, H, W) in the benchmark's band order to logits (B, K, H, W) in its class order.
        benchmark: Id, or the path of a YAML file.
        window: Side of the windows in pixels.
        data_root: Where the data are; by default as ``stbench run`` finds them.
        trust_data: Follow links and VRTs out of the data root.
        protocol: Name of the protocol that says how pixels are read.
        seed: Of the split; the target is the same for all.

    Raises:
        UserError: If the benchmark or its data cannot be used, or the module is for other bands or classes.
    """
    chosen = resolve([benchmark])
    if len(chosen) != 1:
        raise UserError(f"{benchmark} names {len(chosen)} benchmarks", expected="one")
    found, own_folder = chosen[0]
    source = replace(locate(found, own_folder, None if data_root is None else Path(data_root)), trusted=trust_data)
    opened = OpenBenchmark(found, source, *open_index(found, source, own_folder is not None, allow_partial=True))
    if window > opened.chip_size:
        raise UserError(f"a window of {window} px is larger than the chips ({opened.chip_size} px)", where=found.id)
    rules = get_protocol(protocol)
    loading = LoaderSettings(window, max(1, window // 2), 1, rules=rules.pixels)
    split = opened.split(seed)
    training = SourceData(found, opened.index, split, loading, order_seed(found.id, seed))
    target = EvaluationData(found, opened.index, split.chips("target"), loading, training.statistics)
    bands, classes = len(found.sensor.band_names), len(found.labels.names)
    _check(module, bands, classes, window, found.id)
    chips = evaluate(module, training.normaliser(), target, classes, torch.device(device))
    matrix = sum(chips["matrix"])
    return GivenResult(found.id, protocol, chips, score(matrix), released_from_strict(matrix))


@torch.inference_mode()
def _check(module: nn.Module, bands: int, classes: int, window: int, benchmark: str) -> None:
    """Try the module on nothing before an hour of reading chips."""
    place = next((value.device for value in module.parameters()), torch.device("cpu"))
    wanted = f"images of {bands} bands in, {classes} classes out"
    try:
        logits = module.eval()(torch.zeros(1, bands, window, window, device=place))
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:200]
        raise UserError(f"the weights are not for {benchmark}: {reason}", expected=wanted) from None
    if tuple(logits.shape) != (1, classes, window, window):
        raise UserError(
            f"the weights are not for {benchmark}: they give {tuple(logits.shape)} for one window", expected=wanted
        )
