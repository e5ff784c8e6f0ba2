"""What each stage trains, told from parameter names alone, so that it is known before a model exists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from spectralx.config import SpectralXConfig

StageName = Literal["reconstruct", "segment"]
STAGES = ("reconstruct", "segment")

BLOCK_NORMS = frozenset({"norm1", "norm2", "q_norm", "k_norm", "norm_pre"})
"""Names of the backbone's LayerNorms that every forward pass uses."""

UNUSED = frozenset({"attn_pool", "fc_norm", "head", "head_dist"})
"""Parts of a timm backbone that come after its tokens, which is all that is used of it."""

UNMATCHED = frozenset({"attend", "direct"})
"""Parts of the Are-adapter that hard matching gives no gradient: it takes the place of a maximum, not its value."""


DECODER_ADAPTERS = frozenset({"adapters", "embed_adapter", "predict_adapter"})
"""Parts of a pretrained reconstruction decoder that are trained."""

IMAGE_LAYERS = (
    "predict.", "proj_up_conv.", "proj_up_norm.", "up_block.", "fcn_high.pred.7.", "fcn_low.pred.7.",
)  # fmt: skip
"""Beginnings of names in a pretrained reconstruction decoder whose shape depends on the number of bands."""


def chooser(config: SpectralXConfig, stage: StageName | None = None) -> Callable[[str], bool]:
    """Tells of a parameter name of ``SpectralX`` whether it is trained.

    What a stage's forward pass does not use is never trained in it: the patch embedding that the hyper tokenizer
    replaces, a position table beside computed encodings; in stage 2 the last LayerNorm unless feature maps pass it, and
    blocks behind the levels. Of a pretrained reconstruction decoder, adapters train, and what had to be drawn.

    Args:
        stage: ``reconstruct`` (stage 1) or ``segment`` (stage 2); None for any that the model is built for.

    Returns:
        A function from names to truth.

    Raises:
        ValueError: If there is no such stage.
    """
    if stage is None:
        segment = chooser(config, "segment")
        if not config.reconstruction:
            return segment
        reconstruct = chooser(config, "reconstruct")
        return lambda name: reconstruct(name) or segment(name)
    if stage not in STAGES:
        raise ValueError(f"stage is {stage!r}, expected one of {STAGES}")
    parts = {"patch_path", "adapters"} | ({"reconstruction"} if stage == "reconstruct" else {"are_adapter", "decoder"})
    if config.train_hyper_tokenizer:
        parts.add("hyper_tokenizer")

    def choose(name: str) -> bool:
        part, *inner = name.split(".")
        if part == "are_adapter" and config.matching == "hard" and not UNMATCHED.isdisjoint(inner):
            return False
        if part == "reconstruction" and part in parts and config.reconstruction_decoder == "pretrained":
            drawn = config.image_layers == "drawn" and ".".join(inner).startswith(IMAGE_LAYERS)
            return inner[0] in DECODER_ADAPTERS or drawn
        if part != "backbone":
            return part in parts
        if config.backbone_trains == "none" or not _used(inner, config, stage):
            return False
        return config.backbone_trains == "all" or is_norm(name)

    return choose


def is_norm(name: str) -> bool:
    """Whether a parameter of ``SpectralX`` belongs to a LayerNorm of the backbone that tokens pass."""
    part, *inner = name.split(".")
    owner = inner[-2] if len(inner) > 1 else ""
    inside = "mlp" in inner or "patch_embed" in inner or not UNUSED.isdisjoint(inner)
    return part == "backbone" and owner in BLOCK_NORMS | {"norm"} and not inside


def _used(inner: list[str], config: SpectralXConfig, stage: StageName) -> bool:
    """Whether the forward pass of a stage uses a parameter of the backbone, given by the steps of its name."""
    first = inner[0]
    if first in UNUSED:
        return False
    if first == "patch_embed":
        return not config.hyper_tokenizer
    if first == "pos_embed":
        return config.positions == "backbone"
    if stage == "segment":  # decodes block outputs
        if first == "norm":
            return config.final_norm == "all"
        if first == "blocks" and config.levels:
            return int(inner[1]) <= max(config.levels)
    return True
