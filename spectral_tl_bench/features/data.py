"""A fixed set of windows as training and evaluation data, on kept features or on images."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from spectral_tl_bench.data.batches import training_batches
from spectral_tl_bench.data.loaders import EvaluationData, SourceData
from spectral_tl_bench.data.rasters import ChipCollection
from spectral_tl_bench.data.shares import WHOLE, Share
from spectral_tl_bench.features.modules import FeatureMaps
from spectral_tl_bench.features.windows import ChipLabels, Rounds, Window, grid_windows, symmetry
from spectral_tl_bench.files import seed_from


class Rows(Protocol):
    """What a module gets of windows: their features, or their images."""

    def rows(self, rows: list[int]) -> FeatureMaps | Tensor:
        """Those of some rows."""


class TrainingWindows(Dataset[dict[str, Any]]):
    """Fixed training windows with their labels; row ``w * copies + c`` is symmetry ``c`` of window ``w``.

    Args:
        inputs: What the module gets.
        size: Side of a window in pixels.
        copies: Symmetries of each window.
        domains: Names of the source domains.
    """

    def __init__(
        self, inputs: Rows, collection: ChipCollection, windows: list[Window], size: int, copies: int,
        domains: tuple[str, ...],
    ) -> None:  # fmt: skip
        self.inputs, self.windows, self.size, self.copies = inputs, windows, size, copies
        self.domains, self.labels = domains, ChipLabels(collection)

    def __len__(self) -> int:
        return len(self.windows) * self.copies

    def __getitem__(self, row: int) -> dict[str, Any]:
        """A batch of one window."""
        return self.__getitems__([row])

    def __getitems__(self, rows: list[int]) -> dict[str, Any]:
        """A batch: ``image`` (what the module gets), ``mask`` (B, H, W), ``domain`` (B,)."""
        masks, domains = [], []
        for row in rows:
            number, copy = divmod(row, self.copies)
            window = self.windows[number]
            area = (slice(window.line, window.line + self.size), slice(window.column, window.column + self.size))
            masks.append(
                symmetry(torch.from_numpy(self.labels(window.dataset, window.number)[area].astype(np.int64)), copy)
            )
            domains.append(self.domains.index(window.domain))
        return {"image": self.inputs.rows(rows), "mask": torch.stack(masks), "domain": torch.tensor(domains)}


class KeptSource(SourceData):
    """Source data whose training windows are fixed; nothing else of it changes.

    Args:
        validation: Validation chips, as the module wants them.
        normalise: Maps what the module gets to what it was made for.
    """

    def __init__(
        self, source: SourceData, training: TrainingWindows, validation: EvaluationData, normalise: nn.Module
    ) -> None:
        vars(self).update(vars(source))
        self.training, self.validation, self._normalise = training, validation, normalise

    def train_loader(
        self, steps: int, labelled: bool, stage: str, share: Share = WHOLE, done: int = 0
    ) -> DataLoader[dict[str, Tensor]]:
        """``steps`` batches; every window and symmetry comes as often as the others. See ``SourceData.train_loader``.

        Raises:
            ValueError: If the stage has no labels.
        """
        if not labelled:
            raise ValueError("a stage without labels cannot train on fixed windows")
        settings = self.settings
        order = Rounds(
            len(self.training), steps * settings.batch_size, seed_from("fixed windows", self.order_seed, stage)
        )
        return DataLoader(
            self.training, **training_batches(order, settings.batch_size, share, done), num_workers=settings.workers,
            collate_fn=as_it_is,
        )  # fmt: skip

    def normaliser(self) -> nn.Module:
        """What comes before the module."""
        return self._normalise

    def augmentation(self, stage: str) -> None:  # noqa: ARG002
        """None: the symmetries are among the windows."""
        return


class FeatureEvaluation(EvaluationData):
    """Whole chips to be predicted from kept features.

    Args:
        maps: Features of their windows, in the order of ``grid_windows``.
    """

    def __init__(self, data: EvaluationData, maps: Rows) -> None:
        vars(self).update(vars(data))
        self.maps, self.labels = maps, ChipLabels(data.collection)

    def loader(self) -> DataLoader[dict[str, Any]]:
        """Batches of windows, chip by chip."""
        settings = self.settings
        windows = grid_windows(self.collection, settings.window, settings.stride)
        return DataLoader(
            _EvaluationWindows(self.maps, windows), batch_size=settings.eval_batch_size, shuffle=False,
            num_workers=settings.workers, collate_fn=as_it_is,
        )  # fmt: skip

    def truth(self, chip: str) -> np.ndarray[Any, Any]:
        """The classes of one chip (H, W), with void."""
        return self.labels(*self._place[chip])


class _EvaluationWindows(Dataset[dict[str, Any]]):
    def __init__(self, maps: Rows, windows: list[Window]) -> None:
        self.maps, self.windows = maps, windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.__getitems__([row])

    def __getitems__(self, rows: list[int]) -> dict[str, Any]:
        chosen = [self.windows[row] for row in rows]
        return {
            "image": self.maps.rows(rows),
            "chip": [window.chip for window in chosen],
            "line": [window.line for window in chosen],
            "column": [window.column for window in chosen],
        }


def as_it_is(batch: Any) -> Any:
    """Collate nothing: the dataset has made the batch."""
    return batch
