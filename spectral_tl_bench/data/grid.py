"""Where windows start so that they cover a chip and nothing beyond it."""

from __future__ import annotations


def grid(size: int, window: int, stride: int) -> list[int]:
    """Offsets of windows that cover [0, size) without padding; the last one is shifted inwards.

    Args:
        size: Side of the chip in pixels.
        window: Side of the window in pixels.
        stride: Distance between windows in pixels, at most ``window``.

    Returns:
        Rising offsets without repetition; ``offset + window <= size`` for each.

    Raises:
        ValueError: If the window is larger than the chip, or the stride is below 1 or leaves gaps.
    """
    if window < 1:
        raise ValueError(f"the window must have at least 1 pixel, got {window}")
    if window > size:
        raise ValueError(f"a window of {window} pixels does not fit a chip of {size}, and nothing is padded")
    if not 1 <= stride <= window:
        raise ValueError(f"the stride must be between 1 and the window's {window} pixels, got {stride}")
    last = size - window
    return [*range(0, last, stride), last]
