"""An audit as one HTML page that needs nothing else: no script, no request."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from spectral_tl_bench.data.audit.facts import GAP, NULL, Audit, ClassShift
from spectral_tl_bench.leaderboard.audit.lines import BASES, SIDES, km2, lines, mean_shift, metres, number
from spectral_tl_bench.leaderboard.rendering import environment
from spectral_tl_bench.leaderboard.text import NOTHING, percent, shown

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 320, 170, 40, 8, 24
"""Of a drawing, and of its margins."""
ROLES = {"train": "training", "validation": "validation", "buffer": "left out between these", "target": "target"}


def render_audit(audit: Audit) -> str:
    """The page; the same audit gives the same page."""
    style = (resources.files("spectral_tl_bench.leaderboard.site") / "static" / "site.css").read_text(encoding="utf-8")
    names = {"NOTHING": NOTHING, "GAP": GAP, "NULL": NULL, "BASES": BASES, "style": Markup(style)}  # noqa: S704 - our own file
    templates = environment(".audit", shown, names, autoescape=True)
    templates.filters |= {"percent": percent, "metres": metres, "km2": km2, "number": number}
    order = {role: number for number, role in enumerate(ROLES)}
    return templates.get_template("audit.html").render(
        chips=sorted(audit.chips.items(), key=lambda one: order.get(one[0], len(order))),
        moved=mean_shift(audit.pixels.bands) if audit.pixels else None,
        audit=audit, lines=lines(audit), priors=_priors(audit), bands=_bands(audit), spectra=_spectra(audit),
        pairs=[(GAP, "Source and target"), (NULL, "Training and validation")],
        sides=SIDES, roles=ROLES,
    )  # fmt: skip


def _priors(audit: Audit) -> list[dict[str, Any]]:
    """Per class: its name, colour and shares of the labelled pixels, in the order of the definition."""
    if not audit.priors:
        return []
    sides = [side for name in (GAP, NULL) for side in (audit.priors[name].one, audit.priors[name].other)]
    shares = [[count / max(1, sum(side)) for count in side] or [0.0] * len(audit.class_names) for side in sides]
    top = max((value for side in shares[:2] for value in side), default=0.0) or 1.0
    return [
        {"name": name, "colour": audit.class_colours[number], "shares": [
            side[number] if number < len(side) else None for side in shares
        ], "widths": [round(100 * side[number] / top, 1) for side in shares[:2]]}
        for number, name in enumerate(audit.class_names)
    ]  # fmt: skip


def _bands(audit: Audit) -> dict[str, Any] | None:
    """A drawing of all bands' distances, in standard deviations of the first side."""
    if audit.pixels is None:
        return None
    series = [
        [one.in_std if one is not None else None for one in shifts]
        for shifts in (audit.pixels.bands, audit.pixels.null_bands)
    ]
    return _drawing(audit.wavelengths, series)


def _spectra(audit: Audit) -> list[tuple[ClassShift, dict[str, Any]]]:
    """Each class that can be compared, with a drawing of its mean spectra; the most shifted first."""
    if audit.pixels is None:
        return []
    shown = sorted((one for one in audit.pixels.classes if one.source), key=lambda one: -(one.in_std or 0.0))
    return [
        (one, _drawing(audit.wavelengths, [_scaled(one.source, audit.scale), _scaled(one.target, audit.scale)]))
        for one in shown
    ]


def _scaled(values: Sequence[float | None], scale: float) -> list[float | None]:
    return [None if value is None else value * scale for value in values]


def _drawing(wavelengths: Sequence[float], series: Sequence[Sequence[float | None]]) -> dict[str, Any]:
    """Lines over bands: by wavelength where these rise, by number, with a gap wherever they fall, where they do not."""
    rising = all(left < right for left, right in pairwise(wavelengths))
    places = list(wavelengths) if rising else [float(number) for number in range(1, len(wavelengths) + 1)]
    breaks = {number for number in range(1, len(wavelengths)) if wavelengths[number] <= wavelengths[number - 1]}
    known = [value for line in series for value in line if value is not None]
    low, high = min(0.0, min(known, default=0.0)), max(known, default=1.0) or 1.0
    first, last = places[0], places[-1] if places[-1] > places[0] else places[0] + 1
    across = [round(LEFT + (WIDTH - LEFT - 8) * (place - first) / (last - first), 1) for place in places]

    def up(value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low), 1)

    paths = []
    for line in series:
        path, begun = "", False
        for band, value in enumerate(line):
            if value is None or band in breaks:
                begun = False
            if value is not None:
                path += f"{'L' if begun else 'M'}{across[band]} {up(value)}"
                begun = True
        points = [(across[band], up(value)) for band, value in enumerate(line) if value is not None]
        paths.append({"d": path, "points": points if len(points) <= 40 else []})
    return {
        "width": WIDTH, "height": HEIGHT, "left": LEFT, "base": up(max(low, 0.0)), "paths": paths,
        "y_ticks": [(up(value), f"{value:.2g}") for value in dict.fromkeys((low, (low + high) / 2, high))],
        "x_ticks": [(across[0], f"{places[0]:g}", "start"), (across[-1], f"{places[-1]:g}", "end")],
        "x_title": "µm" if rising else "number of the band",
    }  # fmt: skip
