"""The objectives of a run at work in one labelled stage."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from spectral_tl_bench.data.loaders import SourceData
from spectral_tl_bench.files import seed_from
from spectral_tl_bench.methods.base import VOID, Batch, Loss, Outputs, Stage
from spectral_tl_bench.methods.losses import segmentation_loss
from spectral_tl_bench.objectives.base import Average, Averager, DomainLosses, Objective, Setting
from spectral_tl_bench.training.plain import CannotTellError, plain


class ActiveObjectives:
    """The objectives of a run, ready for one labelled stage.

    Args:
        objectives: By name; they are copied.
        order: Name of the stage's data order.
        folder: For what an averager keeps, in the last stage; None in others, where nothing is averaged.
    """

    def __init__(
        self,
        objectives: Mapping[str, Objective],
        stage: Stage,
        source: SourceData,
        num_classes: int,
        order: str,
        folder: Path | None = None,
    ) -> None:
        self.objectives = {name: objective.model_copy(deep=True) for name, objective in objectives.items()}
        # The suite's own loss is a function of the logits; a method's is only where the stage says how.
        self._outputs: Outputs | None = stage.outputs or (_logits if stage.loss is None else None)
        self._loss: Loss = stage.loss or segmentation_loss
        self._domains = len(source.domains)
        self._seed = seed_from("objectives", source.order_seed, order)
        for name, objective in self.objectives.items():
            objective.begin(
                Setting(
                    domains=source.domains,
                    wavelengths=source.wavelengths,
                    mean=tuple(map(float, source.statistics.mean)),
                    std=tuple(map(float, source.statistics.std)),
                    num_classes=num_classes,
                    steps=stage.steps,
                    seed=seed_from(self._seed, name),
                )
            )
        self._result: Average | None = None
        self._risk = self._with("risk")
        self._penalties = self._with("penalty")
        self._wraps = self._with("wrap")
        self._augments = {name: objective for name, objective in self.objectives.items() if objective.has("augment")}
        self.hooked = ", ".join(name for name, objective in self.objectives.items() if objective.has("wrap"))
        self._averager = self._make_averager(folder)
        self._steps, self._validations = stage.steps, 0
        if self._averager is not None:
            self._validations = int(getattr(self._averager[1], "validations", 0))
        self.balanced = any(objective.wants_balance() for objective in self.objectives.values())

    def _with(self, hook: str) -> list[Objective]:
        return [objective for objective in self.objectives.values() if objective.has(hook)]

    @torch.no_grad()
    def augment(self, images: Tensor, step: int) -> Tensor:
        """Change training windows (B, C, H, W), in the files' unit; the same step always gets the same changes."""
        for name, objective in self._augments.items():
            generator = torch.Generator().manual_seed(seed_from(self._seed, name, step))
            images = objective.augment(images, generator)
        return images

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """The loss of a batch: the method's, or what an objective makes of its domains; and the penalties."""
        total = self._method_loss(module, batch)
        for objective in self._penalties:
            total = total + objective.penalty(module, batch)
        return total

    def _method_loss(self, module: nn.Module, batch: Batch) -> Tensor:
        if not self._risk:
            return self._wrapped(self._loss, module, batch)
        if self._outputs is None:
            return self._risk[0].risk(self._losses_by_part(module, batch))
        logits, extra = self._wrapped(self._outputs, module, batch)
        labelled = (batch["mask"] != VOID).any()
        return self._risk[0].risk(losses_by_domain(logits, batch, self._domains)) + extra * labelled

    def _wrapped(self, function: Any, module: nn.Module, batch: Batch) -> Any:
        with ExitStack() as stack:
            for objective in self._wraps:
                stack.enter_context(objective.wrap(module, batch))
            return function(module, batch)

    def _losses_by_part(self, module: nn.Module, batch: Batch) -> DomainLosses:
        """A forward pass for each domain: the only way where a method's loss cannot be looked into."""
        parts = [batch["domain"] == domain for domain in range(self._domains)]
        labelled = (batch["mask"] != VOID).flatten(1).any(dim=1)
        present = torch.stack([(part & labelled).any() for part in parts])
        values = [
            self._wrapped(self._loss, module, {name: value[part] for name, value in batch.items()})
            if is_present
            else None
            for part, is_present in zip(parts, present.tolist(), strict=True)
        ]
        if not any(value is not None for value in values):  # a loss of nothing, with gradients
            nothing = self._wrapped(self._loss, module, batch)
            return DomainLosses(nothing * torch.zeros(self._domains, device=nothing.device), present)
        zero = batch["image"].new_zeros(())
        return DomainLosses(torch.stack([zero if value is None else value for value in values]), present)

    def _make_averager(self, folder: Path | None) -> tuple[str, Averager] | None:
        for name, objective in self.objectives.items() if folder is not None else ():
            if objective.has("average") and folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                made = objective.average(folder)
                if made is not None:
                    return name, made
        return None

    def looks_across(self) -> str:
        """The objectives that need the windows of a batch together, by name; empty if none does."""
        return ", ".join(name for name, objective in self.objectives.items() if objective.looks_across())

    @property
    def wants_loss(self) -> bool:
        """Whether the protocol's validations must give a loss: of averagers that have no rhythm of their own."""
        return self._averager is not None and not self._validations

    def validates_after(self, step: int) -> bool:
        """Whether an averager with a rhythm of its own wants the loss on source validation after a step."""
        if self._averager is None or not self._validations or getattr(self._averager[1], "finished", False):
            return False
        times = min(self._validations, self._steps)
        return step * times // self._steps > (step - 1) * times // self._steps

    def after_step(self, step: int, module: nn.Module) -> None:
        """Give the weights of a step to the averager."""
        if self._averager is not None:
            weights: dict[str, Tensor] = {
                name: value for name, value in module.named_parameters() if value.requires_grad
            }
            self._averager[1].after_step(step, weights)

    def after_validation(self, step: int, loss: float) -> None:
        """Give the loss of a validation to the averager, if there is one."""
        if self._averager is not None:
            self._averager[1].after_validation(step, loss)

    def average(self) -> Average | None:
        """The averaged weights, once training is over."""
        if self._averager is not None and self._result is None:
            self._result = self._averager[1].result()
        return self._result

    def state(self) -> dict[str, Any]:
        """What objectives and averager remember, between two steps.

        Raises:
            CannotTellError: If one of them cannot tell.
        """
        state = {name: plain(objective.state(), name) for name, objective in self.objectives.items()}
        if self._averager is None:
            return {"objectives": state}
        name, averager = self._averager[0], cast(Any, self._averager[1])
        if not (hasattr(averager, "state") and hasattr(averager, "restore")):
            raise CannotTellError(f"the averager of {name} has no `state` and `restore`")
        return {"objectives": state, "averager": plain(averager.state(), name)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The other way; files of the averager are in its folder again."""
        for name, objective in self.objectives.items():
            objective.restore(state["objectives"][name])
        if self._averager is not None:
            cast(Any, self._averager[1]).restore(state["averager"])

    def facts(self) -> dict[str, Any]:
        """What the record keeps, by objective, once training is over."""
        facts = {name: objective.facts() for name, objective in self.objectives.items()}
        average = self.average()
        if self._averager is not None and average is not None:
            facts[self._averager[0]] |= average.facts
        return {name: values for name, values in facts.items() if values}


def _logits(module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    logits = module(batch["image"])
    return logits, logits.new_zeros(())


def losses_by_domain(logits: Tensor, batch: Batch, domains: int) -> DomainLosses:
    """Mean cross-entropy over the labelled pixels of each domain.

    Args:
        logits: (B, K, H, W).
        batch: With ``mask`` and ``domain``.
        domains: Number of source domains D.
    """
    mask, owner = batch["mask"], batch["domain"]
    pixels = functional.cross_entropy(logits.float(), mask, ignore_index=VOID, reduction="none").flatten(1).sum(dim=1)
    labelled = (mask != VOID).flatten(1).sum(dim=1)
    sums = pixels.new_zeros(domains).index_add(0, owner, pixels)
    counts = labelled.new_zeros(domains).index_add(0, owner, labelled)
    return DomainLosses(sums / counts.clamp(min=1), counts > 0)
