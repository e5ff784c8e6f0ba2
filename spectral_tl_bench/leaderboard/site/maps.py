"""A benchmark's domains on a map that needs no network: their geometries and a graticule, in degrees."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass

from spectral_tl_bench.benchmarks import splits_folder
from spectral_tl_bench.leaderboard.site.labels import Labels
from spectral_tl_bench.leaderboard.site.view import BenchmarkView

WIDTH = 720
_MARGIN = (14, 20, 26, 56)  # top, right, bottom, left: room for the degrees
_STEPS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 15, 20, 30, 45, 60)
Point = tuple[float, float]


@dataclass(frozen=True)
class Place:
    """One domain.

    Attributes:
        domain: Its id.
        label: What is written beside it.
        side: source, target or both.
        season: Its season, if any.
        where: Its centre in words.
        path: Path data of its outline; empty for a point.
        x, y: Its centre.
        text: Where the label starts, and whether it is set to the left of that point.
    """

    domain: str
    label: str
    side: str
    season: str
    where: str
    path: str
    x: float
    y: float
    text: tuple[float, float, str]


@dataclass(frozen=True)
class Map:
    """Everything that is drawn.

    Attributes:
        width, height: Of the drawing.
        frame: x, y, width, height of the map in it.
        meridians: (x, text).
        parallels: (y, text).
        places: The domains.
        outline: How exact they are, in the words of the file.
    """

    width: int
    height: float
    frame: tuple[float, float, float, float]
    meridians: list[tuple[float, str]]
    parallels: list[tuple[float, str]]
    places: list[Place]
    outline: str


@functools.cache
def _features() -> dict[tuple[str, str], tuple[list[list[Point]], str]]:
    """Rings, or a single point, of each domain in ``domains.geojson``, and how exact they are."""
    path = splits_folder() / "domains.geojson"
    if not path.is_file():
        return {}
    found = {}
    for feature in json.loads(path.read_text(encoding="utf-8"))["features"]:
        about, shape = feature["properties"], feature["geometry"]
        coordinates = shape["coordinates"]
        rings = {
            "Point": lambda given: [[given]],
            "Polygon": lambda given: given[:1],
            "MultiPolygon": lambda given: [part[0] for part in given],
        }[shape["type"]](coordinates)
        points = [[(float(x), float(y)) for x, y, *_ in ring] for ring in rings]
        found[about["dataset"], about["domain"]] = (points, about["outline"])
    return found


def draw_map(benchmark: BenchmarkView) -> Map | None:
    """Place a benchmark's domains.

    Returns:
        The map; None where no geometry is known.
    """
    known = _features() if benchmark.definition else {}
    order = list(dict.fromkeys([*benchmark.source, *benchmark.target]))
    shapes = {name: known[benchmark.dataset, name] for name in order if (benchmark.dataset, name) in known}
    if not shapes:
        return None
    points = [point for rings, _ in shapes.values() for ring in rings for point in ring]
    west, east, south, north = _bounds(points)
    squeeze = math.cos(math.radians((south + north) / 2))
    top, right, bottom, left = _MARGIN
    inner = WIDTH - left - right
    scale = inner / ((east - west) * squeeze)
    height = (north - south) * scale

    def place(point: Point) -> Point:
        return left + (point[0] - west) * squeeze * scale, top + (north - point[1]) * scale

    centres = {name: place(_centre([point for ring in rings for point in ring])) for name, (rings, _) in shapes.items()}
    labels = Labels((left, top, left + inner, top + height), list(centres.values()))
    places = []
    for name, (rings, _) in shapes.items():
        x, y = centres[name]
        label = _short(benchmark.domain_name(name), name)
        point = _centre([point for ring in rings for point in ring])
        places.append(Place(
            domain=name,
            label=label,
            side=_side(benchmark, name),
            season=benchmark.season(name),
            where=f"{_degrees(point[1], 'N', 'S', 2)}, {_degrees(point[0], 'E', 'W', 2)}",
            path=" ".join(_path([place(point) for point in ring]) for ring in rings) if len(rings[0]) > 1 else "",
            x=round(x, 1),
            y=round(y, 1),
            text=labels.place(x, y, label) or (x, y, "start"),
        ))  # fmt: skip
    return Map(
        width=WIDTH,
        height=round(top + height + bottom, 1),
        frame=(left, top, round(inner, 1), round(height, 1)),
        meridians=[(round(place((x, 0))[0], 1), _degrees(x, "E", "W")) for x in _lines(west, east, 7)],
        parallels=[(round(place((0, y))[1], 1), _degrees(y, "N", "S")) for y in _lines(south, north, 5)],
        places=places,
        outline="; ".join(dict.fromkeys(text for _, text in shapes.values())),
    )


def _short(name: str, domain: str) -> str:
    """Without the country, or without what stands in brackets."""
    name = name.split(" (", maxsplit=1)[0]
    return name.replace(",", "") if len(domain) <= 3 and name.startswith(f"{domain},") else name.split(",")[0]


def _side(benchmark: BenchmarkView, domain: str) -> str:
    sides = [side for side in ("source", "target") if domain in getattr(benchmark, side)]
    return sides[0] if len(sides) == 1 else "both"


def _bounds(points: list[Point]) -> tuple[float, float, float, float]:
    """West, east, south and north with a margin, no higher than wide and not flatter than a third."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    west, east, south, north = min(xs), max(xs), min(ys), max(ys)
    wide, high = max(east - west, 0.5), max(north - south, 0.5)
    squeeze = math.cos(math.radians((south + north) / 2))
    middle_x, middle_y = (west + east) / 2, (south + north) / 2
    wide, high = 1.16 * wide, 1.24 * high
    high = max(high, wide * squeeze * 0.34)
    wide = max(wide, high / squeeze / 0.62)
    if wide > 300:
        wide, middle_x = 360.0, 0.0
    south, north = max(-88.0, middle_y - high / 2), min(88.0, middle_y + high / 2)
    return middle_x - wide / 2, middle_x + wide / 2, south, north


def _centre(points: list[Point]) -> Point:
    """Of the bounding box: enough to set a label."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2


def _lines(low: float, high: float, most: int) -> list[float]:
    step = next((step for step in _STEPS if (high - low) / step <= most), 90)
    first = math.ceil(low / step)
    return [step * n for n in range(first, math.floor(high / step) + 1)]


def _degrees(value: float, plus: str, minus: str, digits: int | None = None) -> str:
    value = (value + 180) % 360 - 180 if plus == "E" else value
    text = f"{abs(value):g}" if digits is None else f"{abs(value):.{digits}f}"
    return f"{text}°" + ("" if value == 0 else f" {plus if value > 0 else minus}")


def _path(points: list[Point]) -> str:
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points) + "Z"
