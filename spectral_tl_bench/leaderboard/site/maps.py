"""A benchmark's domains on a map that needs no network: their geometries and a graticule, in degrees."""

from __future__ import annotations

import functools
import json
import math

from spectral_tl_bench.benchmarks import splits_folder
from spectral_tl_bench.leaderboard.frames import Fields
from spectral_tl_bench.leaderboard.site.labels import Labels
from spectral_tl_bench.leaderboard.site.view import BenchmarkView

WIDTH = 720
_MARGIN = (14, 20, 26, 56)  # top, right, bottom, left: room for the degrees
_STEPS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 15, 20, 30, 45, 60)
Point = tuple[float, float]


@functools.cache
def _features() -> dict[tuple[str, str], tuple[list[list[Point]], str]]:
    """Rings, or a single point, of each domain in ``domains.geojson``, and how exact they are."""
    path = splits_folder() / "domains.geojson"
    if not path.is_file():
        return {}
    features = {}
    for feature in json.loads(path.read_text(encoding="utf-8"))["features"]:
        about, shape = feature["properties"], feature["geometry"]
        given = shape["coordinates"]
        rings = [[given]] if shape["type"] == "Point" else given[:1]
        if shape["type"] == "MultiPolygon":
            rings = [part[0] for part in given]
        points = [[(float(x), float(y)) for x, y, *_ in ring] for ring in rings]
        features[about["dataset"], about["domain"]] = (points, about["outline"])
    return features


def draw_map(benchmark: BenchmarkView) -> Fields | None:
    """Place a benchmark's domains.

    Returns:
        What the template draws, None where no geometry is known: ``width``, ``height``, the ``frame`` (x, y, width,
        height) of the map in it, ``meridians`` (x, text), ``parallels`` (y, text), ``outline`` (how exact the places
        are, in the words of the file), and the ``places``: of each ``domain`` its ``label`` and where its ``text``
        stands, its ``side`` (source, target or both), ``season``, centre (``x``, ``y``, and ``where`` in words) and
        the ``path`` of its outline, empty for a point.
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

    degrees = {name: _centre([point for ring in rings for point in ring]) for name, (rings, _) in shapes.items()}
    centres = {name: place(point) for name, point in degrees.items()}
    labels = Labels((left, top, left + inner, top + height), list(centres.values()))
    places = []
    for name, (rings, _) in shapes.items():
        (x, y), (longitude, latitude) = centres[name], degrees[name]
        label = _short(benchmark.domain_name(name), name)
        sides = [side for side in ("source", "target") if name in getattr(benchmark, side)]
        places.append({
            "domain": name,
            "label": label,
            "side": sides[0] if len(sides) == 1 else "both",
            "season": benchmark.season(name),
            "where": f"{_degrees(latitude, 'N', 'S', 2)}, {_degrees(longitude, 'E', 'W', 2)}",
            "path": " ".join(_path([place(point) for point in ring]) for ring in rings) if len(rings[0]) > 1 else "",
            "x": round(x, 1),
            "y": round(y, 1),
            "text": labels.place(x, y, label),
        })  # fmt: skip
    return {
        "width": WIDTH,
        "height": round(top + height + bottom, 1),
        "frame": (left, top, round(inner, 1), round(height, 1)),
        "meridians": [(round(place((x, 0))[0], 1), _degrees(x, "E", "W")) for x in _lines(west, east, 7)],
        "parallels": [(round(place((0, y))[1], 1), _degrees(y, "N", "S")) for y in _lines(south, north, 5)],
        "places": places,
        "outline": "; ".join(dict.fromkeys(text for _, text in shapes.values())),
    }


def _short(name: str, domain: str) -> str:
    """Without the country, or without what stands in brackets."""
    name = name.split(" (", maxsplit=1)[0]
    return name.replace(",", "") if len(domain) <= 3 and name.startswith(f"{domain},") else name.split(",")[0]


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
