"""What ``docs/backbones.md`` says of every backbone is what its card says.

``PYTHONPATH=tests python tests/models/test_backbones_page.py`` prints the table.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tiny import run_main

from spectral_tl_bench.models.backbones import Backbone, backbone_entries, load_backbone
from spectral_tl_bench.models.patch_embedding import SENTINEL2

DOCUMENT = Path(__file__).parents[2] / "docs" / "backbones.md"
SUITE = "spectral_tl_bench."
OURS = sorted(name for name, entry in backbone_entries().items() if entry.value.startswith(SUITE))

BANDS = dict(zip(SENTINEL2, ("1", "2", "3", "4", "5", "6", "7", "8", "8A", "9", "10", "11", "12"), strict=True))


def named(bands: tuple[float, ...]) -> str:
    """Bands in a few letters."""
    if not bands:
        return "any"
    if len(bands) == 3:
        return "red, green, blue"
    left_out = [BANDS[one] for one in SENTINEL2 if one not in bands]
    return f"{len(bands)} of Sentinel-2" + (f" (all but {', '.join(left_out)})" if left_out else "")


def loads(spec: Backbone) -> str:
    """What ``--weights`` takes beside none."""
    return ", ".join(name for name, there in (("bundled", spec.bundled), ("hub", spec.hub), ("file", True)) if there)


def row(spec: Backbone) -> tuple[str, ...]:
    card = spec.card
    licence = f"[{card.licence}]({card.source})" if card.source else card.licence
    return (
        card.data,
        named(card.bands),
        card.normalisation,
        f"{card.image_size} px",
        licence,
        loads(spec),
        card.citation,
    )


def table() -> str:
    """A line for all backbones of the same card; those without a pretraining are left out."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for name in OURS:
        spec = load_backbone(name)
        if spec.card.citation:
            rows.setdefault(row(spec), []).append(name)
    head = (
        "backbone",
        "pretraining",
        "bands",
        "pixels it was trained on",
        "images",
        "licence, source",
        "weights",
        "cite",
    )
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += [
        "| " + " | ".join((", ".join(f"`{name}`" for name in names), *rest)) + " |" for rest, names in rows.items()
    ]
    return "\n".join(lines)


def test_the_page_has_the_cards() -> None:
    assert table() in DOCUMENT.read_text(encoding="utf-8"), __doc__


@pytest.mark.parametrize("name", [name for name in OURS if load_backbone(name).named_weights])
def test_a_named_pretraining_says_where_it_is_from(name: str) -> None:
    card = load_backbone(name).card
    assert card.source.startswith("https://") and card.licence and card.citation and card.how
    assert card.normalisation != "none" and card.image_size >= 64


@pytest.mark.parametrize("name", ["dinov2-small", "copernicus-fm", "galileo-nano", "satmaepp-large", "swin-base"])
def test_the_command_says_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, ["backbones", "show", name]) == 0
    printed, card = capsys.readouterr().out, load_backbone(name).card
    for fact in (
        card.data,
        card.normalisation,
        card.licence,
        card.source,
        card.citation,
        card.how,
        f"{card.image_size} px",
    ):
        assert fact in printed


def test_facts_that_were_wrong_once() -> None:
    cards = {name: load_backbone(name).card for name in OURS}
    assert "mean (0.418, 0.421, 0.399), std (0.288, 0.275, 0.276)" in cards["satmaepp-large"].normalisation
    assert cards["satmaepp-large"].licence.startswith("Apache-2.0")
    assert cards["panopticon"].licence == "CC BY 4.0"
    swin = load_backbone("swin-base")
    assert swin.hub is not None and swin.hub.default == "ms_in22k_ft_in1k" and "22k" in swin.card.data


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
