"""The Lightning module that trains one stage of a method."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional

from spectral_tl_bench.data.loaders import EvaluationData
from spectral_tl_bench.data.transforms import FlipsAndTurns
from spectral_tl_bench.evaluation.evaluate import ChipEvaluator
from spectral_tl_bench.evaluation.metrics import score
from spectral_tl_bench.methods.base import VOID, Batch, Budget, Stage

VALIDATION_METRIC = "val_miou"


def segmentation_loss(module: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy over labelled pixels; zero, with gradients, where a batch has none."""
    logits = module(batch["image"])
    total = functional.cross_entropy(logits, batch["mask"], ignore_index=VOID, reduction="sum")
    return total / (batch["mask"] != VOID).sum().clamp(min=1)


def trained_parameters(module: nn.Module, stage: Stage, declared: set[str]) -> set[str]:
    """The names of the parameters that a stage trains.

    Args:
        module: The method's module.
        stage: The stage.
        declared: Parameters that required a gradient when the module was built.
    """
    if stage.trainable is None:
        return set(declared)
    return {name for name, _ in module.named_parameters() if stage.trainable(name)}


class StageTask(LightningModule):
    """Trains a method's module for one stage, validates on source chips, keeps frozen parts frozen.

    Args:
        module: The method's module.
        normalise: Maps file units to normalised images.
        stage: What to train, how long, with which loss.
        budget: Optimiser settings.
        declared: Parameters that required a gradient when the module was built.
        augmentation: Applied to training windows, or None.
        validation: Source chips for validation, or None.
        num_classes: Number of classes.
    """

    def __init__(
        self,
        module: nn.Module,
        normalise: nn.Module,
        stage: Stage,
        budget: Budget,
        declared: set[str],
        augmentation: FlipsAndTurns | None,
        validation: EvaluationData | None,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.module, self.normalise, self.augmentation = module, normalise, augmentation
        self.stage, self.budget, self.num_classes = stage, budget, num_classes
        self.loss = stage.loss or segmentation_loss
        self._validation = [validation]  # in a list, so that Lightning does not look into it
        self._evaluator: ChipEvaluator | None = None
        names = trained_parameters(module, stage, declared)
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in names)
        if not names:
            raise ValueError(f"stage {stage.name!r} trains no parameter")
        self.train()  # Lightning leaves the modes as they are when fitting starts

    def train(self, mode: bool = True) -> StageTask:
        """Switch to training mode, but leave the batch statistics of frozen normalisation layers alone.

        Except inside modules that declare ``statistics_drift = True``, as a method does that follows published code
        in which the statistics of frozen layers move.
        """
        super().train(mode)
        if mode:
            declared = [child for child in self.module.modules() if getattr(child, "statistics_drift", False)]
            drifting = {layer for child in declared for layer in child.modules()}
            for child in self.module.modules():
                if child in drifting:
                    continue
                own = list(child.parameters(recurse=False))
                if hasattr(child, "running_mean") and own and not any(parameter.requires_grad for parameter in own):
                    child.eval()
        return self

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The stage's loss on one batch of windows."""
        image, mask = self.normalise(batch["image"]), batch.get("mask")
        if self.augmentation is not None:
            image, mask = self.augmentation(image, mask, batch_idx)
        prepared = {**batch, "image": image}
        if mask is not None:
            prepared["mask"] = mask
        loss = self.loss(self.module, prepared)
        self.log("train_loss", loss.detach(), prog_bar=False)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin a fresh confusion matrix: nothing of an earlier validation is counted again."""
        validation = self._validation[0]
        if validation is not None:
            self._evaluator = ChipEvaluator(validation, self.num_classes)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:  # noqa: ARG002
        """Predict one batch of validation windows."""
        if self._evaluator is not None:
            self._evaluator.add(self.module(self.normalise(batch["image"])), batch)

    def on_validation_epoch_end(self) -> None:
        """Log the mIoU over all validation chips."""
        if self._evaluator is not None:
            value = score(self._evaluator.matrix()).miou
            self.log(VALIDATION_METRIC, torch.tensor(value if math.isfinite(value) else 0.0, dtype=torch.float32))
            self._evaluator = None

    def configure_optimizers(self) -> Any:
        """AdamW (betas .9, .95) over what the stage trains; constant rate, or warm-up and cosine."""
        rate = self.stage.learning_rate or self.budget.learning_rate
        parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        optimiser = torch.optim.AdamW(
            parameters, lr=rate, betas=(0.9, 0.95), weight_decay=self.budget.weight_decay, fused=True
        )
        if self.budget.schedule == "constant":
            return optimiser
        warm, steps = max(1, self.stage.steps // 20), max(1, self.stage.steps)

        def factor(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def trained_state(self) -> dict[str, Tensor]:
        """What training can change: trainable parameters, and buffers such as batch statistics."""
        trainable = {name for name, parameter in self.module.named_parameters() if parameter.requires_grad}
        buffers = {name for name, _ in self.module.named_buffers()}
        return {name: value for name, value in self.module.state_dict().items() if name in trainable | buffers}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep checkpoints small: frozen weights are known already."""
        checkpoint["state_dict"] = {f"module.{name}": value for name, value in self.trained_state().items()}
