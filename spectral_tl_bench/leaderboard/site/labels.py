"""Where labels go in a drawing: beside their point, inside the frame, and not over one another."""

from __future__ import annotations

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

LETTER = 6.6
"""Width of an average letter, in the units of the drawings."""
_ABOVE, _BELOW = 11, 3
_TRIES = ((9, 4), (9, -7), (9, 15), (-9, 4), (-9, -7), (-9, 15), (9, -18), (9, 26), (-9, -18), (-9, 26))


class Labels:
    """Finds places for labels, one after the other.

    Args:
        frame: No label leaves it.
        marks: Centres of the marks, which no label covers.
    """

    def __init__(self, frame: Box, marks: list[tuple[float, float]]) -> None:
        self.frame = frame
        self._taken: list[Box] = [(x - 6, y - 6, x + 6, y + 6) for x, y in marks]

    def place(self, x: float, y: float, text: str, *, must: bool = True) -> tuple[float, float, str] | None:
        """The first free place around a point.

        Returns:
            Where the text is anchored, and which end of it (``start`` or ``end``); where nothing is free None, or,
            if the label ``must`` be there, the first place.
        """
        width, frame = len(text) * LETTER, self.frame
        for dx, dy in _TRIES:
            start = x + dx if dx > 0 else x + dx - width
            box = (start, y + dy - _ABOVE, start + width, y + dy + _BELOW)
            inside = box[0] >= frame[0] and box[1] >= frame[1] and box[2] <= frame[2] and box[3] <= frame[3]
            if inside and not any(
                box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
                for other in self._taken
            ):
                self._taken.append(box)
                return round(x + dx, 1), round(y + dy, 1), "start" if dx > 0 else "end"
        return (round(x + 9, 1), round(y + 4, 1), "start") if must else None
