"""Memory that runs out: known when it happens."""

from __future__ import annotations

import torch

SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "cublas_status_alloc_failed")
"""What PyTorch says, in lower case, where no type of error tells."""


class StepMemoryError(RuntimeError):
    """The memory for a training step has run out."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or what has led to it, is that memory has run out."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, StepMemoryError | torch.cuda.OutOfMemoryError | MemoryError):
            return True
        if isinstance(seen, RuntimeError) and any(sign in str(seen).lower() for sign in SIGNS):
            return True
        seen = seen.__cause__
    return False
