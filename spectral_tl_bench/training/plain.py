"""What a checkpoint can hold, so that reading one can run no code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor


class CannotTellError(Exception):
    """Something that changes while it trains does not say what it remembers."""


def plain(value: Any, owner: str) -> Any:
    """A value that a checkpoint can hold: tensors, numbers and texts in lists, tuples and mappings.

    Args:
        owner: Whose it is.

    Raises:
        CannotTellError: If there is anything else in it.
    """
    if isinstance(value, Mapping):
        return {plain(key, owner): plain(item, owner) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [plain(item, owner) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Tensor):
        return value.detach()
    if value is None or isinstance(value, bool):
        return value
    kind = next((kind for kind in (int, float, str, bytes) if isinstance(value, kind)), None)
    if kind is not None:
        return kind(value)  # not an enumeration, or a text of a class of its own
    raise CannotTellError(f"{owner} remembers a {type(value).__name__}, which no checkpoint can hold")
