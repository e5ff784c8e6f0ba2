"""The plan of a published table: the cells that the paper prints, as a file that ``stbench run --plan`` takes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
import yaml

from spectral_tl_bench.leaderboard.published import (
    ABOUT_BACKBONES,
    ABOUT_IN_DOMAIN,
    IN_DOMAIN,
    Method,
    Row,
    rows_of,
    runnable,
    why_not,
)
from spectral_tl_bench.methods.registry import load_method, preset_options
from spectral_tl_bench.models.backbones import backbone_entries, load_backbone

MINIATURE_SIZES = {"width": 48, "depth": 4, "heads": 3}
MINIATURE_SETTINGS = {"steps": 2, "pretrain_steps": 1, "batch_size": 2, "validations": 1}


def published_plan(
    reported: pd.DataFrame, table: str, *, weights: str | None = None, seeds: Sequence[int] = (0,),
    as_published: bool = False, miniature: bool = False,
) -> str:  # fmt: skip
    """The text of the plan, as ``runner.plan_file`` reads it.

    Args:
        reported: As ``reported.read_reported`` gives it; the cells are those with a printed mIoU.
        table: ``I``, ``IV``, ``V`` or ``VI``.
        weights: For every backbone; by default ``hub`` where a library has them, else a path to put them at.
        seeds: Of every cell.
        as_published: Whether to validate on the target, as the release does.
        miniature: Small backbones with random weights and few steps, for a try of every family on the sample.

    Raises:
        UserError: If there is no such table.
    """
    rows = rows_of(reported, table)
    protocol = {"as_published": True} if as_published else {"protocol": "published"}
    defaults: dict[str, Any] = {**protocol, "seeds": list(seeds)}
    if miniature:
        defaults |= {"weights": "none", "settings": MINIATURE_SETTINGS}
    lines = [*_comment(_about(rows, miniature)), "", _yaml({"defaults": defaults}).rstrip(), "blocks:"]
    for backbone, group in _by_backbone(rows):
        found = load_backbone(backbone) if backbone in backbone_entries() else None
        about = [row.title for row, _ in group] + [ABOUT_BACKBONES.get(backbone, "")]
        about.append("" if found else f"backbone {backbone} is not known to this installation: `stbench backbones`")
        about.append(f"weights of {backbone}: {found.card.how}" if found and not (miniature or weights) else "")
        of_backbone: dict[str, Any] = {}
        if miniature and found:
            of_backbone["backbone_sizes"] = {k: v for k, v in MINIATURE_SIZES.items() if k in found.sizes}
        elif not miniature:
            of_backbone["weights"] = weights or ("hub" if found and found.hub else f"weights/{backbone}.pth")
        for number, block in enumerate(_blocks(group)):
            lines += _comment(about if number == 0 else [], "  ")
            lines.append(textwrap.indent(_yaml([{**block, "backbones": [backbone], **of_backbone}]).rstrip(), "  "))
    left_out = [f"{row.title}: {why_not(row)}" for row in rows if row.method is None or not row.backbone]
    if left_out:
        lines += ["", *_comment(["Printed in the table, and not in this plan:", *left_out])]
    return "\n".join(lines) + "\n"


def _about(rows: list[Row], miniature: bool) -> list[str]:
    count = sum(len(row.benchmarks) for row, _ in runnable(rows))
    about = [
        f"{rows[0].table} of the SpectralX paper (ISPRS J. 239, 2026): {count} cells that it prints an mIoU of, by its "
        "settings. Afterwards `stbench report` puts measured beside printed; docs/published.md tells more."
    ]
    if any(name.endswith(IN_DOMAIN) for row in rows for name in row.benchmarks):
        about.append(f"Benchmarks in {IN_DOMAIN}: {ABOUT_IN_DOMAIN}.")
    if miniature:
        about.append(
            "Miniature: backbones of a few blocks with random weights and two steps. Without --data-root it runs on "
            "the synthetic sample. It shows that the cells run; its numbers say nothing about the paper's."
        )
    return about


def _by_backbone(rows: list[Row]) -> Iterator[tuple[str, list[tuple[Row, Method]]]]:
    groups: dict[str, list[tuple[Row, Method]]] = {}
    for row, method in runnable(rows):
        groups.setdefault(row.backbone, []).append((row, method))
    yield from groups.items()


def _blocks(group: list[tuple[Row, Method]]) -> list[dict[str, Any]]:
    """Methods with the same benchmarks and options in one block."""
    blocks: list[dict[str, Any]] = []
    for row, method in group:
        preset = preset_options(load_method(method.like), method.like) if method.like else {}
        options = {**preset, **method.options}
        shared: dict[str, Any] = {"benchmarks": list(row.benchmarks), **({"options": options} if options else {})}
        for block in blocks:
            if {name: block.get(name) for name in ("benchmarks", "options")} == {"options": None, **shared}:
                block["methods"].append(method.name)
                break
        else:
            blocks.append({"methods": [method.name], **shared})
    return [{"name": group[0][0].table, **block} for block in blocks]


def _comment(texts: list[str], indent: str = "") -> list[str]:
    return [f"{indent}# {line}" for text in texts if text for line in textwrap.wrap(text, 105)]


def _yaml(content: Any) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None)
