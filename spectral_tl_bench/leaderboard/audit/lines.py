"""The numbers of an audit in a few lines, as its own page and the pages of boards show them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import fmean, median
from typing import NamedTuple

from spectral_tl_bench.data.audit.facts import GAP, NULL, Audit, BandShift, Ground, Priors, Told
from spectral_tl_bench.leaderboard.text import NOTHING

BASES = {
    "sample": "Measured on the bundled synthetic scenes: not a finding about the real data.",
    "definition": "From the benchmark's definition alone; no data were read.",
    "partial": "Measured on a part of the published data.",
    "demonstration": "Measured on data that a user brought.",
    "reproduced": "Measured on the complete published data.",
    "aerial": "Measured on a copy of the published aerial images; whether it is complete is not known.",
    "hyperspectral": "Measured on a copy of the published hyperspectral scenes; whether it is complete is not known.",
}


SIDES = {GAP: ("source", "target"), NULL: ("training", "validation")}
"""What both sides of a pair are called."""


class Line(NamedTuple):
    """One finding in words, between source and target, and between training and validation."""

    name: str
    gap: str
    null: str


def lines(audit: Audit) -> list[Line]:
    """What separates the sides of a benchmark, most of it in numbers; what is not known is said."""
    found = _ground_lines(audit)
    if audit.pixels is not None:
        copies = audit.pixels.copies
        found.append(_line("Copies: exact, nearly", lambda pair: f"{copies[pair].exact}, {copies[pair].near}"))
    if audit.priors:
        shares = audit.priors
        found.append(_line("Class shares: Jensen-Shannon distance", lambda pair: number(shares[pair].jensen_shannon)))
        found.append(_line("Classes on one side only", lambda pair: _absent(shares[pair], pair)))
    if audit.pixels is not None:
        bands = {GAP: audit.pixels.bands, NULL: audit.pixels.null_bands}
        told = audit.pixels.told
        found.append(_line("Bands: median (largest) distance in std", lambda pair: _bands(audit, bands[pair])))
        moved = mean_shift(audit.pixels.bands)
        if moved is not None:
            words = f"{number(moved[0])}, {number(moved[1])}"
            found.append(Line("Bands: mean shift in std, by class shares alone", words, NOTHING))
        found.append(_line("Sides told apart: AUC by pixel, by chip", lambda pair: _told(told[pair])))
    return found


def mean_shift(shifts: tuple[BandShift | None, ...]) -> tuple[float, float] | None:
    """Size of the shift of the mean, and of what class shares alone would shift it by; in std, means over bands."""
    parts = [
        (abs(one.mean_shift) * one.in_std / one.wasserstein, abs(one.by_shares) * one.in_std / one.wasserstein)
        for one in shifts
        if one is not None and one.in_std is not None and one.by_shares is not None and one.wasserstein
    ]
    return (fmean(part[0] for part in parts), fmean(part[1] for part in parts)) if parts else None


def metres(value: float) -> str:
    """A distance to be read."""
    return f"{value:,.0f} m" if value < 999.5 else f"{value / 1000:,.1f} km"


def km2(value: float) -> str:
    """An area to be read."""
    return f"{value:.3g} km²"


def number(value: float | None, digits: int = 2) -> str:
    """A number, or a dash where there is none."""
    return NOTHING if value is None else f"{value:.{digits}f}".replace("-", "−")


def _line(name: str, words: Callable[[str], str]) -> Line:
    return Line(name, words(GAP), words(NULL))


def _ground_lines(audit: Audit) -> list[Line]:
    unknown = {pair: ground.unknown for pair, ground in audit.ground.items()}
    if all(unknown.values()):
        return [Line("Ground", unknown[GAP], unknown.get(NULL) or NOTHING)]
    words: dict[str, Callable[[Ground], str]] = {
        "Pairs that share ground": lambda one: f"{one.sharing}, {km2(one.shared_km2)}" if one.sharing else "0",
        "Pairs that touch": lambda one: str(one.adjacent),
        "Nearest, and median distance": lambda one: ", ".join(metres(one.nearest_m[at]) for at in ("min", "median")),
    }
    return [_line(name, partial(_about_ground, audit, said)) for name, said in words.items()]


def _about_ground(audit: Audit, words: Callable[[Ground], str], pair: str) -> str:
    ground = audit.ground.get(pair)
    if ground is None:
        return NOTHING
    return ground.unknown or words(ground) + ("" if ground.exact else " (around the centres of domains)")


def _absent(priors: Priors, pair: str) -> str:
    sides = zip(SIDES[pair], (priors.only_one, priors.only_other), strict=True)
    parts = [f"{side}: {', '.join(names)}" for side, names in sides if names]
    return "; ".join(parts) or "none"


def _bands(audit: Audit, shifts: tuple[BandShift | None, ...]) -> str:
    named = zip(shifts, audit.band_names, strict=True)
    known = [(one.in_std, name) for one, name in named if one is not None and one.in_std is not None]
    if not known:
        return NOTHING
    worst, name = max(known)
    return f"{number(median(value for value, _ in known))} ({number(worst)} in {name})"


def _told(told: Told) -> str:
    if told.unknown:
        return told.unknown
    chance = ""
    if told.pixel_chance is not None and told.chip_chance is not None:
        chance = f" (by chance up to {number(told.pixel_chance[1])}, {number(told.chip_chance[1])})"
    return f"{number(told.pixel_auc)}, {number(told.chip_auc)}{chance}"
