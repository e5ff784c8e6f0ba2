"""The heads and cells of tables of rows, as markup: a board has tens of thousands, and templates are slow.

A number stands in ``data-v`` at full precision, by which a table is sorted; the attribute is empty where there is none.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Set
from typing import Any

from markupsafe import Markup, escape

from spectral_tl_bench.leaderboard.frames import Fields
from spectral_tl_bench.leaderboard.site.names import count, seconds, signed
from spectral_tl_bench.leaderboard.site.scales import Scale
from spectral_tl_bench.leaderboard.text import NOTHING, Selected, backbone_text, percent, shown

_STATES = {
    "missing": '<td class="state" data-v="" data-state="missing">missing</td>',
    "failed": '<td class="state failed" data-v="" data-state="failed">failed</td>',
}


def _markup(make: Callable[..., str]) -> Callable[..., Markup]:
    """What a function of this module makes is markup: each escapes the texts that it is given."""

    def made(*args: Any, **kwargs: Any) -> Markup:
        return Markup(make(*args, **kwargs))  # noqa: S704 - see above

    return functools.update_wrapper(made, make)


def _text(value: Any) -> str:
    return str(escape(shown(value)))


@_markup
def head(
    text: str, kind: str = "n", link: str = "", about: str = "", first: str = "", classes: str = "",
    data: Mapping[str, str] | None = None, above: str = "", colour: str = "",
) -> str:  # fmt: skip
    """The head of a column by which the table can be sorted; ``above`` stands over its text in small."""
    data = data or {}
    named = f' class="{classes}"' if classes else ""
    ascending = f' data-first="{first}"' if first else ""
    hidden = " hidden" if "shown-mean" in data else ""
    facts = "".join(f' data-{name}="{_text(value)}"' for name, value in data.items())
    title = f' title="{_text(about)}"' if about else ""
    small = f"<small>{_text(above)}</small>" if above else ""
    square = f"{swatch(colour)} " if colour else ""
    name = f"{_text(above)}{_text(text)}"
    to = f'<a class="go" href="{_text(link)}" aria-label="Page of {name}">→</a>' if link else ""
    return (
        f'<th scope="col" data-kind="{kind}"{ascending}{named}{hidden}{facts} aria-sort="none">'
        f'<button type="button"{title}>{small}{square}{_text(text)}</button>{to}</th>'
    )


@_markup
def swatch(colour: str) -> str:
    """A square in the colour of a class."""
    return (
        '<svg class="swatch" viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">'
        f'<rect width="12" height="12" rx="2" fill="{_text(colour)}"/></svg>'
    )


@_markup
def interval(low: float | None, high: float | None, digits: int = 1) -> str:
    """Both ends in per cent, below the number."""
    if low is None or high is None:
        return '<small class="ci none">no interval</small>'
    return f'<small class="ci">{100 * low:.{digits}f}–{100 * high:.{digits}f}</small>'


@_markup
def spread(std: float | None, digits: int) -> str:
    """The standard deviation over seeds, below the number."""
    if std is None:
        return '<small class="sd none">one seed</small>'
    return f'<small class="sd">± {percent(std, digits)}</small>'


@_markup
def number(value: float | None, text: object) -> str:
    """A cell with a number, written as ``text``, which is none of a record's."""
    return f'<td data-v="">{text}</td>' if value is None else f'<td data-v="{value:.6g}">{text}</td>'


def _exact(value: float | None, text: str, kind: str = "") -> str:
    return f'<td{kind} data-v="{"" if value is None else f"{value:.6f}"}">{text}</td>'


@_markup
def score(entry: Fields, best: bool = False, digits: int = 1) -> str:
    """An entry's mIoU and what stands beside it; its state where there is no number, or not all seeds."""
    miou = entry["miou"]
    if entry["state"] == "missing" or miou is None:
        return _STATES["missing" if entry["state"] == "missing" else "failed"]
    part = "" if entry["state"] == "completed" else f'<span class="part">seeds {_text(entry["seeds"])}</span>'
    return (
        f'<td{" class=best" if best else ""} data-v="{miou:.6f}">{100 * miou:.{digits}f}{part}'
        f"{interval(entry['low'], entry['high'], digits)}{spread(entry['std'], digits)}</td>"
    )


@_markup
def bar(value: float | None, low: float | None, high: float | None, scale: Scale, floor: float | None = None) -> str:
    """A dot with its interval on a scale; the floor is a tick, or an arrow where it lies below the scale."""
    parts = []
    if floor is not None:
        at = "M5 4L1 7L5 10" if floor < scale.bottom else f"M{2 + 116 * scale.at(floor):.1f} 2V12"
        parts.append(f'<path class="floor" d="{at}"/>')
    if low is not None and high is not None:
        parts.append(f'<path class="whisker" d="M{2 + 116 * scale.at(low):.1f} 7H{2 + 116 * scale.at(high):.1f}"/>')
    if value is not None:
        parts.append(f'<circle cx="{2 + 116 * scale.at(value):.1f}" cy="7" r="3"/>')
    return f'<svg class="range" viewBox="0 0 120 14" aria-hidden="true">{"".join(parts)}</svg>'


@_markup
def release(fields: Fields, digits: int = 2) -> str:
    """The other metric of a row or an entry, and by how much it is above ours."""
    above = fields["inflation"]
    inflated = " class=inflated" if above is not None and above > 0.005 else ""
    return _exact(fields["release"], percent(fields["release"], digits)) + _exact(above, signed(above), inflated)


@_markup
@functools.lru_cache(maxsize=256)
def result_heads(scale: Scale, selected: Selected, has: Set[str]) -> str:
    """The columns of one entry, the same on the pages of benchmarks and of methods; ``has`` names those that tell."""
    ends = f'<th scope="col" class="plot">{percent(scale.bottom, 0)} to {percent(scale.top, 0)} %</th>'
    oracle = "the best checkpoint on the target, which nobody can select without target labels"
    variants = "configurations of this method and backbone that were run on the benchmark"
    theirs = "mIoU by the rule of the SpectralX release, from the same confusion matrices"
    above = "release minus mIoU, percentage points"
    return "".join([
        head("Target mIoU", about="selected checkpoint, per cent"), ends,
        head("In-domain", about="the same row on the dataset's benchmark without a gap"),
        head("Drop", first="ascending", about="in-domain reference minus target, percentage points"),
        head(selected.short, about=selected.about),
        head("Release", about=theirs) if "release" in has else "",
        head("Difference", first="ascending", about=above) if "release" in has else "",
        head("Last", about="the end of training") if "last" in has else "",
        head("Oracle", about=oracle) if "oracle" in has else "",
        head("Worst domain") if "worst" in has else "",
        head("OA", about="overall accuracy"), head("Mean F1"), head("Kappa"),
        head("Trainable", first="ascending", about="trainable parameters"),
        head("Time", first="ascending", about="seconds of a run"),
        head("Memory", first="ascending", about="peak, MB"),
        head("Variants", first="ascending", about=variants) if "variants" in has else "",
        '<th scope="col">Seeds</th>' if "seeds" in has else "",
    ])  # fmt: skip


@_markup
def result_cells(
    entry: Fields, scale: Scale, has: Set[str], floor: float | None, best: bool, name: Callable[[str], str]
) -> str:
    """The cells below ``result_heads``; ``name`` gives a domain's name for people."""
    drop, worst, memory = entry["drop"], entry["worst_miou"], entry["peak_memory_mb"]
    ends = f'<small class="ci">{signed(entry["drop_low"])} to {signed(entry["drop_high"])}</small>'
    reach = "" if entry["drop_low"] is None else ends
    domain = f"<small>{_text(name(entry['worst_domain']))}</small>" if entry["worst_domain"] else ""
    kappa, variants = entry["kappa"], entry["variants"]
    return "".join([
        score(entry, best, 2),
        f'<td class="plot">{bar(entry["miou"], entry["low"], entry["high"], scale, floor)}</td>',
        number(entry["in_domain"], percent(entry["in_domain"])),
        _exact(drop, f"{signed(drop)}{reach}"),
        number(entry["validation"], percent(entry["validation"])),
        release(entry) if "release" in has else "",
        number(entry["last"], percent(entry["last"])) if "last" in has else "",
        number(entry["oracle"], percent(entry["oracle"])) if "oracle" in has else "",
        _exact(worst, f"{percent(worst)}{domain}") if "worst" in has else "",
        number(entry["oa"], percent(entry["oa"])),
        number(entry["mean_f1"], percent(entry["mean_f1"])),
        number(kappa, NOTHING if kappa is None else f"{kappa:.3f}"),
        number(entry["trainable"], count(entry["trainable"])),
        number(entry["seconds"], seconds(entry["seconds"])),
        number(memory, NOTHING if memory is None else f"{memory:.0f}"),
        number(variants, NOTHING if variants is None else variants) if "variants" in has else "",
        f"<td>{_text(entry['seeds'] or NOTHING)}</td>" if "seeds" in has else "",
    ])  # fmt: skip


@_markup
def tuned(row: Fields) -> str:
    """The mark of a row whose configuration a search has chosen."""
    why = "chosen by a search on source validation, of so many draws"
    return f'<abbr class="tuned" title="{why}">{_text(row["tuned"])}</abbr>'


@_markup
def backbone(row: Fields) -> str:
    """The cell of a row's backbone."""
    random = "<small>random weights</small>" if row["pretrained"] == "none" else ""
    return f"<td>{_text(row['backbone'] or NOTHING)}{random}</td>"


@_markup
def row_head(row: Fields, home: str, with_backbone: bool = False) -> str:
    """Name and marks of a row; ``home`` leads from the page to the folder of the track."""
    page = row.get("page", "") if row["is_floor"] else f"{row['page_file']}#r-{row['slug']}"
    text = _text(row["method"])
    link = f'<a href="{home}methods/{page}">{text}</a>' if page else text
    search = f" {tuned(row)}" if row["tuned"] else ""
    late = "trained until source validation stops gaining, and out of steps before it did"
    star = f' <abbr class="unconverged" title="{late}">{_text(row["unconverged"])}</abbr>' if row["unconverged"] else ""
    parts = [backbone_text(row) if with_backbone and row["backbone"] else "", row["variant"]]
    said = ", ".join(part for part in parts if part)
    variant = f'<small class="variant">{_text(said)}</small>' if said else ""
    return f'<th scope="row">{link}{search}{star}{variant}</th>'
