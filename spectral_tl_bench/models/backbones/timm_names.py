"""Any network of timm as a backbone, under timm's own name."""

from __future__ import annotations

import difflib

import timm
from timm.models import get_pretrained_cfg

from spectral_tl_bench.errors import UserError, nearest
from spectral_tl_bench.models.backbones.backbone import Backbone
from spectral_tl_bench.models.backbones.entries import make_by_name
from spectral_tl_bench.models.backbones.networks import look_up
from spectral_tl_bench.models.backbones.spec import IMAGENET_PIXELS, Card, Hub


def timm_backbone(name: str) -> Backbone:
    """The backbone for a name of timm, with or without a tag: ``vit_base_patch16_224.augreg_in21k``.

    Raises:
        UserError: If timm has no such network, or it has neither equal maps nor maps at strides of 4 to 32 pixels.
    """
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.6)
        raise UserError(
            f"timm {timm.__version__} has no network {architecture!r}",
            expected=f"did you mean {' or '.join(close)}?" if close else "a name of timm.list_models()",
        )
    fields = look_up(architecture)
    tags = [model.partition(".")[2] for model in timm.list_models(f"{architecture}.*", pretrained=True)]
    if tag and tag not in tags:
        raise UserError(
            f"timm {timm.__version__} has no weights {tag!r} for {architecture}",
            expected=nearest(tag, tags) if tags else "none, it has no weights for it",
            fix=f"--backbone timm:{architecture}",
        )
    config = get_pretrained_cfg(name)
    card = Card(
        data=f"timm's {config.tag or 'default'} weights" if config else "no weights in timm",
        normalisation=f"mean {config.mean}, std {config.std}" if config else "none",
        pixels=(config.mean, config.std) if config and len(config.mean) == 3 else IMAGENET_PIXELS,
        image_size=int(config.input_size[-1]) if config else 224,
        licence=(config.license if config else None) or "see timm",
        source=f"https://huggingface.co/{config.hf_hub_id}" if config and config.hf_hub_id else "",
        citation="timm, https://github.com/huggingface/pytorch-image-models",
        how="--weights hub (timm), or --weights FILE",
    )
    return Backbone(
        f"timm:{name}", make=make_by_name, architecture=architecture, card=card,
        published_norm="final" if "dinov2" in architecture or "dinov3_" in f"{architecture}_" else "none",
        hub=Hub("timm", architecture, tag), named_weights=True, tag=f"timm:{name}", **fields,
    )  # fmt: skip
