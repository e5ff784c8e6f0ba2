"""Checks of what a method builds: device, module, logits, bands, windows, batches of one, void."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from spectral_tl_bench.authoring.trial import CLASSES, Trial, predict, seeded
from spectral_tl_bench.authoring.verdict import FailedCheckError, NotApplicableError, described, line_of
from spectral_tl_bench.authoring.watching import declared_in, listed
from spectral_tl_bench.methods.base import VOID, Batch, Stage, Task
from spectral_tl_bench.methods.losses import segmentation_loss

BAND_COUNTS = (1, 3, 13, 32)
WINDOWS = (32, 64, 96)
LARGE = 50.0
"""A value that standardised pixels can have where a sensor is saturated."""

SAME = 1e-2
"""Share of the largest logit by which logits of an image may differ, alone and in a batch: sharp attention makes much
of the last digits, which depend on the number of rows."""


DEVICE_FIX = "leave devices to the suite: make tensors with device=images.device, keep constants with register_buffer"


def cpu(trial: Trial) -> str:
    """No GPU is asked for."""
    task = trial.task()
    try:
        with as_if_there_were_one(), seeded(0):
            module = trial.method.build(task)
            use(trial, task, module)
    except AskedForGpuError as error:
        where = line_of(error)
        raise FailedCheckError(f"a GPU is asked for: {error}" + (f" ({where})" if where else ""), DEVICE_FIX) from None
    except Exception as error:  # the other checks say what is wrong
        raise NotApplicableError(f"the method could not be used: {described(error)}") from None
    return ""


def device(trial: Trial) -> str:
    """Everything goes along when the module is moved to another device."""
    task = trial.task()
    module = trial.build(task)
    problem = strays(module.eval(), trial.images(task))
    for stage in gradient_stages(trial, task) if problem is None else ():
        problem = problem or strays(
            WithLoss(module, stage.loss or segmentation_loss).train(), trial.batch(task, stage.labelled)
        )
    if problem is not None:
        raise FailedCheckError(problem, DEVICE_FIX)
    return ""


def use(trial: Trial, task: Task, module: nn.Module) -> None:
    """One step of every stage without an optimiser, and one prediction."""
    for stage in trial.method.stages(task):
        batch = trial.batch(task, stage.labelled)
        if stage.fit is not None:
            with torch.no_grad():
                stage.fit(module.eval(), [batch])
            continue
        loss = (stage.loss or segmentation_loss)(module.train(), batch)
        if loss.requires_grad:
            loss.backward()
    predict(module, trial.images(task))


def gradient_stages(trial: Trial, task: Task) -> list[Stage]:
    """The stages that have steps and an optimiser."""
    return [stage for stage in trial.method.stages(task) if stage.fit is None and stage.steps]


def build(trial: Trial) -> str:
    """A module in float32 and stages that can be trained."""
    task = trial.task()
    module = trial.build(task)
    if not isinstance(module, nn.Module):
        raise FailedCheckError(f"build returned {type(module).__name__}", "return a torch.nn.Module")
    values = [*module.named_parameters(), *module.named_buffers()]
    odd = {name for name, value in values if value.is_floating_point() and value.dtype != torch.float32}
    if odd:
        raise FailedCheckError(f"not float32: {listed(odd)}", "build in float32; --precision does the rest")
    stages = trial.method.stages(task)
    if not stages or not stages[-1].labelled or stages[-1].steps < 1:
        raise FailedCheckError(
            "the last stage is not labelled, or has no steps", "end with a labelled stage: its checkpoint is selected"
        )
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names):
        raise FailedCheckError(f"two stages have one name: {', '.join(names)}", "name every stage differently")
    if gradient_stages(trial, task) and not declared_in(module):
        raise FailedCheckError(
            "no parameter requires a gradient, but a stage is trained by gradients",
            "leave requires_grad=True on what trains, or use Stage(..., fit=function) for a closed form",
        )
    return ""


def kept(trial: Trial) -> str:
    """The method survives the way to another process and into a record."""
    method = trial.method
    fix = "let options be numbers, words and lists of them, and keep the class at the top level of a module"
    try:
        copy = pickle.loads(pickle.dumps(method))  # noqa: S301  (made here)
        stored = json.loads(json.dumps(method.model_dump(mode="json"), allow_nan=False))
        again = type(method)(**stored)
    except Exception as error:  # whatever the method's fields raise
        raise FailedCheckError(f"the method cannot be stored: {described(error)}", fix) from None
    if copy != method or again != method:
        raise FailedCheckError("the method is another one after it was stored and read again", fix)
    return ""


def logits(trial: Trial) -> str:
    """(B, K, H, W) for (B, C, H, W)."""
    task = trial.task()
    images = trial.images(task)
    shape_is(predict(trial.build(task), images), (len(images), CLASSES, task.window, task.window))
    return ""


def shape_is(output: Any, wanted: tuple[int, ...]) -> None:
    """Refuse an output of another shape."""
    if not isinstance(output, Tensor):
        raise FailedCheckError(
            f"the module returned {type(output).__name__}, not a tensor", "return the logits alone from forward"
        )
    if tuple(output.shape) != wanted:
        raise FailedCheckError(
            f"logits have shape {tuple(output.shape)}, expected {wanted} (B, K, H, W)",
            "one channel for each of task.num_classes, at the size of the image (torch.nn.functional.interpolate)",
        )


def numbers(trial: Trial) -> str:
    """Logits are finite float32, for noise, for nothing, and for saturated pixels."""
    task = trial.task()
    module, noise = trial.build(task), trial.images(task)
    spots = noise.clone()
    spots[..., ::7, ::5] = LARGE
    for name, images in (("noise", noise), ("zeros", torch.zeros_like(noise)), ("saturated pixels", spots)):
        logits = predict(module, images)
        if logits.dtype != torch.float32:
            raise FailedCheckError(f"logits are {logits.dtype}", "return logits in the type of the images, float32")
        if not logits.isfinite().all():
            raise FailedCheckError(
                f"logits of {name} are not all finite", "look for log or division of 0, and for exp of large numbers"
            )
    return ""


def bands(trial: Trial) -> str:
    """Any number of bands."""
    sizes = [(count, trial.window) for count in BAND_COUNTS]
    _each(trial, sizes, lambda size: f"{size[0]} bands", "take the number of bands from task.num_bands")
    return ""


def windows(trial: Trial) -> str:
    """Several sizes of the window."""
    patch = trial.backbone.patch
    sizes = [(13, window) for window in WINDOWS if window % patch == 0] or [(13, patch), (13, 2 * patch)]
    _each(trial, sizes, lambda size: f"{size[1]} px", "take the size from task.window, or from the images")
    return ", ".join(f"{window} px" for _, window in sizes)


def _each(trial: Trial, sizes: list[tuple[int, int]], text: Callable[[tuple[int, int]], str], fix: str) -> None:
    failed = []
    for size in sizes:
        task = trial.task(*size)
        try:
            images = trial.images(task)
            shape_is(predict(trial.build(task), images), (len(images), CLASSES, task.window, task.window))
        except FailedCheckError as error:
            failed.append(f"{text(size)}: {error.reason}")
        except Exception as error:  # whatever the method raises
            failed.append(f"{text(size)}: {described(error)}")
    if failed:
        raise FailedCheckError("; ".join(failed), fix)


def batches(trial: Trial) -> str:
    """A batch of one trains, and an image is predicted the same alone and among others."""
    task = trial.task()
    module, images = trial.build(task), trial.images(task, count=3)
    together, alone = predict(module, images), predict(module, images[:1])
    if (together[:1] - alone).abs().max() > SAME * max(1.0, float(alone.abs().max())):
        raise FailedCheckError(
            "an image gets other logits alone than among others",
            "in evaluation mode nothing may depend on the rest of the batch",
        )
    try:
        trial.train(batch=1, steps=1)
    except Exception as error:  # whatever the method raises
        raise FailedCheckError(
            f"training with a batch of one fails: {described(error)}",
            "batch statistics need more than one value per channel: use GroupNorm or LayerNorm on pooled features",
        ) from None
    return ""


def void(trial: Trial) -> str:
    """The loss is finite where some labels are void, and where all are."""
    task = trial.task()
    stages = [stage for stage in gradient_stages(trial, task) if stage.labelled]
    if not stages:
        raise NotApplicableError("no stage is trained by gradients with labels")
    for stage in stages:
        for text, lines in (("half of the labels are", slice(0, task.window // 2)), ("all labels are", slice(None))):
            module, batch = trial.build(task).train(), trial.batch(task, labelled=True)
            batch["mask"][:, lines] = VOID
            try:
                loss = (stage.loss or segmentation_loss)(module, batch)
                gradients = torch.autograd.grad(
                    loss, [p for p in module.parameters() if p.requires_grad], allow_unused=True
                )
            except Exception as error:  # whatever the loss raises
                reason = described(error)
            else:
                finite = loss.isfinite().all() and all(g.isfinite().all() for g in gradients if g is not None)
                reason = "" if finite else f"loss {float(loss):g}, or a gradient of it, is no finite number"
            if reason:
                raise FailedCheckError(
                    f"stage {stage.name!r}, where {text} void ({VOID}): {reason}",
                    f"ignore_index={VOID}, and divide by the number of labelled pixels, 1 at least",
                )
    return ""


GPU = re.compile(r"(cuda|mps|xpu)(:\d+)?")


class AskedForGpuError(Exception):
    """A method asks for a GPU by itself."""


class _Watch(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func is torch.Tensor.cuda or any(_is_gpu(value) for value in (*args[1:], *args[:1], *given.values())):
            raise AskedForGpuError(f"torch.{getattr(func, '__name__', func)} was called for a GPU")
        return func(*args, **given)


def _is_gpu(value: Any) -> bool:
    if isinstance(value, torch.device):
        return value.type in ("cuda", "mps", "xpu")
    return isinstance(value, str) and GPU.fullmatch(value) is not None


@contextmanager
def as_if_there_were_one() -> Iterator[None]:
    """Code that asks for a GPU where one is there takes it for granted here; whoever asks raises.

    Raises:
        AskedForGpuError: Where a tensor is to be made on a GPU or moved to one.
    """
    original = torch.cuda.is_available
    torch.cuda.is_available = lambda: True
    try:
        with _Watch():
            yield
    except AskedForGpuError:
        raise
    except Exception as error:  # of PyTorch, where a call was not seen here
        if re.search(r"\bCUDA\b|NVIDIA", str(error)):
            raise AskedForGpuError(str(error).splitlines()[0]).with_traceback(error.__traceback__) from error
        raise
    finally:
        torch.cuda.is_available = original


class WithLoss(nn.Module):
    """A module and a loss as one module.

    Args:
        loss: Of a stage.
    """

    def __init__(self, module: nn.Module, loss: Callable[[nn.Module, Batch], Tensor]) -> None:
        super().__init__()
        self.module, self.loss = module, loss

    def forward(self, batch: Batch) -> Tensor:
        """The loss of a batch."""
        return self.loss(self.module, batch)


def strays(module: nn.Module, given: Tensor | Batch) -> str | None:
    """What does not go along when a module is put on another device.

    The module is called with tensors that have shapes and a device, but no values.

    Args:
        module: On the CPU; it stays there.
        given: Its input, on the CPU.

    Returns:
        What goes wrong, or None where nothing does, or where it cannot be found out because the code depends on
        values.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):  # a real tensor counts as one on the CPU
        moved = {
            name: torch.empty(value.shape, dtype=value.dtype, device="meta", requires_grad=value.requires_grad)
            for name, value in (*module.named_parameters(), *module.named_buffers())
        }
        inputs: Any = {name: _shape(value) for name, value in given.items()} if isinstance(given, dict) else None
        inputs = _shape(given) if isinstance(given, Tensor) else inputs
        try:
            output = torch.func.functional_call(module, moved, (inputs,))
        except Exception as error:  # whatever is raised; only devices are of interest
            text = str(error)
            if "device" in text and "cpu" in text:
                where = line_of(error)
                return "a tensor stays on the CPU when module and input are elsewhere" + (
                    f" ({where})" if where else ""
                )
            return None
    if isinstance(output, Tensor) and output.device.type != "meta":
        return f"the output is on {output.device} though module and input were elsewhere"
    return None


def _shape(value: Tensor) -> Tensor:
    return torch.empty(value.shape, dtype=value.dtype, device="meta")
