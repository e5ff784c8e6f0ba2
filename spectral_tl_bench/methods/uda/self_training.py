"""Self-training after DAFormer: a slow teacher labels target images, on which the student learns."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from spectral_tl_bench.methods.base import VOID, Batch, Memory, Recipe, Stage, Task
from spectral_tl_bench.methods.budget import FINE_TUNING
from spectral_tl_bench.methods.options import WithDecoder
from spectral_tl_bench.models.segmenter import ViTSegmenter, build_segmenter


class Student(ViTSegmenter):
    """A segmenter that knows its teacher, which is no module of it."""

    teacher: Teacher


def pixels_by_class(mask: Tensor, num_classes: int) -> Tensor:
    """How many pixels of each class each window has: (B, K) of a mask (B, H, W)."""
    return torch.stack([(mask == label).flatten(1).sum(dim=1) for label in range(num_classes)], dim=1)


def half_of_the_classes(mask: Tensor, present: Tensor) -> Tensor:
    """The pixels (B, H, W) of half of the classes that a window has, drawn for each window by itself (ClassMix).

    Args:
        mask: (B, H, W) with void.
        present: (B, K) bool, which classes each window has.
    """
    drawn = torch.rand(present.shape).to(present.device).masked_fill(~present, -1.0)
    place = drawn.argsort(dim=1, descending=True).argsort(dim=1)
    chosen = place < (present.sum(dim=1, keepdim=True) + 1) // 2
    chosen = functional.pad(chosen & present, (0, 1))  # void is one more class, never chosen
    labels = mask.where(mask != VOID, present.shape[1])
    return chosen.gather(1, labels.flatten(1)).reshape(mask.shape)


class Teacher:
    """A slow copy of a segmenter, its first encoder, and counts of classes.

    It is no part of the segmenter: nothing of it is trained by gradients, counted, or kept with selected weights.

    Args:
        student: As it was built.
        keep_encoder: Whether to keep the encoder as it is now.
        num_classes: Number of classes K.
    """

    def __init__(self, student: ViTSegmenter, keep_encoder: bool, num_classes: int) -> None:
        self.network = copy.deepcopy(student).requires_grad_(False).eval()
        self.encoder: ViTSegmenter | None = None
        if keep_encoder:
            encoder = copy.deepcopy(self.network.backbone)
            before = student.composites, copy.deepcopy(student.reading)
            self.encoder = ViTSegmenter(encoder, nn.Identity(), student.levels, *before).eval()
        for layer in self.network.modules():  # as the authors' code has it: no dropout, but statistics of the batch
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.train()
        self.pixels = torch.zeros(num_classes, dtype=torch.float64)
        self.windows = torch.zeros(num_classes, dtype=torch.float64)
        self.seen = 0

    @torch.no_grad()
    def pseudo_labels(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The likeliest classes (B, H, W) of images (B, C, H, W), and how likely they are."""
        confidence, labels = self.network.to(images.device)(images).float().softmax(dim=1).max(dim=1)
        return labels, confidence

    @torch.no_grad()
    def first_features(self, images: Tensor) -> Tensor | None:
        """The last map (B, D, h, w) that the encoder gave before training; None where it was not kept."""
        return None if self.encoder is None else self.encoder.to(images.device).features(images)[-1]

    @torch.no_grad()
    def follow(self, student: nn.Module, step: int, decay: float) -> None:
        """Go a little towards the student; more in the first steps, as in the authors' code.

        Args:
            student: As it is after the step.
            step: Steps that are done.
            decay: Share of the teacher that stays, at most.
        """
        stays = min(1 - 1 / (step + 1), decay)
        parameters = list(student.parameters())
        self.network.to(parameters[0].device)
        for own, other in zip(self.network.parameters(), parameters, strict=True):
            own.mul_(stays).add_(other, alpha=1 - stays)

    def weights(self, present: Tensor, pixels: Tensor, temperature: float) -> Tensor:
        """How much each window counts so that windows with rare classes count as if they were drawn more often.

        Rare-class sampling draws a class c with probability P(c) = softmax((1 - f_c) / T), f_c its share of all
        labelled pixels, then a window that has it. The weight of a window is the ratio of its probability to that in a
        uniform draw: the sum over its classes of P(c), each divided by the share of windows that have it. Shares are
        those of the windows so far.

        Args:
            present: (B, K) bool, which classes each window has.
            pixels: (B, K), how many pixels of each.
            temperature: T.

        Returns:
            (B,) with a largest value of 1; ones where no window has a label.
        """
        self.pixels += pixels.sum(dim=0).to(self.pixels)
        self.windows += present.sum(dim=0).to(self.windows)
        self.seen += len(present)
        share = self.pixels / self.pixels.sum().clamp(min=1)
        chance = ((1 - share) / temperature).masked_fill(self.pixels == 0, -torch.inf)
        chance = chance.softmax(dim=0).nan_to_num()  # nothing seen so far
        ratio = chance * self.seen / self.windows.clamp(min=1)
        found = (present.to(ratio) * ratio).sum(dim=1)
        found = torch.where(found.max() > 0, found / found.max(), 1.0)
        return found.to(present.device, torch.float32)

    def state(self) -> dict[str, Any]:
        """All that changes."""
        counts = {"pixels": self.pixels, "windows": self.windows, "seen": self.seen}
        return {"network": dict(self.network.state_dict()), **counts}

    def restore(self, state: dict[str, Any]) -> None:
        """The other way."""
        self.network.load_state_dict(state["network"])
        self.pixels, self.windows, self.seen = state["pixels"], state["windows"], int(state["seen"])


class SelfTraining(WithDecoder):
    """Full fine-tuning on the source, and on target images with the labels of a teacher: DAFormer without its network.

    The teacher is the moving average of the student's weights. On target windows, into which half of the classes of a
    source window are pasted, the student learns the teacher's labels, weighted by the share of target pixels of which
    the teacher is sure. Windows with rare classes count more. Where the backbone is pretrained its last features on
    source windows are held close to those it began with. The student is what is selected and tested.
    """

    numerics_version = 1

    family: ClassVar[str] = "uda"
    recipe: ClassVar[Recipe] = FINE_TUNING
    reference: ClassVar[str] = "Hoyer et al., DAFormer, CVPR 2022; ClassMix: Tranheden et al., DACS, WACV 2021"
    source_code: ClassVar[str] = "lhoyer/DAFormer, from memory: not checked against the code"
    differs: ClassVar[tuple[str, ...]] = (
        "Backbone and decoder are those of the run, in place of MiT-B5 and DAFormer's decoder.",
        "Windows come in the order of the benchmark, the same for all methods; they are weighted, within each batch, "
        "as if rare-class sampling had drawn them. Class shares are those of the windows so far.",
        "Mixed images get no colour jitter and no blur, which are made for RGB.",
        "The feature distance looks at all places of source windows, since no class is a thing; bands that the "
        "pretraining did not know begin at random in it, too.",
        "No part of a target image is left out of the pseudo-labels, as the ego-car and the sky of street scenes are.",
        "One rate without warm-up for encoder and decoder, as every method of a benchmark has it.",
    )
    target_images: ClassVar[bool] = True

    decay: float = Field(0.999, ge=0, lt=1, description="share of the teacher that stays in a step")
    threshold: float = Field(0.968, ge=0, le=1, description="probability from which the teacher is sure of a pixel")
    classmix: bool = Field(True, description="paste half of the classes of a source window into the target window")
    rare_classes: bool = Field(True, description="weigh source windows as rare-class sampling would draw them")
    temperature: float = Field(0.01, gt=0, description="T of rare-class sampling; the larger, the more alike")
    feature_weight: float = Field(
        0.005, ge=0, description="multiple of the distance to the pretrained features, where there are such"
    )

    def build(self, task: Task) -> nn.Module:
        """Backbone and decoder train; the teacher stands beside."""
        made = build_segmenter(task, self.decoder)
        student = Student(made.backbone, made.decoder, made.levels, made.composites, made.reading)
        keeps_features = self.feature_weight > 0 and task.backbone.weights is not None
        student.teacher = Teacher(made, keeps_features, task.num_classes)
        return student

    def stages(self, task: Task) -> list[Stage]:
        """One, after each of whose steps the teacher follows."""

        def follow(module: nn.Module, step: int, _steps: int) -> None:
            teacher_of(module).follow(module, step, self.decay)

        def loss(module: nn.Module, batch: Batch) -> Tensor:
            counts = pixels_by_class(batch["mask"], task.num_classes)
            added = self._target_loss(module, batch, counts > 0)
            return self._source_loss(module, batch, counts) + added  # last, since objectives look at the last features

        memory = Memory(
            lambda module: teacher_of(module).state(), lambda module, state: teacher_of(module).restore(state)
        )
        return [Stage("segment", task.budget.steps, loss=loss, after_step=follow, memory=memory)]

    def _target_loss(self, module: nn.Module, batch: Batch, present: Tensor) -> Tensor:
        """Cross-entropy of the teacher's labels on target windows with pasted classes, the mean over all pixels."""
        images, mask = batch["target_image"], batch["mask"]
        labels, confidence = teacher_of(module).pseudo_labels(images)
        weights = (confidence >= self.threshold).float().mean().expand(labels.shape)
        if self.classmix:
            pasted = half_of_the_classes(mask, present)
            images = torch.where(pasted[:, None], batch["image"], images)
            labels, weights = torch.where(pasted, mask, labels), weights.masked_fill(pasted, 1.0)
        return (functional.cross_entropy(module(images), labels, reduction="none") * weights).mean()

    def _source_loss(self, module: nn.Module, batch: Batch, counts: Tensor) -> Tensor:
        """Cross-entropy over labelled pixels of source windows, and the distance to the features at the start."""
        student, mask = cast(Student, module), batch["mask"]
        features = student.features(batch["image"])
        logits = student.decoder(features, tuple(mask.shape[-2:]))
        sums = functional.cross_entropy(logits, mask, ignore_index=VOID, reduction="none").flatten(1).sum(dim=1)
        labelled = counts.sum(dim=1).float()
        if self.rare_classes:
            weights = student.teacher.weights(counts > 0, counts, self.temperature)
            sums, labelled = sums * weights, labelled * weights
        loss = sums.sum() / labelled.sum().clamp(min=torch.finfo(torch.float32).tiny)
        first = student.teacher.first_features(batch["image"])
        if first is None:
            return loss
        return loss + self.feature_weight * (features[len(student.levels) - 1] - first).float().norm(dim=1).mean()


def teacher_of(module: nn.Module) -> Teacher:
    """The teacher of a student."""
    return cast(Student, module).teacher
