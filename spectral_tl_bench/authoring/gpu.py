"""Whether a module stays on the device that it is given; found out without any GPU."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from spectral_tl_bench.authoring.verdict import line_of
from spectral_tl_bench.methods.base import Batch

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
