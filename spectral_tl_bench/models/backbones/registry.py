"""Backbones by name, found through entry points: ours and anybody's in the same way; and timm's by theirs."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Any, cast, get_args

from spectral_tl_bench.errors import UserError, nearest
from spectral_tl_bench.models.backbones.backbone import Backbone
from spectral_tl_bench.models.backbones.input_scale import AUTO
from spectral_tl_bench.models.backbones.spec import SIZES, BackboneSpec, InputNorm, LevelNorm
from spectral_tl_bench.models.patch_embedding import COMPOSITES, OWN, RGB, STRATEGIES, check_strategy
from spectral_tl_bench.plugins import imported, installed, offered

GROUP = "spectral_tl_bench.backbones"

TIMM = "timm:"
"""In front of the name of any network of timm."""


def backbone_entries() -> dict[str, EntryPoint]:
    """All installed backbones by name; nothing is imported."""
    return installed(GROUP)


def check_backbone_known(name: str) -> None:
    """Refuse a name that no installed package offers; nothing is imported, and timm's names are not looked up.

    Raises:
        UserError: If it is unknown; the closest ones are named.
    """
    if not name.startswith(TIMM):
        known = f"{nearest(name, backbone_entries())} (or {TIMM}NAME for a network of timm)"
        offered(name, GROUP, "backbone", UserError, expected=known)


def load_backbone(name: str) -> Backbone:
    """A backbone as its package declares it, before any choice of sizes or weights.

    Raises:
        UserError: If the name is unknown, or its package cannot be imported or holds no ``Backbone``.
    """
    check_backbone_known(name)
    if name.startswith(TIMM):
        from spectral_tl_bench.models.backbones.timm_names import timm_backbone

        return timm_backbone(name.removeprefix(TIMM))
    entry = backbone_entries()[name]
    backbone = imported(entry, f"backbone {name!r}", UserError)
    if not isinstance(backbone, Backbone):
        raise UserError(f"backbone {name!r} is not a spectral_tl_bench.models.backbones.Backbone", where=entry.value)
    return replace(backbone, name=name)


def get_backbone(
    name: str, /, weights: str | None = None, patch_embedding: str | None = None, level_norm: str | None = None,
    **sizes: Any,
) -> Backbone:  # fmt: skip
    """A backbone by name, with weights, and with any of its sizes changed.

    Args:
        name: Name of an entry point, or ``timm:NAME``.
        weights: ``hub``, ``hub:NAME``, ``bundled``, the path of a file, or ``none`` for a random start. By default the
            bundled ones where there are any, else random; a backbone that is named after a pretraining has no default.
        patch_embedding: How the layer that reads the bands comes from the weights; by default ``wavelength`` with
            weights and ``random`` without.
        level_norm: ``none``, ``final`` or ``plain``; by default, as ``auto``, what the backbone's authors do.
        **sizes: ``width``, ``depth``, ``heads``, ``patch``: whole numbers above 0.

    Raises:
        UserError: If the name, a size or the patch embedding is unknown or impossible, or the weights cannot be had.
    """
    spec = _with_sizes(load_backbone(name), sizes)
    if weights is None:
        weights = "bundled" if spec.bundled else "none"
        if spec.named_weights:
            raise UserError(
                f"which weights for {name}? It stands for a pretraining, so there is no default",
                expected=spec.card.how,
                fix="--weights FILE, --weights hub where a library has them, or --weights none for a random start",
            )
    spec = replace(spec, patch_embedding=_strategy(spec, patch_embedding, weights != "none"))
    spec = replace(spec, level_norm=_level_norm(spec, level_norm))
    if weights == "none":
        return spec
    from spectral_tl_bench.models.backbones.choose import with_weights

    return with_weights(spec, weights)


def _strategy(spec: Backbone, chosen: str | None, pretrained: bool) -> str:
    own = spec.own_embeddings
    if chosen is None:
        return own[0] if own else (spec.pretrained_embedding if pretrained else "random")
    check_strategy(chosen)
    if chosen not in (own or STRATEGIES.keys() - set(OWN)):
        others = ", ".join(name for name in STRATEGIES if name not in OWN)
        raise UserError(
            f"backbone {spec.name} cannot have the patch embedding {chosen!r}",
            expected=f"{' or '.join(own)}, its own" if own else f"one of {others}",
            fix="leave out --patch-embedding, or choose another backbone",
        )
    if chosen == COMPOSITES and len(spec.card.bands) != len(RGB):
        raise UserError(
            f"patch embedding {COMPOSITES!r} reads bands as red, green and blue, and the weights of {spec.name} read "
            f"{len(spec.card.bands)} others",
            fix="choose a backbone that was trained on RGB images, or another --patch-embedding",
        )
    return chosen


def _level_norm(spec: Backbone, chosen: str | None) -> LevelNorm:
    norm = spec.published_norm if chosen in (None, AUTO) else check_level_norm(chosen)
    if norm == "final" and spec.kind == "pyramid":
        raise UserError(
            f"backbone {spec.name} has no last norm that all of its maps could pass", fix="--level-norm plain, or none"
        )
    return norm


def check_level_norm(name: str) -> LevelNorm:
    """The name, if levels can be normalised so.

    Raises:
        UserError: If they cannot.
    """
    known = get_args(LevelNorm)
    if name not in known:
        raise UserError(f"there is no level norm {name!r}", expected=nearest(name, (AUTO, *known)))
    return cast(LevelNorm, name)


def check_input_norm(name: str) -> InputNorm:
    """The name, if input can be normalised so.

    Raises:
        UserError: If it cannot.
    """
    known = get_args(InputNorm)
    if name not in known:
        raise UserError(f"there is no input norm {name!r}", expected=nearest(name, known))
    return cast(InputNorm, name)


def check_pictures(spec: BackboneSpec) -> None:
    """Refuse a stretch of reflectances before weights that were not trained on red, green and blue.

    Raises:
        UserError: If they were not.
    """
    if len(spec.card.bands) != len(RGB):
        raise UserError(
            f"input norm 'reflectance' makes pictures of red, green and blue, and {spec.name} was not trained on such",
            expected=f"{spec.name} expects: {spec.card.normalisation}",
            fix="--input-norm source or window, or a backbone that was trained on RGB images",
        )


def _with_sizes(spec: Backbone, sizes: dict[str, Any]) -> Backbone:
    for key, value in sizes.items():
        if key not in spec.sizes:
            known = nearest(key, spec.sizes) if spec.sizes else "none can be changed"
            raise UserError(f"backbone {spec.name} has no size {key!r}", expected=known)
        if not isinstance(value, int) or value < 1:
            raise UserError(f"backbone size {key} is {value!r}", expected="a whole number above 0")
    trained = spec.patch if sizes.get("patch", spec.patch) != spec.patch else None
    spec = replace(spec, trained_patch=trained, **{key: value for key, value in sizes.items() if key in SIZES})
    if spec.heads and spec.width % spec.heads:
        raise UserError(
            f"width {spec.width} of backbone {spec.name} is not divisible by its {spec.heads} heads",
            fix="change one of the two",
        )
    return spec
