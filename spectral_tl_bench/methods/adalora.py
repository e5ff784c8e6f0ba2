"""AdaLoRA: low-rank updates whose ranks are shared out among the layers while they train, by HuggingFace peft."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from spectral_tl_bench.methods.base import Batch, Memory, Stage, Task
from spectral_tl_bench.methods.tuners import LinearTunerMethod

if TYPE_CHECKING:
    from peft import PeftConfig


@dataclass
class RankSchedule:
    """Cuts ranks after each step; a plain object, so that the module it is kept in does not take it for a layer.

    Attributes:
        tuner: peft's ``AdaLoraModel``; it holds the running importance of every weight.
    """

    tuner: Any = field(repr=False)

    def __call__(self, step: int) -> None:
        """Note the importance of the weights by their gradients and cut what is over budget.

        Args:
            step: Optimiser steps that are done.
        """
        self.tuner.update_and_allocate(step)


def orthogonality(module: nn.Module) -> Tensor:
    """Mean over all factors of the Frobenius norm of P^T P - I and Q Q^T - I, as in the paper's code.

    Equation 4 of the paper has the squares of these norms.
    """
    norms = []
    for name, factor in module.named_parameters():
        if ".lora_A." in name or ".lora_B." in name:
            product = factor @ factor.T if ".lora_A." in name else factor.T @ factor
            norms.append(torch.linalg.norm(product - torch.eye(len(product), device=product.device)))
    return torch.stack(norms).mean()


def allocate(module: nn.Module, step: int, steps: int) -> None:  # noqa: ARG001
    """The hook after each step, see ``Stage.after_step``."""
    cast(Any, module).rank_schedule(step)


def importances(module: nn.Module) -> dict[str, Any]:
    """What peft remembers from step to step: running means of the importance of every weight, and the ranks."""
    tuner = cast(Any, module).rank_schedule.tuner
    allocator = tuner.rankallocator
    kept = {name: dict(getattr(allocator, name)) for name in ("ipt", "exp_avg_ipt", "exp_avg_unc")}
    return {**kept, "ranks": tuner.peft_config["default"].rank_pattern}


def set_importances(module: nn.Module, state: dict[str, Any]) -> None:
    """The other way."""
    tuner = cast(Any, module).rank_schedule.tuner
    device = next(module.parameters()).device
    for name in ("ipt", "exp_avg_ipt", "exp_avg_unc"):
        setattr(tuner.rankallocator, name, {weight: value.to(device) for weight, value in state[name].items()})
    tuner.peft_config["default"].rank_pattern = state["ranks"]


class AdaLora(LinearTunerMethod):
    """AdaLoRA: updates P L Q with diagonal L, whose least important entries are set to 0 until a budget is met.

    Rank 16 on average at the end is that of ``lora``, the start with one and a half times as much that of the paper.
    The lengths of warm-up and final phase are shares of the steps near those that the paper gives for GLUE, interval
    and weight of the orthogonality are values that it uses there. Ranks stay in the module as zeros: parameters are
    counted at the initial rank.
    """

    numerics_version = 1

    reference: ClassVar[str] = "Zhang et al., AdaLoRA, ICLR 2023, eqs. 3, 4 and 12"
    starts: ClassVar[str] = "P and Q N(0, 0.02^2), L 0: untrained it changes nothing"
    differs: ClassVar[tuple[str, ...]] = (
        *LinearTunerMethod.differs,
        "The orthogonality is the mean of the norms themselves, as in the paper's code; equation 4 squares them.",
        "Warm-up and final phase are shares of the steps; the paper gives steps for each of its tasks.",
    )

    rank: int = Field(16, ge=1, description="average rank at the end")
    initial_rank: int = Field(24, ge=2, description="rank of every layer at the start")
    alpha: float = Field(24.0, gt=0, description="the update is scaled by alpha / initial rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the inputs dropped in training")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps before ranks are cut")
    final: float = Field(0.5, ge=0, lt=1, description="share of the steps after the last cut")
    interval: int = Field(10, ge=1, description="steps between two cuts")
    orthogonal: float = Field(0.1, ge=0, description="weight in the loss of the factors' distance to orthogonality")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.rank >= self.initial_rank:
            raise ValueError(f"initial_rank is {self.initial_rank}, expected more than rank ({self.rank})")
        if self.warmup + self.final >= 1:
            raise ValueError(f"warmup {self.warmup} and final {self.final} leave no steps in which ranks are cut")
        return self

    def peft_config(self, backbone: nn.Module) -> PeftConfig:
        """Three factors beside the chosen layers; ``build`` sets when their ranks are cut."""
        from peft import AdaLoraConfig

        return AdaLoraConfig(
            target_r=self.rank, init_r=self.initial_rank, lora_alpha=self.alpha, lora_dropout=self.dropout,
            total_step=2, deltaT=self.interval, orth_reg_weight=self.orthogonal, target_modules=self.targets(backbone),
        )  # fmt: skip

    def timetable(self, steps: int) -> tuple[int, int, int]:
        """Steps of the warm-up, of the final phase, and of all phases together."""
        # peft cuts for the last time at step total - final; importances must have been noted at least once by then.
        total = max(2, steps)
        final = min(int(self.final * total), total - 2)
        return min(int(self.warmup * total), total - final - 1), final, total

    def build(self, task: Task) -> nn.Module:
        """Factors, norms, patch embedding and decoder train; the frozen weights do not."""
        module, tuner = self.adapted(task)
        config = tuner.peft_config["default"]
        config.tinit, config.tfinal, config.total_step = self.timetable(task.budget.steps)
        cast(Any, module).rank_schedule = RankSchedule(tuner)
        return module

    def stages(self, task: Task) -> list[Stage]:
        """One stage, after each step of which ranks may be cut."""
        _, final, total = self.timetable(task.budget.steps)
        hooks: dict[str, Any] = {
            "after_step": allocate, "memory": Memory(importances, set_importances), "plateau_after": total - final,
        }  # fmt: skip
        return [Stage("segment", task.budget.steps, loss=self._loss, outputs=self._outputs, **hooks)]

    def _loss(self, module: nn.Module, batch: Batch) -> Tensor:
        from spectral_tl_bench.methods.losses import segmentation_loss

        return segmentation_loss(module, batch) + self.orthogonal * orthogonality(module)

    def _outputs(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        return module(batch["image"]), self.orthogonal * orthogonality(module)
