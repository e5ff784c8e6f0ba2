"""From a map of covers to the digital numbers of a sensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spectral_tl_bench.files import seed_from
from spectral_tl_bench.sample.covers import COVERS, Cover
from spectral_tl_bench.sample.phenology import View, crops, grass, rice, trees, vigour
from spectral_tl_bench.sample.sensors import Sensor, observe
from spectral_tl_bench.sample.spectra import MATERIALS, Array, material_table
from spectral_tl_bench.sample.terrain import Ground, lay_covers, make_ground, make_patterns, noise

SAMPLE_VERSION = "2"
"""Raised whenever the generator would write other bytes."""

EXTINCTION = 0.6
"""Light that a unit of leaf area takes away, in exp(-k LAI)."""

MIXTURE_SCALE = 1.0
"""Correlation length of the mixture of materials, in pixels."""

LIGHT, SHADOW = 0.6, 0.08
"""Spread (log) of brightness for one of leaf area in a pattern, and of slow shadows over a canvas."""

TOWN_MATERIALS = ("asphalt", "concrete", "metal", "tile")


def rng_for(*names: object) -> np.random.Generator:
    """A generator that depends on nothing but the sample's version and ``names``."""
    return np.random.Generator(np.random.PCG64(seed_from("stbench-sample", SAMPLE_VERSION, *names)))


@dataclass(frozen=True)
class Scene:
    """A canvas with everything about it that does not change from date to date.

    Args:
        covers: Names of the covers that occur, in the order of ``chosen``.
        chosen: Index of the cover per pixel, (H, W).
        patches: Standard normal draws per parcel and material, (parcels, materials).
        crop: Uniform draw per parcel that picks its crop, (parcels,).
        sown: Standard normal draw per parcel for its sowing date, (parcels,).
        drift: Slow variation of leaf area over the canvas, unit spread, (H, W).
        shadows: Slow variation of light over the canvas, unit spread, (H, W).
        patterns: What stands where inside a cover, unit spread, one (H, W) per name in `covers.PATTERNS`.
        mixture: Variation of each material's amount from pixel to pixel, unit spread, (H, W, materials).
    """

    ground: Ground
    covers: tuple[str, ...]
    chosen: NDArray[np.int64]
    patches: Array
    crop: Array
    sown: Array
    drift: Array
    shadows: Array
    patterns: Mapping[str, Array]
    mixture: Array


def make_scene(rng: np.random.Generator, shape: tuple[int, int], shares: Mapping[str, float]) -> Scene:
    """Draw a canvas.

    Args:
        shape: Height and width in pixels.
        shares: Share of each cover on the canvas.
    """
    ground = make_ground(rng, shape)
    chosen = lay_covers(rng, ground, shares)
    number = int(ground.parcels.max()) + 1
    return Scene(
        ground=ground,
        covers=tuple(shares),
        chosen=chosen,
        patches=rng.standard_normal((number, len(MATERIALS))),
        crop=rng.uniform(size=number),
        sown=rng.standard_normal(number),
        drift=noise(rng, shape, 9.0)[0],
        shadows=noise(rng, shape, 14.0)[0],
        patterns=make_patterns(rng, ground.parcels),
        mixture=noise(rng, shape, MIXTURE_SCALE, count=len(MATERIALS)).transpose(1, 2, 0),
    )


def _backgrounds(covers: Sequence[Cover], view: View) -> Array:
    """Amounts of the materials under each cover's leaves, shape (covers, materials), rows sum to 1."""
    town = dict(zip(TOWN_MATERIALS, view.town, strict=True))
    table = np.zeros((len(covers), len(MATERIALS)))
    for row, cover in zip(table, covers, strict=True):
        for material, amount in cover.ground.items():
            row[MATERIALS.index(material)] = amount * town.get(material, 1.0)
    return table / table.sum(axis=1, keepdims=True)


def _leaf_area(scene: Scene, covers: Sequence[Cover], view: View) -> Array:
    """Leaf area index per pixel, (H, W)."""
    season, parcels = view.season, scene.ground.parcels
    calendars = {
        "tree": np.asarray(trees(season)),
        "grass": np.asarray(grass(season)),
        "crop": crops(season, scene.crop, scene.sown)[parcels],
        "rice": rice(season, scene.sown)[parcels],
    }
    green = np.zeros(parcels.shape)
    for k, cover in enumerate(covers):
        mask = scene.chosen == k
        share = cover.evergreen + (1.0 - cover.evergreen) * calendars[cover.calendar]
        green[mask] = cover.lai * np.broadcast_to(share, parcels.shape)[mask]
    patch, texture, parcel = (
        np.asarray([getattr(cover, name) for cover in covers])[scene.chosen] for name in ("patch", "texture", "parcel")
    )
    between = np.where(parcel, scene.patches[parcels, 0], scene.drift)
    return view.lushness * green * np.exp(patch * between + texture * _pattern(scene, covers))


def _pattern(scene: Scene, covers: Sequence[Cover]) -> Array:
    """Each pixel's value of the pattern of its own cover, (H, W)."""
    return np.select([scene.chosen == k for k in range(len(covers))], [scene.patterns[c.pattern] for c in covers])


def reflectance(scene: Scene, view: View, sensor: Sensor) -> Array:
    """Surface reflectance of a canvas in a sensor's bands, before the air.

    Returns:
        Reflectance, shape (H, W, bands).
    """
    covers = [COVERS[name] for name in scene.covers]
    chosen, parcels = scene.chosen, scene.ground.parcels
    tint = replace(view.tint, vigour=vigour(view.season))
    table = _backgrounds(covers, view)
    extra = {"asphalt", "litter"} | {cover.leaf for cover in covers}
    used = [k for k, name in enumerate(MATERIALS) if name in extra or table[:, k].any()]
    column_of = {MATERIALS[k]: column for column, k in enumerate(used)}
    spectra = (material_table(tint) @ sensor.response())[used]

    patch = np.asarray([cover.patch for cover in covers])[chosen]
    mixed = np.asarray([cover.mixed for cover in covers])[chosen]
    spread = patch[..., None] * scene.patches[:, used][parcels] + mixed[..., None] * scene.mixture[..., used]
    amounts = table[:, used][chosen] * np.exp(spread)
    road = scene.ground.streets * np.asarray([cover.streets for cover in covers], dtype=float)[chosen]
    amounts[..., column_of["asphalt"]] += 0.8 * road
    amounts /= amounts.sum(axis=-1, keepdims=True)

    area = _leaf_area(scene, covers, view) * (1.0 - 0.7 * road)
    cover_green = 1.0 - np.exp(-EXTINCTION * area)
    peak = np.asarray([cover.lai for cover in covers])[chosen]
    # Leaves that are gone leave dry stalks and bark behind
    dead = 0.45 * np.clip(1.0 - np.exp(-EXTINCTION * peak) - cover_green, 0.0, None)
    amounts *= (1.0 - cover_green - dead)[..., None]
    amounts[..., column_of["litter"]] += dead
    leaves = np.asarray([column_of[cover.leaf] for cover in covers])[chosen]
    row, column = np.indices(chosen.shape)
    amounts[row, column, leaves] += cover_green

    texture, shade = (np.asarray([getattr(cover, name) for cover in covers])[chosen] for name in ("texture", "shade"))
    light = (1.0 - shade) * np.exp(LIGHT * texture * _pattern(scene, covers) + 0.25 * patch * scene.patches[parcels, 1])
    rough = np.asarray([cover.rough for cover in covers])[chosen] * scene.mixture[..., MATERIALS.index("shadow")]
    light = light * _hillshade(scene, view) * np.exp(SHADOW * scene.shadows + rough)
    return _blur((amounts * light[..., None]) @ spectra)


def _hillshade(scene: Scene, view: View) -> Array:
    down, right = np.gradient(scene.ground.fields["high"])
    slope = down * np.cos(view.sky.azimuth) + right * np.sin(view.sky.azimuth)
    return np.clip(1.0 + 0.35 * slope, 0.6, 1.4)


def _blur(image: Array) -> Array:
    """The point spread of the optics: a binomial kernel of three pixels, so that edges hold mixed pixels."""
    for axis in (0, 1):
        lines = np.swapaxes(image, 0, axis)
        spread = 0.5 * lines
        spread[1:] += 0.25 * lines[:-1]
        spread[:-1] += 0.25 * lines[1:]
        spread[0] += 0.25 * lines[0]
        spread[-1] += 0.25 * lines[-1]
        image = np.swapaxes(spread, 0, axis)
    return image


def render(scene: Scene, views: Sequence[View], sensor: Sensor, rng: np.random.Generator) -> np.ndarray:
    """Digital numbers of a canvas on one or several dates.

    Args:
        views: One view per date.

    Returns:
        Digital numbers, shape (dates * bands, H, W), date-major.
    """
    return np.concatenate([observe(reflectance(scene, view, sensor), sensor, view.sky, rng) for view in views])


def unlabelled(rng: np.random.Generator, shape: tuple[int, int], share: float) -> NDArray[np.bool_]:
    """Blobs that a labeller left out, covering ``share`` of the canvas."""
    field = noise(rng, shape, 4.0)[0]
    return field > np.quantile(field, 1.0 - share)


def draw_shares(
    rng: np.random.Generator, priors: Mapping[str, float], *, most: int, spread: float = 0.6
) -> dict[str, float]:
    """Draw which covers a canvas has, and how much of each.

    Args:
        priors: Relative frequency of each cover in the landscape.
        most: Largest number of covers on the canvas.
        spread: Standard deviation of the logarithm of the shares between canvases.

    Returns:
        Shares that sum to 1, each at least about .02, in the order of ``priors``.
    """
    names = [name for name, weight in priors.items() if weight > 0]
    weights = np.asarray([priors[name] for name in names])
    # Gumbel top-k on tempered weights: rare covers still turn up
    keys = 0.5 * np.log(weights) + rng.gumbel(size=len(names))
    kept = sorted(np.argsort(-keys, kind="stable")[:most])
    drawn = weights[kept] * np.exp(spread * rng.standard_normal(len(kept)))
    drawn = drawn / drawn.sum() + 0.02
    return {names[k]: float(value) for k, value in zip(kept, drawn / drawn.sum(), strict=True)}
