"""The Lightning module that trains one stage of a method."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from lightning import LightningModule
from torch import Tensor, nn

from spectral_tl_bench.data.batches import IMAGES, on_device
from spectral_tl_bench.data.loaders import EvaluationData
from spectral_tl_bench.data.shares import spread
from spectral_tl_bench.evaluation.evaluate import ChipEvaluator
from spectral_tl_bench.methods.base import Batch, Budget, Stage
from spectral_tl_bench.methods.budget import WARMUP
from spectral_tl_bench.methods.losses import segmentation_loss
from spectral_tl_bench.models.weights import with_frozen_statistics
from spectral_tl_bench.training.checkpoints import OURS
from spectral_tl_bench.training.selection import BestOnSource, Matrix

if TYPE_CHECKING:
    from spectral_tl_bench.training.active_objectives import ActiveObjectives
    from spectral_tl_bench.training.parts import Parts

NUMERICS_VERSION = 1
"""Raised by hand whenever the weights that training leads to may change."""

VALIDATION_METRIC = "val_miou"
BACKBONE = "backbone."
"""Where a method's module has its backbone."""


def trained_parameters(module: nn.Module, stage: Stage, declared: set[str]) -> set[str]:
    """The names of the parameters that a stage trains.

    Args:
        declared: Parameters that required a gradient when the module was built.
    """
    if stage.trainable is None:
        return set(declared)
    return {name for name, _ in module.named_parameters() if stage.trainable(name)}


def warm_up(stage: Stage, budget: Budget) -> int:
    """Steps in which the rate of a stage rises; a stage without labels has the usual ones, whatever the recipe."""
    share = budget.warmup_share if stage.labelled and budget.warmup_share is not None else WARMUP
    # A share such as .05 is no binary fraction: 1/20 of 20 steps is one step.
    return max(1, math.floor(stage.steps * share + 1e-9))


def trained_state(module: nn.Module) -> dict[str, Tensor]:
    """What training can change: trainable parameters, and buffers such as batch statistics."""
    trainable = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    buffers = {name for name, _ in module.named_buffers()}
    return {name: value for name, value in module.state_dict().items() if name in trainable | buffers}


class StageTask(LightningModule):
    """Trains a method's module for one stage, validates it, keeps frozen parts frozen.

    Args:
        normalise: Maps file units to normalised images.
        stage: What to train, how long, with which loss.
        declared: Parameters that required a gradient when the module was built.
        augmentation: Applied to training windows, or None.
        validation: Chips for validation, of the source unless the selection says otherwise, or None.
        compiled: The module in compiled form, for training steps; validation runs the module as it is.
        objectives: The objectives of the run, or None.
        selection: What the value of a validation is; by default that of ``BestOnSource``.
        parts: How batches are divided over devices and passes; None for not at all.
    """

    def __init__(
        self,
        module: nn.Module,
        normalise: nn.Module,
        stage: Stage,
        budget: Budget,
        declared: set[str],
        augmentation: nn.Module | None,
        validation: EvaluationData | None,
        num_classes: int,
        compiled: nn.Module | None = None,
        objectives: ActiveObjectives | None = None,
        selection: BestOnSource | None = None,
        parts: Parts | None = None,
    ) -> None:
        super().__init__()
        self.module, self.normalise, self.augmentation = module, normalise, augmentation
        self.stage, self.budget, self.num_classes = stage, budget, num_classes
        self.loss, self.objectives = stage.loss or segmentation_loss, objectives
        self.selection, self.parts = selection or BestOnSource(), parts
        self.validated_aside = False  # whether this step was followed by a validation that no trainer knows of
        self.strict_loading = False  # what Lightning goes on from has no weights, see on_save_checkpoint
        self._compiled = [compiled]  # in a list, like the next: its weights are the module's
        self._validation = [validation]  # in a list, so that Lightning does not look into it
        self._evaluator: ChipEvaluator | None = None
        self.passes: list[Matrix] = []
        """Confusion matrices of earlier validations, where the selection never resets them."""
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
            for _, child in with_frozen_statistics(self.module):
                child.eval()
        return self

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The stage's loss on one batch of windows."""
        self.validated_aside = False
        if self.parts is None:
            loss = value = self._loss(self._prepared(batch, batch_idx))
        else:
            if self.parts.passes > 1:
                self.zero_grad()
            prepared = self.parts.narrowed(self._prepared(self.parts.widened(batch), batch_idx))
            loss, value = self.parts.loss(self, prepared, self._loss)
        self.log("train_loss", value.detach(), prog_bar=False)
        return loss

    def _loss(self, batch: Batch) -> Tensor:
        compiled = self._compiled[0]
        return (self.objectives or self).loss(self.module if compiled is None else compiled, batch)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        """Forget gradients, except where they are those of a batch's earlier passes."""
        if self.parts is None or self.parts.passes == 1:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:  # noqa: ARG002
        """Images become float32 where they are computed with."""
        return batch | {name: on_device(batch[name], self.device) for name in IMAGES if name in batch}

    def _prepared(self, batch: Batch, batch_idx: int) -> Batch:
        """Normalised and augmented windows."""
        image, mask = batch["image"], batch.get("mask")
        if self.objectives is not None:
            image = self.objectives.augment(image, batch_idx)
        image = self.normalise(image)
        if self.augmentation is not None:
            image, mask = self.augmentation(image, mask, batch_idx)
        prepared = {**batch, "image": image}
        if mask is not None:
            prepared["mask"] = mask
        if "target_image" in batch:
            target = self.normalise(batch["target_image"])
            if self.augmentation is not None:
                target, _ = self.augmentation(target, None, batch_idx)
            prepared["target_image"] = target
        return prepared

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Let the stage do what it does after a step; Lightning comes here before it validates."""
        if self.stage.after_step is not None:
            self.stage.after_step(self.module, batch_idx + 1, self.stage.steps)
        if self.objectives is not None:
            self.objectives.after_step(batch_idx + 1, self.module)
            if self.objectives.validates_after(batch_idx + 1):
                self.objectives.after_validation(batch_idx + 1, self._source_loss())
                self.validated_aside = True

    def _source_loss(self) -> float:
        chips = self._validation[0]
        if chips is None:
            raise RuntimeError("weights are averaged in a stage without source validation")
        precision = self.trainer.strategy.precision_plugin.val_step_context()
        return source_loss(self.module, self.normalise, chips, self.num_classes, self.device, precision)

    def on_validation_epoch_start(self) -> None:
        """Begin a fresh confusion matrix: nothing of an earlier validation is counted again."""
        validation = self._validation[0]
        spread(list(self.module.buffers()))
        if validation is not None:
            self._evaluator = ChipEvaluator(
                validation, self.num_classes, with_loss=self.objectives is not None and self.objectives.wants_loss
            )

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:  # noqa: ARG002
        """Predict one batch of validation windows."""
        validation = self._validation[0]
        if self._evaluator is not None and validation is not None and validation.rows:
            self._evaluator.add(self.module(self.normalise(batch["image"])), batch)

    def on_validation_epoch_end(self) -> None:
        """Log the value of the validation, from the counts over all its chips."""
        if self._evaluator is not None:
            matrix = self._evaluator.matrix()
            value = self.selection.value(matrix, self.passes)
            if self.selection.never_resets:
                self.passes.append(matrix)
            self.log(VALIDATION_METRIC, torch.tensor(value, dtype=torch.float32))
            if self.objectives is not None and self.objectives.wants_loss:
                self.objectives.after_validation(self.global_step, self._evaluator.loss())
            self._evaluator = None

    def configure_optimizers(self) -> Any:
        """AdamW (betas .9, .95) over what the stage trains; constant rate, or warm-up and cosine."""
        rate = self.stage.learning_rate or self.budget.rate
        optimiser = torch.optim.AdamW(
            self._groups(rate), lr=rate, betas=(0.9, 0.95), weight_decay=self.budget.decay, fused=True
        )
        if self.budget.schedule == "constant":
            return optimiser
        steps = max(1, self.stage.steps)
        warm = warm_up(self.stage, self.budget)

        def factor(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _groups(self, rate: float) -> list[Any]:
        """What the stage trains; the backbone's own weights apart where they have a rate of their own."""
        trained = {name: value for name, value in self.module.named_parameters() if value.requires_grad}
        share = self.budget.pretrained_rate or 1.0
        slow = [value for name, value in trained.items() if name.startswith(BACKBONE)]
        if share == 1.0 or not slow or not self.stage.labelled:
            return list(trained.values())
        new = [value for name, value in trained.items() if not name.startswith(BACKBONE)]
        groups = [{"params": new, "lr": rate}, {"params": slow, "lr": rate * share}]
        return [group for group in groups if group["params"]]

    def trained_state(self) -> dict[str, Tensor]:
        """What training can change: trainable parameters, and buffers such as batch statistics."""
        return trained_state(self.module)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep checkpoints small: frozen weights are known already; one to go on from has weights of its own."""
        state = {} if OURS in checkpoint else self.trained_state()
        checkpoint["state_dict"] = {f"module.{name}": value for name, value in state.items()}
        if OURS in checkpoint and self.passes:
            checkpoint["passes"] = [torch.from_numpy(matrix) for matrix in self.passes]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the validations before training was cut off."""
        self.passes = [matrix.numpy() for matrix in checkpoint.get("passes", [])]


@torch.no_grad()
def source_loss(
    module: nn.Module,
    normalise: nn.Module,
    chips: EvaluationData,
    num_classes: int,
    device: torch.device,
    precision: AbstractContextManager[Any],
) -> float:
    """Mean cross-entropy over the windows of chips, as a validation would give it; training goes on as if unseen.

    Modes of layers and random states are afterwards what they were. Where several processes train together, all of
    them come here, each with its share of the chips.

    Args:
        module: Maps normalised images (B, C, H, W) to logits (B, K, H, W).
        normalise: Maps file units to normalised images.
        chips: Source chips for validation, or this process's share of them.
        num_classes: Number of classes K.
        device: Where the module is.
        precision: Context of the forward passes.
    """
    modes = [(child, child.training) for child in module.modules()]
    spread(list(module.buffers()))
    evaluator = ChipEvaluator(chips, num_classes, with_loss=True)
    module.eval()
    # A loader draws a seed for its workers.
    with torch.random.fork_rng(devices=[]), precision:
        for batch in chips.loader() if chips.rows else ():
            evaluator.add(module(normalise(on_device(batch["image"], device))), batch)
    for child, mode in modes:
        child.training = mode
    return evaluator.loss()
