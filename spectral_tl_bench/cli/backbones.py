"""The verbs ``stbench backbones``: list, show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from spectral_tl_bench.console import print_rows, say, say_broken
from spectral_tl_bench.errors import UserError

if TYPE_CHECKING:
    from spectral_tl_bench.models.backbones import Backbone

backbones_app = typer.Typer(help="List the backbones, or show one.", rich_markup_mode=None)

NORMALISED = "the suite normalises by the source's statistics instead, for every method; --input-norm changes that"

WINDOW = 128
"""Side in pixels of the window for which tokens are counted, or of the nearest one below that suits."""

GROUNDS = (10.0, 30.0, 60.0)
"""Ground sampling distances in metres for which the rule of --input-scale is shown."""

COUNTED_BANDS = (0.665, 0.560, 0.490)
"""Wavelengths of the bands for which parameters are counted: pretrained models mostly have these."""


@backbones_app.callback(invoke_without_command=True)
def list_backbones(
    context: typer.Context,
    count: Annotated[
        bool, typer.Option("--count/--no-count", help="Count the parameters, which takes some seconds.")
    ] = True,
) -> None:
    """List the backbones: size, pretraining, bands, licence, and how to get the weights."""
    if context.invoked_subcommand is not None:
        return
    from spectral_tl_bench.models.backbones import load_backbone
    from spectral_tl_bench.models.backbones.registry import GROUP
    from spectral_tl_bench.plugins import listed

    rows = [("backbone", "parameters", "kind", "patch", "bands", "pretraining", "licence", "weights")]
    notes = []
    usable, broken = listed(GROUP, load_backbone)
    for name in usable:
        try:
            spec = load_backbone(name)
            parameters = _counted(spec) if count else "-"
        except UserError as error:
            notes.append(f"{name} cannot be used here: {error.what}; {error.fix or ''}".rstrip("; "))
            rows.append((name, "-", "-", "-", "-", "-", "-", "-"))
            continue
        bands = str(len(spec.card.bands)) if spec.card.bands else "any"
        patch = f"{spec.patch} px"
        rows.append(
            (name, parameters, spec.kind, patch, bands, _short(spec.card.data), spec.card.licence, _weights(spec))
        )
    print_rows(rows, right=(1,))
    say_broken("backbone", broken)
    say("")
    for note in notes:
        say(note)
    say(
        f"parameters: for {len(COUNTED_BANDS)} bands, or its own where it reads them in groups, at the image size of "
        "the pretraining, without head"
    )
    say("timm:NAME is any vision transformer or four-level network of timm")
    say("stbench backbones show NAME tells more")


@backbones_app.command("show")
def show_backbone(name: Annotated[str, typer.Argument(help="Name of a backbone, or timm:NAME.")]) -> None:
    """Show one backbone: sizes, pretraining, what its weights expect, licence, citation, where to get them."""
    from spectral_tl_bench.models.backbones import backbone_entries, load_backbone
    from spectral_tl_bench.models.patch_embedding import OWN, STRATEGIES

    spec = load_backbone(name)
    card, entry = spec.card, backbone_entries().get(name)
    say(f"{spec.name}  {_counted(spec)} parameters for {len(_counted_bands(spec))} bands")
    if entry is not None and entry.dist is not None:
        say(f"package       {entry.dist.name} {entry.dist.version}")
    if spec.kind == "vit":
        say(f"sizes         width {spec.width}, depth {spec.depth}, heads {spec.heads}, patch {spec.patch} px")
        say(f"features      after blocks {', '.join(map(str, spec.levels))} (0-based), all of one size")
    else:
        widths = ", ".join(map(str, spec.widths))
        say(f"features      four maps of {widths} channels, at strides of 4, 8, 16, 32 px")
    say(f"window        a multiple of {spec.patch} px; trained on {card.image_size} px")
    say(f"changeable    {', '.join(spec.sizes) or 'no size'} (--backbone-size)")
    say(f"pretraining   {card.data}")
    wavelengths = ", ".join(f"{value:g}" for value in card.bands)
    known = f"{len(card.bands)} at {wavelengths} um" if card.bands else ""
    bands = "; ".join(part for part in (known, card.reading) if part)
    say(f"bands         {bands or 'any, told by their wavelengths'}")
    say(f"normalisation {card.normalisation} ({NORMALISED})")
    say(f"licence       {card.licence}")
    say(f"source        {card.source or '-'}")
    say(f"cite          {card.citation or '-'}")
    say(f"weights       {_weights(spec)}")
    if card.how:
        say(f"to get them   {card.how}")
    say(f"level norm    {spec.published_norm} by default, as its authors do for dense tasks (--level-norm)")
    say("images enlarged before it (--input-scale, by default until a token covers 160 m at most)")
    print_rows(_scales(spec), right=(0, 1, 2, 3, 4))
    names = spec.own_embeddings or [strategy for strategy in STRATEGIES if strategy not in OWN]
    say("patch embedding (--patch-embedding)")
    for strategy in names:
        say(f"  {strategy}: {STRATEGIES[strategy]}")


def _scales(spec: Backbone) -> list[tuple[str, ...]]:
    """What the rule gives on some grounds, and its cost."""
    from spectral_tl_bench.models.backbones.input_scale import chosen_scale, cost_factor

    rows: list[tuple[str, ...]] = [("ground", "scale", "token", "tokens", "operations")]
    for gsd in GROUNDS:
        here = chosen_scale(spec, None, gsd)
        side = max(1, WINDOW // here.token)
        tokens = f"{side} x {side} in {side * here.token} px"
        cost = f"x {cost_factor(here, WINDOW):.3g}"
        rows.append((f"{gsd:g} m", f"{here.input_scale:g}", f"{here.token} px", tokens, cost))
    return rows


def _counted_bands(spec: Backbone) -> tuple[float, ...]:
    """Those for which parameters are counted: its own where their number counts."""
    return spec.card.bands if spec.embeddings else COUNTED_BANDS


def _counted(spec: Backbone) -> str:
    import torch

    side = max(1, spec.card.image_size // spec.patch) * spec.patch
    with torch.device("meta"):
        bands = _counted_bands(spec)
        network = spec.for_sensor(bands, None).build(len(bands), side)
    return f"{sum(parameter.numel() for parameter in network.parameters()):,}"


def _weights(spec: Backbone) -> str:
    choices = [name for name, there in (("bundled", spec.bundled), ("hub", spec.hub)) if there]
    default = "bundled" if spec.bundled else ("must be chosen" if spec.named_weights else "none")
    return f"{', '.join([*choices, 'FILE', 'none'])} (default: {default})"


def _short(text: str, most: int = 48) -> str:
    return text if len(text) <= most else text[: most - 3].rstrip(" ,;") + "..."
