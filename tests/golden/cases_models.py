"""Golden cases of networks: decoders, the layer that reads the bands, and every family of backbones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from bench import SIZES, WAVELENGTHS
from golden import Case, Numbers, families
from sketches import norms, shaken, sketch, without_dropout
from tiny import make_task

from spectral_tl_bench.models.backbones import Backbone, get_backbone
from spectral_tl_bench.models.backbones.input_scale import enlarged, scaled
from spectral_tl_bench.models.backbones.pyramid import stem_key
from spectral_tl_bench.models.decoders import DECODERS, build_decoder
from spectral_tl_bench.models.patch_embedding import (
    COMPOSITES,
    OWN,
    RGB,
    STRATEGIES,
    in_composites,
    mixed,
    mixing,
    resampled,
)
from spectral_tl_bench.models.segmenter import build_segmenter

Lines = Iterator[tuple[str, Numbers]]
OTHER = (0.443, 0.49, 0.56, 0.705, 0.865, 1.61, 2.19)
NARROW: dict[str, Any] = {"width": 48, "depth": 4, "heads": 4}

SMALL: dict[str, tuple[tuple[str, dict[str, int], int], ...]] = {
    "copernicus-fm": (("copernicus-fm", NARROW, 32),),
    "dinov2": (("dinov2-small", NARROW, 28),),
    "dofa": (("dofa-base", NARROW, 32),),
    "galileo": (("galileo-nano", NARROW, 32),),
    "hypersigma": (
        ("hypersigma-base", NARROW | {"depth": 8}, 32),
        ("hypersigma-base-global", NARROW, 32),
        ("hypersigma-base-fused", NARROW | {"depth": 8}, 32),
    ),
    "panopticon": (("panopticon", NARROW, 28),),
    "spectral-gpt": (("spectralgpt", NARROW, 32),),
    "scale-mae": (("scalemae-large", NARROW, 32),),
    "timm": (("dinov3-large-sat", NARROW | {"heads": 2}, 32), ("timm:resnet18", {}, 64)),
    "vit": (("compact", NARROW | {"patch": 8}, 32), ("ssl4eo-small", NARROW, 48)),
}
"""By family: a backbone, the sizes that make it small, and the side of the images."""

FIRST = ("linear", "fcn", "upernet", "fpn", "dpt")
"""Decoders of the first values; those of the others stand by themselves."""


def fixed_maps(generator: torch.Generator) -> tuple[tuple[str, list[torch.Tensor], tuple[int, int]], ...]:
    """Maps of one size, and of falling sizes, each with the size of an image."""
    equal = [torch.randn(2, 16, 6, 6, generator=generator) for _ in range(4)]
    falling = [torch.randn(2, 8 * 2**k, 16 >> k, 16 >> k, generator=generator) for k in range(4)]
    return ("equal", equal, (48, 48)), ("falling", falling, (61, 64))


def decoder() -> Lines:
    """Decoders on fixed maps: as they start, with noise on their weights, and their dropout in training."""
    generator = torch.Generator().manual_seed(4)
    shown = fixed_maps(generator)
    for kind in FIRST:
        for name, maps, size in shown:
            torch.manual_seed(1)
            module = build_decoder([one.shape[1] for one in maps], 3, kind=kind)
            yield f"{kind}, {name}: dropout", without_dropout(module.train())
            yield f"{kind}, {name}: start", sketch(module(maps, size))
            shaken(module)
            yield f"{kind}, {name}: logits", sketch(module.eval()(maps, size))
        with torch.device("meta"):
            wide = build_decoder(384, 3, kind=kind)
        yield f"{kind}: wide", [sum(parameter.numel() for parameter in wide.parameters())]
    torch.manual_seed(2)
    segmenter = build_segmenter(make_task(bands=4, window=32)).eval()
    yield "segmenter", sketch(segmenter(torch.randn(1, 4, 32, 32, generator=generator)))


def light_decoders() -> Lines:
    """Decoders that came later, and the pixel path beside one of them."""
    generator = torch.Generator().manual_seed(4)
    shown = fixed_maps(generator)
    for kind in sorted({*DECODERS, "light+pixels"} - {*FIRST}):
        for name, maps, size in shown:
            torch.manual_seed(1)
            module = build_decoder([one.shape[1] for one in maps], 3, kind=kind, bands=4)
            images = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(5))
            features = [*maps, images] if kind.endswith("+pixels") else maps
            yield f"{kind}, {name}: dropout", without_dropout(module.train())
            yield f"{kind}, {name}: start", sketch(module(features, size))
            shaken(module)
            yield f"{kind}, {name}: logits", sketch(module.eval()(features, size))
        with torch.device("meta"):
            wide = build_decoder(384, 3, kind=kind, bands=4)
        yield f"{kind}: wide", [sum(parameter.numel() for parameter in wide.parameters())]
    torch.manual_seed(2)
    segmenter = build_segmenter(make_task(bands=4, window=32), "linear+pixels", normed=True).eval()
    yield "segmenter", sketch(segmenter(torch.randn(1, 4, 32, 32, generator=generator)))


def patch_embedding() -> Lines:
    """The matrix of every strategy, and the layer that it makes, with random and with pretrained filters."""
    weight = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(6))
    strategies = [name for name in STRATEGIES if name not in ("random", COMPOSITES, *OWN)]
    for strategy in strategies:
        for name, bands, known in (("four", WAVELENGTHS, RGB), ("seven", OTHER, RGB), ("fewer", RGB[:2], OTHER)):
            yield f"{strategy}, {name}: matrix", sketch(mixing(strategy, bands, known))
        yield f"{strategy}: filters", sketch(mixed(weight, mixing(strategy, OTHER, RGB)))
    for strategy in [*strategies, "random"]:
        for name, sizes, weights in (("compact", SIZES, "none"), ("rgb-mini", {}, "bundled")):
            spec = replace(get_backbone(name, weights, strategy, **sizes), seed=2).for_sensor(OTHER, 10.0)
            network = spec.build(len(OTHER), 32)
            stem = [value for key, value in network.state_dict().items() if key.startswith("patch_embed.proj")]
            yield f"{name}, {strategy}: layer", [number for value in stem for number in sketch(value)]
    assert stem_key(network) == "patch_embed.proj.weight"


def backbone_reading() -> Lines:
    """What stands around a network: larger images, composites, other normalisations, and filters for other patches."""
    generator = torch.Generator().manual_seed(7)
    images, filters = torch.randn(2, 7, 32, 32, generator=generator), torch.randn(5, 3, 7, 7, generator=generator)
    yield "enlarged", sketch(enlarged(images, 4, 14))
    for side in (4, 9):
        yield f"filters of {side} px", sketch(resampled(filters, side))
    for name, bands in (("other", OTHER), ("dates", OTHER[:6] * 2), ("colours", RGB)):
        yield f"composites, {name}", [band for group in in_composites(bands) for band in group]
    usual = replace(get_backbone("compact", "none", "composites", "plain", **SIZES), seed=2)
    statistics = ((0.05, 0.06, 0.08, 0.1, 0.25, 0.3, 0.2), (0.02, 0.02, 0.03, 0.03, 0.08, 0.1, 0.1))
    for name, changes in {
        "alike": {}, "one pass": {"patch_embedding": "rgb"}, "last norm": {"level_norm": "final"},
        "windows": {"input_norm": "window"}, "pictures": {"input_norm": "reflectance", "statistics": statistics},
    }.items():  # fmt: skip
        spec = replace(scaled(usual, 2), **changes).for_sensor(OTHER, 30.0)  # type: ignore[arg-type]
        torch.manual_seed(3)
        module = build_segmenter(replace(make_task(bands=7, window=32), backbone=spec)).eval()
        shaken(module)
        with torch.no_grad():
            for level, one in enumerate(module.features(images)):
                yield f"{name}: level {level}", sketch(one)


def backbone(family: str) -> Lines:
    """The maps of a family's networks as they start and with noise on their weights."""
    for name, sizes, side in SMALL[family]:
        spec = replace(get_backbone(name, "none", **sizes), seed=3).for_sensor(WAVELENGTHS, 10.0)
        yield from maps_of(spec, name, side)


def maps_of(spec: Backbone, name: str, side: int) -> Lines:
    """Numbers of one network."""
    network = spec.build(len(WAVELENGTHS), side)
    yield f"{name}: dropout", without_dropout(network.train())
    yield f"{name}: weights", norms(dict(network.named_parameters()))
    images = torch.randn(2, len(WAVELENGTHS), side, side, generator=torch.Generator().manual_seed(5))
    trains = [parameter.numel() for parameter in network.parameters() if parameter.requires_grad]
    yield f"{name}: trainable", [len(trains), sum(trains)]
    network.eval()
    for when in ("start", "shaken"):
        if when == "shaken":
            shaken(network)
        with torch.no_grad():
            maps = network.forward_intermediates(  # type: ignore[operator]
                images, indices=list(spec.levels), norm=False, output_fmt="NCHW", intermediates_only=True
            )
        for level, one in enumerate(maps):
            yield f"{name}, {when}: level {level}", sketch(one)


CASES = [
    Case("decoder", decoder, ("decoder", "backbone vit")),
    Case("light decoders", light_decoders, ("decoder", "backbone vit")),
    Case("patch embedding", patch_embedding, ("patch embedding", "backbone vit")),
    Case("backbone reading", backbone_reading, ("backbone reading", "patch embedding", "backbone vit")),
    *(
        Case(f"backbone {family}", lambda family=family: backbone(family), (f"backbone {family}",))
        for family in families()
    ),
]  # fmt: skip
