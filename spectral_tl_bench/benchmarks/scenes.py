"""Which published files ``stbench data cut`` makes the chips of a benchmark from."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

_PLACE = re.compile(r"\{[a-z]+\}")
_RANGE = re.compile(r"^\d+-\d+$")
Pattern = Annotated[str, Field(min_length=1)]


class Scenes(BaseModel):
    """The scenes of one domain: rasters or MATLAB cubes, larger than a chip, and the label of each.

    Attributes:
        domain: The domain that they are: all that matches here, and nothing else.
        image: End of the path of an image, such as ``top/area{number}.tif``; what stands for ``{...}`` names the scene,
            and is any text without a slash.
        label: Likewise for its label, with the same text.
        bands: Numbers, from 1, of the bands that are taken of a file with more than the sensor's; a list, or ``1-102``.
            In any order but rising, a file with just the sensor's number is refused: nobody knows how it was ordered.
        image_variable: Variable of the cube (rows, columns, bands), where images are MATLAB files.
        label_variable: Variable of the label (rows, columns), likewise.
        count: How many were published, if known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    domain: str
    image: Pattern
    label: Pattern
    bands: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    image_variable: str = "image"
    label_variable: str = "label"
    count: Annotated[int, Field(ge=1)] | None = None

    @field_validator("bands", mode="before")
    @classmethod
    def _range(cls, value: object) -> object:
        if isinstance(value, str) and _RANGE.match(value):
            first, last = map(int, value.split("-"))
            return list(range(first, last + 1))
        return value

    @field_validator("image", "label")
    @classmethod
    def _one_place(cls, value: str) -> str:
        if len(_PLACE.findall(value)) > 1 or set("{}") & set(_PLACE.sub("", value)):
            raise ValueError("holds {name} once at most")
        return value

    @staticmethod
    def matcher(pattern: str) -> re.Pattern[str]:
        """What finds the paths that end like a pattern; its group ``scene`` is what stands for the place."""
        before, place, after = pattern, "", ""
        if found := _PLACE.search(pattern):
            before, after, place = pattern[: found.start()], pattern[found.end() :], "(?P<scene>[^/]+?)"
        return re.compile(rf"(?:^|.*/){re.escape(before)}{place or '(?P<scene>)'}{re.escape(after)}$")

    @staticmethod
    def filled(pattern: str, scene: str) -> str:
        """A pattern with the text of a scene."""
        return _PLACE.sub(lambda _: scene, pattern)


class Cut(BaseModel):
    """How scenes are cut into chips of the benchmark's size; chips at the right and lower end are filled up with void.

    Attributes:
        scenes: The files, by domain.
        block: Side in pixels of the blocks that are sites; by default a whole scene is one.
        colours: Whether labels are pictures in the colours of the classes, in place of numbers.
        void_colours: Further colours of such labels, which mean no class.
        other_colours: Share of a label's pixels that may have any other colour, and become void.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scenes: Annotated[tuple[Scenes, ...], Field(min_length=1)]
    block: Annotated[int, Field(ge=1)] | None = None
    colours: bool = False
    void_colours: tuple[Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")], ...] = ()
    other_colours: Annotated[float, Field(ge=0, lt=1)] = 0.0
