"""Predict whole chips window by window and count: one confusion matrix per chip."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from spectral_tl_bench.benchmarks import VOID
from spectral_tl_bench.data.batches import on_device
from spectral_tl_bench.data.loaders import EvaluationData
from spectral_tl_bench.data.shares import agreed, gathered, mine, spread, summed
from spectral_tl_bench.data.windows import ChipStitcher
from spectral_tl_bench.evaluation.metrics import confusion
from spectral_tl_bench.pulse import beat

NUMERICS_VERSION = 1
"""Raised by hand whenever predictions, confusion matrices or scores may change for the same logits."""

OnChip = Callable[[str, "np.ndarray[Any, Any]"], None]


class ChipEvaluator:
    """Gathers the logits of windows and turns every finished chip into a confusion matrix.

    Labels are read here, after the prediction is made; no module ever gets them.

    Args:
        num_classes: Number of classes K.
        with_loss: Also sum the cross-entropy of every window.
        on_chip: Called with the name of every finished chip and its predicted classes (H, W).
    """

    def __init__(
        self, data: EvaluationData, num_classes: int, with_loss: bool = False, on_chip: OnChip | None = None
    ) -> None:
        self.data, self.num_classes, self.with_loss, self.on_chip = data, num_classes, with_loss, on_chip
        self._truth: dict[str, Tensor] = {}
        self._loss, self._pixels = 0.0, 0
        self._remaining = data.windows_per_chip()
        self._open: dict[str, ChipStitcher] = {}
        self._rows: list[dict[str, Any]] = []

    def add(self, logits: Tensor, batch: dict[str, Any]) -> None:
        """Take the logits (B, K, h, w) of one batch of windows.

        Raises:
            ValueError: If the logits have another shape than the windows ask for, or are not numbers.
        """
        beat()
        wanted = (len(batch["chip"]), self.num_classes, *batch["image"].shape[-2:])
        if not isinstance(logits, Tensor) or tuple(logits.shape) != wanted:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"the method returned logits of shape {got}, expected {wanted} (B, K, H, W)")
        for number, chip in enumerate(batch["chip"]):
            if chip not in self._open:
                row, settings = self.data.rows[chip], self.data.settings
                self._open[chip] = settings.windows.stitcher(
                    self.num_classes, row["height"], row["width"], settings.window, logits.device
                )
            self._open[chip].add(logits[number], batch["line"][number], batch["column"][number])
            if self.with_loss:
                self._add_loss(logits[number], chip, batch["line"][number], batch["column"][number])
            self._remaining[chip] -= 1
            if self._remaining[chip] == 0:
                self._finish(chip, self._open.pop(chip).finish().cpu().numpy())

    def _add_loss(self, logits: Tensor, chip: str, line: int, column: int) -> None:
        if chip not in self._truth:
            self._truth[chip] = torch.from_numpy(self.data.truth(chip)).long().to(logits.device)
        height, width = logits.shape[-2:]
        truth = self._truth[chip][None, line : line + height, column : column + width]
        total = functional.cross_entropy(logits[None].float(), truth, ignore_index=VOID, reduction="sum")
        self._loss, self._pixels = self._loss + float(total), self._pixels + int((truth != VOID).sum())

    def loss(self) -> float:
        """Mean cross-entropy over the labelled pixels of all windows; a pixel counts once for each window.

        Where several processes have a share of the chips, it is that of all: each of them must ask.
        """
        loss, pixels = summed(torch.tensor([self._loss, self._pixels], dtype=torch.float64)).tolist()
        return loss / max(1, pixels)

    def _finish(self, chip: str, prediction: np.ndarray[Any, Any]) -> None:
        self._truth.pop(chip, None)
        if self.on_chip is not None:
            self.on_chip(chip, prediction)
        matrix = confusion(self.data.truth(chip), prediction, self.num_classes)
        domain = self.data.rows[chip]["domain"]
        self._rows.append({"chip": chip, "domain": domain, "site": self.data.site(chip), "matrix": matrix})

    def table(self) -> pd.DataFrame:
        """One row per chip: chip, domain, site, matrix (K, K) int64, sorted by chip.

        Raises:
            RuntimeError: If a chip was not covered completely.
        """
        missing = [chip for chip, count in self._remaining.items() if count]
        if missing:
            raise RuntimeError(f"{len(missing)} chips were not covered, for example {missing[0]}")
        rows: list[dict[str, Any]] = sorted(self._rows, key=lambda row: str(row["chip"]))
        return pd.DataFrame(rows)

    def matrix(self) -> np.ndarray[Any, Any]:
        """The sum over all chips (K, K), int64; over those of all processes, each of which must ask."""
        nothing = np.zeros((self.num_classes, self.num_classes), dtype=np.int64)
        own = np.sum([nothing, *(self.table()["matrix"] if self._remaining else ())], axis=0)
        return summed(torch.from_numpy(own)).numpy()


@torch.inference_mode()
def evaluate(
    module: nn.Module,
    normalise: nn.Module,
    data: EvaluationData,
    num_classes: int,
    device: torch.device,
    on_batch: Callable[[int, int], None] | None = None,
    on_chip: OnChip | None = None,
) -> pd.DataFrame:
    """Evaluate a trained module on whole chips.

    Args:
        module: Maps normalised images (B, C, H, W) to logits (B, K, H, W).
        normalise: Maps file units to normalised images.
        on_batch: Called with (batches done, batches in all).
        on_chip: Called with the name of every finished chip and its predicted classes (H, W).

    Returns:
        One row per chip, as ``ChipEvaluator.table``.
    """
    module, normalise = module.to(device).eval(), normalise.to(device)
    evaluator = ChipEvaluator(data, num_classes, on_chip=on_chip)
    loader = data.loader()
    for number, batch in enumerate(loader, start=1):
        images = normalise(on_device(batch["image"], device))
        evaluator.add(module(images), batch)
        if on_batch is not None:
            on_batch(number, len(loader))
    return evaluator.table()


def evaluate_together(
    module: nn.Module,
    normalise: nn.Module,
    data: EvaluationData,
    num_classes: int,
    device: torch.device,
    on_batch: Callable[[int, int], None] | None = None,
    on_chip: OnChip | None = None,
    shown: Collection[str] = (),
) -> pd.DataFrame:
    """As ``evaluate``, with the first process's weights and each process on its share of the chips.

    Every process of a group must call it. No chip is predicted twice.

    Args:
        module: Maps normalised images (B, C, H, W) to logits (B, K, H, W).
        normalise: Maps file units to normalised images.
        on_batch: Called with (batches done, batches in all) of this process.
        on_chip: Called with the name and the predicted classes (H, W) of chips that are finished, in the first process.
        shown: The chips for which it must be called; with several processes it is called for no other.

    Returns:
        One row per chip, as ``ChipEvaluator.table``; in processes other than the first without any row.
    """
    if mine().size == 1:
        return evaluate(module, normalise, data, num_classes, device, on_batch, on_chip)
    module.to(device)
    state = module.state_dict()
    spread([state[name] for name in sorted(state)])
    wanted, predictions = set(agreed(list(shown))), {}

    def keep(chip: str, prediction: np.ndarray[Any, Any]) -> None:
        if chip in wanted:
            predictions[chip] = prediction

    own, rows = data.share(mine()), []
    if own.rows:
        table = evaluate(module, normalise, own, num_classes, device, on_batch, keep)
        rows = table[["chip", "domain", "matrix"]].to_dict("records")
    parts = gathered((rows, predictions))
    if mine().rank:
        return pd.DataFrame()
    rows = sorted((row for part, _ in parts for row in part), key=lambda row: str(row["chip"]))
    if on_chip is not None:
        for chip, prediction in (item for _, finished in parts for item in finished.items()):
            on_chip(chip, prediction)
    return pd.DataFrame([{"site": data.site(row["chip"]), **row} for row in rows])[["chip", "domain", "site", "matrix"]]
