"""``torch.compile`` for training steps, where it works; where it does not, training goes on without it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from spectral_tl_bench.training.progress import Say


def why_not(device: torch.device) -> str | None:
    """The reason why nothing can be compiled here; None where a compiler is found and works."""

    def probe(values: Tensor) -> Tensor:
        return (values * 2 + 1).relu()

    try:
        result = torch.compile(probe, fullgraph=True)(torch.arange(8.0, device=device))
    except Exception as error:  # whatever a missing or broken compiler leads to, of which there are many kinds
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]
    if result.tolist() != [1.0 + 2 * number for number in range(8)]:
        return "the compiled code gives wrong results"
    return None


def compiled(module: nn.Module, device: torch.device, say: Say, title: str) -> tuple[nn.Module | None, str]:
    """A module in compiled form, on the same weights.

    Args:
        module: The module; it is not changed.
        title: What is running, for the line.

    Returns:
        The compiled module, or None, and a word for the record: ``yes``, or why not.
    """
    reason = why_not(device)
    if reason is not None:
        say(f"{title} | --compile: nothing can be compiled here, training goes on without it ({reason})")
        return None, reason
    say(f"{title} | --compile: the first steps compile the model and take longer")
    return torch.compile(module), "yes"  # type: ignore[return-value]


@contextlib.contextmanager
def forgiving() -> Iterator[None]:
    """Inside, what cannot be compiled runs as it is, with a warning from PyTorch."""
    with torch._dynamo.config.patch(suppress_errors=True):
        yield


__all__ = ["compiled", "forgiving", "why_not"]
