"""The land covers of the sample: what each is made of, where on the ground it likes to lie, how it varies.

A dataset's class is one cover or several (the class Water of DFC2020 is river, lake and reservoir); a cover is a
canopy over a background of materials. Covers that are alike in nature are alike here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

Calendar = Literal["tree", "grass", "crop", "rice"]
Pattern = Literal["grain", "clumps", "crowns", "rows", "grid", "blocks"]
PATTERNS: tuple[Pattern, ...] = get_args(Pattern)


@dataclass(frozen=True)
class Cover:
    """One land cover.

    Args:
        ground: Amounts of the materials below and between the leaves; normalised to 1 where it is used.
        leaf: Material of the canopy.
        lai: Leaf area index at its peak; 0 for none.
        calendar: What drives the leaf area through the year.
        evergreen: Share of the leaf area that stays all year.
        likes: Weights of the ground fields (`terrain.FIELDS`) in the score that decides where the cover lies.
        parcel: True where the cover comes in parcels with straight edges, False where its edges are soft.
        patch: Spread (log) of leaf area and materials from patch to patch.
        texture: Spread (log) of leaf area and, less, of brightness within its pattern.
        pattern: How what it consists of is laid out.
        rough: Spread (log) of brightness from pixel to pixel, by slopes too small for a terrain model.
        mixed: Spread (log) of the amounts of materials from pixel to pixel.
        shade: Share of shadow between crowns or houses.
        streets: True where a grid of roads runs through it.
    """

    ground: Mapping[str, float]
    leaf: str = "grass"
    lai: float = 0.0
    calendar: Calendar = "grass"
    evergreen: float = 0.0
    likes: Mapping[str, float] = field(default_factory=dict)
    parcel: bool = False
    patch: float = 0.12
    texture: float = 0.4
    pattern: Pattern = "grain"
    rough: float = 1.1
    mixed: float = 1.6
    shade: float = 0.0
    streets: bool = False


SOIL_AND_LITTER = {"soil": 0.7, "litter": 0.3}

COVERS: dict[str, Cover] = {
    # Fields
    "paddy": Cover(
        {"clear": 0.35, "wetsoil": 0.65}, "crop", 4.5, "rice", likes={"wet": 0.8, "high": -0.6}, parcel=True,
        texture=0.65, pattern="rows",
    ),
    "dry_farm": Cover(
        {"soil": 0.9, "litter": 0.1}, "crop", 3.6, "crop", likes={"high": -0.3}, parcel=True, patch=0.2, texture=1.05,
        pattern="rows",
    ),
    # Woods
    "broad_wood": Cover(
        {"litter": 0.5, "soil": 0.5}, "broadleaf", 5.0, "tree", 0.08, {"high": 0.9}, texture=0.7, pattern="crowns",
        shade=0.22,
    ),
    "conifer_wood": Cover(
        {"litter": 0.5, "soil": 0.5}, "conifer", 4.5, "tree", 1.0, {"high": 1.1}, texture=0.7, pattern="crowns",
        shade=0.22,
    ),
    "mixed_wood": Cover(
        {"conifer": 0.75, "litter": 0.25}, "broadleaf", 2.6, "tree", 0.15, {"high": 1.0}, texture=0.7,
        pattern="crowns", shade=0.22,
    ),
    "shrubs": Cover(
        {"soil": 0.5, "litter": 0.35, "rock": 0.15}, "broadleaf", 3.0, "tree", 0.4, {"high": 0.5}, texture=0.9,
        shade=0.12,
    ),
    "sparse_wood": Cover(
        {"grass": 0.45, "litter": 0.25, "soil": 0.3}, "broadleaf", 1.5, "tree", 0.15, {"high": 0.6}, texture=1.15,
        pattern="clumps", shade=0.10,
    ),
    "orchard": Cover(
        {"soil": 0.75, "grass": 0.25}, "broadleaf", 2.4, "tree", 0.45, parcel=True, texture=1.15, pattern="grid",
        shade=0.12,
    ),
    # Grass
    "dense_grass": Cover(
        {"litter": 0.5, "soil": 0.5}, "grass", 3.6, "grass", 0.1, {"high": 0.2}, texture=0.3, pattern="clumps"
    ),
    "medium_grass": Cover(
        {"litter": 0.4, "soil": 0.6}, "grass", 1.5, "grass", 0.1, {"high": 0.2}, texture=0.45, pattern="clumps"
    ),
    "sparse_grass": Cover(
        {"litter": 0.2, "soil": 0.6, "sand": 0.2}, "grass", 0.55, "grass", 0.1, {"high": 0.2}, texture=0.6
    ),
    "savanna": Cover(
        {"litter": 0.5, "soil": 0.3, "shrub": 0.2}, "grass", 1.2, "grass", 0.1, texture=0.65, pattern="clumps"
    ),
    "marsh": Cover(
        {"clear": 0.5, "wetsoil": 0.3, "litter": 0.2}, "reed", 1.7, "grass", 0.15, {"wet": 1.3, "high": -0.6},
        texture=1.05, pattern="clumps", mixed=1.8,
    ),
    # Water
    "river": Cover(
        {"turbid": 0.75, "clear": 0.25}, likes={"river": 4.0}, texture=0.05, rough=1.0, mixed=1.2
    ),
    "lake": Cover(
        {"algae": 0.65, "clear": 0.35}, likes={"wet": 1.2, "high": -1.6}, texture=0.05, rough=1.0, mixed=1.2
    ),
    "reservoir": Cover(
        {"clear": 0.7, "algae": 0.3}, likes={"wet": 1.4, "high": -0.4}, texture=0.05, rough=1.0, mixed=1.2
    ),
    "ocean": Cover(
        {"ocean": 0.7, "clear": 0.15, "turbid": 0.15}, likes={"coast": 4.0}, texture=0.05, rough=1.0, mixed=1.2
    ),
    # Shores
    "tidal_flat": Cover(
        {"wetsoil": 0.6, "turbid": 0.4}, likes={"coast": 2.0, "high": -0.3}, patch=0.1, texture=0.25, pattern="clumps"
    ),
    "shoal": Cover({"sand": 0.5, "wetsoil": 0.4, "litter": 0.1}, "grass", 0.35, "grass", 0.1, {"river": 1.8}),
    # Built-up land
    "urban": Cover(
        {"asphalt": 0.42, "concrete": 0.28, "metal": 0.10, "tile": 0.20}, "broadleaf", 0.45, "tree", 0.2,
        {"town": 2.2}, patch=0.15, texture=0.8, pattern="blocks", mixed=2.2, shade=0.16, streets=True,
    ),
    "village": Cover(
        {"tile": 0.30, "concrete": 0.20, "asphalt": 0.10, "soil": 0.40}, "broadleaf", 0.9, "tree", 0.2,
        {"village": 2.4}, texture=0.8, pattern="blocks", mixed=2.2, shade=0.10, streets=True,
    ),
    "works": Cover(
        {"concrete": 0.5, "metal": 0.20, "soil": 0.30}, likes={"town": 0.8, "village": 0.4}, parcel=True, patch=0.25,
        texture=0.3, pattern="clumps", mixed=1.8, shade=0.04,
    ),
    # Open ground
    "dune": Cover(
        {"sand": 1.0}, "shrub", 0.06, "grass", 0.3, {"high": 0.3}, texture=0.3, pattern="clumps", mixed=0.6, rough=0.5
    ),
    "gravel": Cover({"gobi": 0.8, "sand": 0.2}, "shrub", 0.04, "grass", 0.3, texture=0.3),
    "salt_flat": Cover({"salt": 0.55, "wetsoil": 0.3, "soil": 0.15}, "grass", 0.15, "grass", 0.1, {"wet": 0.6}),
    "bare_soil": Cover(
        {"soil": 0.85, "litter": 0.15}, "grass", 0.15, "grass", 0.1, parcel=True, patch=0.2, texture=0.2
    ),
    "bare_rock": Cover(
        {"rock": 0.8, "soil": 0.2}, "grass", 0.15, "grass", 0.1, {"high": 1.3}, texture=0.8, pattern="clumps",
        shade=0.06,
    ),
    "snow": Cover({"snow": 0.9, "rock": 0.1}, likes={"high": 2.0}),
}  # fmt: skip
