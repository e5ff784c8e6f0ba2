"""Land-cover maps: terrain, rivers, coasts, towns and parcels, and the covers laid out over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spectral_tl_bench.sample.covers import COVERS
from spectral_tl_bench.sample.spectra import Array

FIELDS = ("high", "wet", "river", "coast", "town", "village")
"""Fields of the ground that covers may like: larger values are more of it."""

PARCEL_PIXELS = 1000
"""Mean area of a parcel in pixels (ten hectares)."""

PATCH_SCALE = 26.0
"""Correlation length of covers without parcels, in pixels."""

LAYOUT_ROUNDS = 11


@dataclass(frozen=True)
class Ground:
    """The lie of the land on one canvas.

    Args:
        fields: One array (H, W) per name in `FIELDS`.
        parcels: Number of the parcel that each pixel lies in, (H, W), from 0.
        streets: 1 on roads of a town grid, 0 elsewhere, (H, W).
    """

    fields: Mapping[str, Array]
    parcels: NDArray[np.int64]
    streets: Array


def noise(
    rng: np.random.Generator, shape: tuple[int, int], scale: float, *, count: int = 1, rough: bool = False
) -> Array:
    """Smooth random fields of unit spread.

    Args:
        shape: Height and width.
        scale: Correlation length in pixels.
        rough: True for fields with detail at all scales below ``scale``, as terrain has; False for one scale.

    Returns:
        Array of shape (count, H, W), mean 0, standard deviation 1.
    """
    white = np.fft.rfft2(rng.standard_normal((count, *shape)))
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :])
    if rough:
        gain = 1.0 / (1.0 + (6.0 * scale * frequency) ** 2) ** 0.85
    else:
        gain = np.exp(-2.0 * (np.pi * scale * frequency) ** 2)
    gain[0, 0] = 0.0
    fields = np.fft.irfft2(white * gain, s=shape)
    return fields / (fields.std(axis=(1, 2), keepdims=True) + 1e-12)


def _blobs(rng: np.random.Generator, rows: Array, columns: Array, number: int, radius: float) -> Array:
    heap = np.zeros(np.broadcast_shapes(rows.shape, columns.shape))
    for _ in range(number):
        row, column = rng.uniform(0, rows.max() + 1), rng.uniform(0, columns.max() + 1)
        width = radius * rng.uniform(0.7, 1.4)
        heap = np.maximum(heap, np.exp(-0.5 * ((rows - row) ** 2 + (columns - column) ** 2) / width**2))
    return heap


def make_ground(rng: np.random.Generator, shape: tuple[int, int]) -> Ground:
    """Draw the lie of the land for a canvas of ``shape`` (height, width) in pixels of 10 m."""
    height, width = shape
    rows, columns = np.arange(height, dtype=float)[:, None], np.arange(width, dtype=float)[None, :]
    size = float(np.sqrt(height * width))
    high = noise(rng, shape, 30.0, rough=True)[0]
    wet, wiggle = noise(rng, shape, 16.0, count=2)

    angle = rng.uniform(0, np.pi)
    along = (rows - height / 2) * np.cos(angle) + (columns - width / 2) * np.sin(angle)
    across = (columns - width / 2) * np.cos(angle) - (rows - height / 2) * np.sin(angle)
    bends = 0.10 * size * np.sin(2 * np.pi * along / (0.8 * size) + rng.uniform(0, 6.3)) + 4.0 * wiggle
    distance = np.abs(across - bends - rng.uniform(-0.25, 0.25) * size)
    river = np.clip(1.5 - distance / 6.0, -1.5, 1.5)
    high = high - 0.8 * np.exp(-((distance / 12.0) ** 2))  # rivers lie in valleys

    shore = rng.uniform(0, 2 * np.pi)
    slope = ((rows - height / 2) * np.sin(shore) + (columns - width / 2) * np.cos(shore)) / size
    coast = 3.0 * slope + 0.3 * noise(rng, shape, 12.0, rough=True)[0]

    ragged = noise(rng, shape, 5.0, count=2)
    town = 2.5 * _blobs(rng, rows, columns, max(1, round(size / 96)), 19.0) - 1.0 + 0.3 * ragged[0]
    village = 2.5 * _blobs(rng, rows, columns, max(2, round(2 * height * width / 9216)), 11.0) - 1.0 + 0.3 * ragged[1]

    turn, step = rng.uniform(0, np.pi / 2), rng.uniform(8.0, 12.0)
    first = rows * np.cos(turn) + columns * np.sin(turn)
    second = columns * np.cos(turn) - rows * np.sin(turn)
    streets = ((first % step < 1.4) | (second % (1.3 * step) < 1.4)).astype(float)

    fields = dict(zip(FIELDS, (high, wet, river, coast, town, village), strict=True))
    return Ground(fields, _parcels(rng, shape), streets)


def _parcels(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Voronoi cells around a jittered grid of seeds, longer in one direction, as fields are."""
    side = np.sqrt(PARCEL_PIXELS)
    stretch = rng.uniform(1.0, 1.8) ** rng.choice([-1.0, 1.0])
    steps = np.asarray([side * stretch**0.5, side / stretch**0.5])
    counts = np.maximum(1, np.rint(np.asarray(shape) / steps)).astype(int)
    grid = np.stack(np.meshgrid(*[np.arange(n) + 0.5 for n in counts], indexing="ij"), axis=-1)
    seeds = (grid + rng.uniform(-0.38, 0.38, grid.shape)) * (np.asarray(shape) / counts)
    seeds = np.clip(seeds.astype(int), 0, np.asarray(shape) - 1).reshape(-1, 2)
    empty = np.ones(shape, dtype=bool)
    empty[seeds[:, 0], seeds[:, 1]] = False
    nearest = ndimage.distance_transform_edt(
        empty, sampling=(1.0 / steps[0], 1.0 / steps[1]), return_distances=False, return_indices=True
    )
    numbers = np.zeros(shape, dtype=np.int64)
    numbers[seeds[:, 0], seeds[:, 1]] = np.arange(len(seeds))
    return numbers[nearest[0], nearest[1]]


def lay_covers(rng: np.random.Generator, ground: Ground, shares: Mapping[str, float]) -> NDArray[np.int64]:
    """Lay covers out so that each lies where it likes to, and takes about its share of the canvas.

    Args:
        shares: Wanted share of each cover, positive; normalised here.

    Returns:
        Index into ``list(shares)`` per pixel, shape (H, W).
    """
    names = list(shares)
    shape = ground.parcels.shape
    wanted = np.asarray([shares[name] for name in names])
    wanted = wanted / wanted.sum()
    soft = noise(rng, (shape[0], shape[1]), PATCH_SCALE, count=len(names))
    hard = rng.standard_normal((len(names), int(ground.parcels.max()) + 1))[:, ground.parcels]
    scores = np.empty((len(names), shape[0] * shape[1]))
    for k, name in enumerate(names):
        cover = COVERS[name]
        likes = sum((weight * ground.fields[what] for what, weight in cover.likes.items()), np.zeros(shape))
        own = hard[k] + 0.25 * soft[k] if cover.parcel else soft[k]
        score = likes + own
        scores[k] = ((score - score.mean()) / (score.std() + 1e-12)).ravel()
    bias = np.log(wanted)
    chosen = (scores + bias[:, None]).argmax(axis=0)
    for turn in range(LAYOUT_ROUNDS):
        frequency = np.bincount(chosen, minlength=len(names)) / chosen.size
        bias = bias + 0.6 * 0.93**turn * np.log((wanted + 0.002) / (frequency + 0.002))
        chosen = (scores + bias[:, None]).argmax(axis=0)
    return chosen.reshape(shape)


def make_patterns(rng: np.random.Generator, parcels: NDArray[np.int64]) -> dict[str, Array]:
    """What stands where inside covers: grain, clumps, crowns, rows along a parcel, trees on a grid, blocks of houses.

    Args:
        parcels: Number of the parcel per pixel, (H, W): rows and grids turn from parcel to parcel.

    Returns:
        One array (H, W) of unit spread per name in `covers.PATTERNS`.
    """
    shape = (parcels.shape[0], parcels.shape[1])
    rows, columns = np.indices(shape)
    number = int(parcels.max()) + 1
    turn = rng.uniform(0, np.pi, number)[parcels]
    period = rng.uniform(4.0, 6.0, number)[parcels]
    along = (rows * np.cos(turn) + columns * np.sin(turn)) * 2 * np.pi / period
    across = (columns * np.cos(turn) - rows * np.sin(turn)) * 2 * np.pi / period
    houses = np.sign(noise(rng, shape, 1.6)[0])
    fields = {
        "grain": noise(rng, shape, 0.6)[0],
        "clumps": noise(rng, shape, 3.0)[0],
        "crowns": -np.abs(noise(rng, shape, 1.5)[0]),
        "rows": np.sin(along),
        "grid": np.cos(along) * np.cos(across),
        "blocks": houses,
    }
    return {name: (field - field.mean()) / field.std() for name, field in fields.items()}
