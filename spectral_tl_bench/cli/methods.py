"""The verbs ``stbench methods``: list, show, probe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_tl_bench.cli.run_options import DataRoot, TrustData
from spectral_tl_bench.console import backbone_sizes, print_folded, print_rows, read_values, say, say_broken
from spectral_tl_bench.defaults import DEFAULT_BACKBONE
from spectral_tl_bench.plugins import is_ours, package_of

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from spectral_tl_bench.inspect.describe import Description, Source
    from spectral_tl_bench.methods.listing import Listing

methods_app = typer.Typer(help="List the methods, show one, or look into one.", rich_markup_mode=None)

MethodName = Annotated[str, typer.Argument(metavar="METHOD", help="Method, or method@preset.")]
Options = Annotated[list[str] | None, typer.Option("--option", "-o", help="Method option, as name=value.")]
Sizes = Annotated[
    list[str] | None, typer.Option(help="Size of the backbone, as name=number: width, depth, heads, patch.")
]


PatchEmbedding = Annotated[
    str | None, typer.Option(help="How pretrained filters become those of other bands. See `stbench backbones show`.")
]


@methods_app.callback(invoke_without_command=True)
def list_methods(context: typer.Context) -> None:
    """List the installed methods and objectives: what they are, and whose."""
    if context.invoked_subcommand is not None:
        return
    from spectral_tl_bench.methods import listing, registry
    from spectral_tl_bench.objectives import registry as objectives
    from spectral_tl_bench.plugins import listed

    usable, broken = listed(registry.GROUP, registry.load_method)
    methods = {name: listing.listing_of(entry) for name, entry in usable.items()}
    rows = [
        (name, one.family, one.year, _what(one, usable[name]), one.reference or "-") for name, one in methods.items()
    ]
    print_folded([("method", "family", "year", "what it is", "source"), *rows])
    say_broken("method", broken)
    say("")
    presets = [f"{name}{registry.SEPARATOR}{preset}" for name, one in methods.items() for preset in one.presets]
    if presets:
        say("presets, each a method with options: " + ", ".join(presets))
    families = sorted({one.family for one in methods.values()} - {""})
    say("several at once: -m all, " + ", ".join(f"-m {listing.FAMILY}{family}" for family in families))
    say("more about one: stbench methods show lora")
    say("")
    usable, broken = listed(objectives.GROUP, objectives.load_objective)
    known = {name: listing.listing_of(entry) for name, entry in usable.items()}
    table = [(f"+{name}", one.year, _what(one, usable[name]), one.reference or "-") for name, one in known.items()]
    print_folded([("objective", "year", "what it does", "source"), *table])
    say_broken("objective", broken)
    say("")
    say("an objective is added to any method: lora+groupdro, spectralx@hypert+vrex+swad")


def _what(listing: Listing, entry: EntryPoint) -> str:
    """The summary, and the package where it is not this one."""
    return listing.summary if is_ours(entry) else f"{listing.summary} (of {' '.join(package_of(entry))})".strip()


@methods_app.command("show")
def show_method(
    method: MethodName,
    backbone: Annotated[str, typer.Option(help="Backbone.")] = "vit-large",
    backbone_size: Sizes = None,
    bands: Annotated[int, typer.Option(min=1, help="Image channels.")] = 13,
    classes: Annotated[int, typer.Option(min=1, help="Number of classes.")] = 9,
    window: Annotated[
        int | None,
        typer.Option(min=1, help="Side of windows in pixels; default: 224, or a multiple of the patch below."),
    ] = None,
    option: Options = None,
    weights: Annotated[
        str, typer.Option(help="Pretrained weights: hub, hub:NAME, a file, or none, which suffices for counting.")
    ] = "none",
    patch_embedding: PatchEmbedding = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show one method: options, stages, and its parameters part by part."""
    options, sizes = read_values(option or [], "--option"), backbone_sizes(backbone_size or [])
    from spectral_tl_bench.methods.registry import check_known
    from spectral_tl_bench.models.backbones import get_backbone

    check_known([method])
    spec = get_backbone(backbone, weights, patch_embedding, None, **sizes)
    from spectral_tl_bench.inspect.describe import describe
    from spectral_tl_bench.protocol.strict import STRICT

    budgets = {name: budget for name, (budget, _) in STRICT.budgets.items()}
    description = describe(method, options, spec, budgets, bands=bands, classes=classes, window=window)
    if as_json:
        say(json.dumps(description.as_json(), indent=2))
    else:
        _print_description(description)
        _print_objectives(method)


def _print_description(description: Description) -> None:
    spec = description.backbone
    say(f"{description.method}  {description.summary}")
    say(f"family    {description.family}")
    if description.reference:
        say(f"reference {description.reference}")
    _print_source(description.source)
    say(f"optimiser {_optimiser(description)}")
    if any(not stage.closed_form for stage in description.stages):
        say(f"recipe    {description.recipe.words}")
    say(f"package   {' '.join(description.package)}")
    say(f"backbone  {spec.name}: width {spec.width}, depth {spec.depth}, heads {spec.heads}, patch {spec.patch} px")
    say(f"counted   for {description.bands} bands, {description.classes} classes, windows of {description.window} px")
    if description.presets:
        say("")
        say("presets")
        for name, values in description.presets.items():
            say(f"  {name}: " + (", ".join(f"{key}={value}" for key, value in values.items()) or "the defaults"))
    if description.options:
        say("")
        rows = [("option", "type", "default", "here", "")]
        for option in description.options:
            setting = option.value if option.value != option.default else ""
            rows.append((option.name, option.type, option.default, setting, option.description))
        print_rows(rows)
        for name, values in description.chosen.items():
            by_budget = ", ".join(f"{value} ({budget})" for budget, value in values.items())
            say(f"{name} on this backbone: {by_budget}; counted is the first")
    say("")
    budgets = list(description.stages[0].steps) if description.stages else []
    table = [("stage", "labels", *(f"steps ({budget})" for budget in budgets), "trainable parameters")]
    for stage in description.stages:
        steps = ("closed form" if stage.closed_form else f"{stage.steps[budget]:,}" for budget in budgets)
        table.append((stage.name, "yes" if stage.labelled else "no", *steps, f"{stage.trainable:,}"))
    print_rows(table, right=range(2, len(table[0])))
    say("")
    _print_parts(description)


def _print_source(source: Source) -> None:
    for title, text in (("code", source.code), ("acts", source.places), ("starts", source.starts)):
        if text:
            say(f"{title:9} {text}")
    for number, sentence in enumerate(source.differs):
        say(f"{'' if number else 'differs':9} {sentence}")


def _optimiser(description: Description) -> str:
    own = {stage.name: stage.learning_rate for stage in description.stages if stage.learning_rate}
    if description.stages and all(stage.closed_form for stage in description.stages):
        return "none, the stage is in closed form"
    text = "the suite's: AdamW, betas 0.9 and 0.95, learning rate and schedule of the run"
    return text + "".join(f"; learning rate {rate:g} in stage {name}" for name, rate in own.items())


def _print_objectives(name: str) -> None:
    from spectral_tl_bench.inspect.describe import Source
    from spectral_tl_bench.objectives.registry import make_objectives

    for key, objective in make_objectives(name).items():
        kind = type(objective)
        say("")
        say(f"+{key}  {(kind.__doc__ or '').strip().partition(chr(10))[0]}")
        say(f"reference {kind.reference}")
        _print_source(Source.of(kind))
        if kind.model_fields:
            rows = [("option (-O)", "default", "")]
            rows += [
                (f"{key}.{option}", str(field.default), field.description or "")
                for option, field in kind.model_fields.items()
            ]
            print_rows(rows)


def _print_parts(description: Description) -> None:
    sums, so_far = description.sums, 0
    stages = [stage.name for stage in description.stages]
    rows = [("part", "trainable", "frozen", "total", "so far", "trained in")]
    for part in description.parts:
        so_far += part.published
        within = "every stage" if len(part.stages) == len(stages) > 1 else ", ".join(part.stages)
        rows.append(
            (part.name, f"{part.trainable:,}", f"{part.frozen:,}", f"{part.total:,}",
             f"{so_far:,}" if part.published else "", within or "-")
        )  # fmt: skip
    rows.append(
        ("sum", f"{sums['trainable']:,}", f"{sums['total'] - sums['trainable']:,}", f"{sums['total']:,}", "", "")
    )
    print_rows(rows, right=range(1, 5))
    decoders = [part.name for part in description.parts if part.kind == "decoder"]
    uncounted = [part.name for part in description.parts if not part.counted and part.kind != "decoder"]
    if decoders:
        say(f"trainable in {', '.join(decoders)}: {sums['trainable_decoders']:,}")
        say(f"trainable without {', '.join(decoders)}: {sums['trainable_without_decoders']:,}")
    if uncounted:
        left_out = ", ".join([*uncounted, *decoders])
        say(f"trainable as published, which counts neither of {left_out}: {sums['trainable_published']:,}")
    for part in description.parts:
        if part.whole and 0 < part.trainable < part.total:
            say(f"of {part.name}, as published, {part.total - part.trainable:,} parameters cannot have a gradient here")


@methods_app.command("probe")
def probe_method(
    method: MethodName,
    backbone: Annotated[str, typer.Option(help="Backbone.")] = DEFAULT_BACKBONE,
    backbone_size: Sizes = None,
    benchmark: Annotated[
        str | None, typer.Option("--benchmark", "-b", help="Benchmark id or YAML file; none: random images.")
    ] = None,
    data_root: DataRoot = None,
    trust_data: TrustData = False,
    chips: Annotated[int, typer.Option(min=2, help="Number of images.")] = 16,
    bands: Annotated[int, typer.Option(min=1, help="Channels of random images.")] = 13,
    window: Annotated[int | None, typer.Option(min=8, help="Side of the images in pixels.")] = None,
    seed: Annotated[int, typer.Option("--seed", "-s", min=0, help="Seed of the weights.")] = 0,
    weights: Annotated[
        Path | None, typer.Option(help="selected.safetensors of a record, whose settings then hold.")
    ] = None,
    option: Options = None,
    backbone_weights: Annotated[
        str | None, typer.Option(help="Pretrained weights of the backbone: hub, hub:NAME, a file, or none.")
    ] = None,
    patch_embedding: PatchEmbedding = None,
) -> None:
    """Report how much of the tokens depends on the image, part by part."""
    options, sizes = read_values(option or [], "--option"), backbone_sizes(backbone_size or [])
    from spectral_tl_bench.methods.registry import check_known
    from spectral_tl_bench.models.backbones import get_backbone

    check_known([method])
    # With --weights the record says which backbone it is; a file given beside it need not suit this one.
    spec = get_backbone(
        backbone, None if weights else backbone_weights, patch_embedding, None, **({} if weights else sizes)
    )
    from spectral_tl_bench.inspect.probe import ProbeRequest, run_probe

    report = run_probe(
        ProbeRequest(
            method,
            options,
            spec,
            benchmark=benchmark,
            data_root=data_root,
            trust_data=trust_data,
            chips=chips,
            bands=bands,
            window=window,
            seed=seed,
            weights=weights,
            backbone_file=Path(backbone_weights) if weights and backbone_weights else None,
        )
    )
    for line in report.about:
        say(line)
    say("")
    rows = [("tokens", "depends on the image", "variance", "")]
    rows += [(share.name, share.percent, f"{share.variance:.3g}", share.verdict) for share in report.shares]
    print_rows(rows, right=(1, 2))
    say("")
    say("share of the tokens' variance that depends on the image; blind: below 1 %")
