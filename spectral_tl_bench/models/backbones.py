"""Backbones by name: vision transformers from timm in sizes for a laptop and for a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from spectral_tl_bench.errors import UserError, nearest
from spectral_tl_bench.files import seed_from

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Backbone:
    """A vision transformer that a method may build, as often and with as many input bands as it likes.

    Attributes:
        name: Registry name, for example ``compact``.
        width: Token width.
        depth: Number of transformer blocks.
        heads: Attention heads.
        patch: Patch side in pixels.
        make: Called by ``build``.
        seed: Seed of the random weights. With one, they depend on it and on the sizes alone, so that all methods of
            a seed stand on the same frozen weights; without, they come from the global random state.
    """

    name: str
    width: int
    depth: int
    heads: int
    patch: int
    make: Callable[[Backbone, int, int], nn.Module] = field(repr=False, compare=False)
    pretrained: str = "none"
    seed: int | None = None

    def build(self, in_chans: int, image_size: int) -> nn.Module:
        """A ``timm.models.vision_transformer.VisionTransformer`` for (B, in_chans, image_size, image_size)."""
        if self.seed is None:
            return self.make(self, in_chans, image_size)
        import torch

        state = torch.get_rng_state()
        try:
            # Weights are drawn on the CPU; torch.manual_seed would also change the state of every GPU.
            torch.default_generator.manual_seed(
                seed_from(
                    "backbone", self.name, *(getattr(self, size) for size in SIZES), in_chans, image_size, self.seed
                )
            )
            return self.make(self, in_chans, image_size)
        finally:
            torch.set_rng_state(state)

    def facts(self) -> dict[str, Any]:
        """Name and sizes, and which pretrained weights: what a record says about a backbone."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("make", "seed")}

    @property
    def levels(self) -> tuple[int, ...]:
        """The blocks (0-based) after which features are taken: the end of every quarter (5, 11, 17, 23 of 24)."""
        return tuple(max(0, round(self.depth * quarter / 4) - 1) for quarter in (1, 2, 3, 4))


def _make_vit(spec: Backbone, in_chans: int, image_size: int) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    if image_size % spec.patch:
        raise UserError(
            f"a window of {image_size} px is not a multiple of the patch of {spec.name} ({spec.patch} px)",
            fix=f"choose --window {image_size // spec.patch * spec.patch or spec.patch}",
        )
    return VisionTransformer(
        img_size=image_size, patch_size=spec.patch, in_chans=in_chans, num_classes=0, global_pool="",
        embed_dim=spec.width, depth=spec.depth, num_heads=spec.heads,
    )  # fmt: skip


BACKBONES: dict[str, Backbone] = {
    spec.name: spec
    for spec in (
        Backbone("compact", width=96, depth=4, heads=4, patch=8, make=_make_vit),
        Backbone("vit-tiny", width=192, depth=12, heads=3, patch=16, make=_make_vit),
        Backbone("vit-small", width=384, depth=12, heads=6, patch=16, make=_make_vit),
        Backbone("vit-base", width=768, depth=12, heads=12, patch=16, make=_make_vit),
        Backbone("vit-large", width=1024, depth=24, heads=16, patch=16, make=_make_vit),
    )
}
"""All are initialised at random: pretrained weights come with the backbones of the literature."""

SIZES = ("width", "depth", "heads", "patch")


def get_backbone(name: str, /, **sizes: Any) -> Backbone:
    """A backbone by name, with any of its sizes changed.

    Args:
        name: One of ``BACKBONES``.
        **sizes: ``width``, ``depth``, ``heads``, ``patch``: whole numbers above 0.

    Raises:
        UserError: If the name or a size is unknown or impossible.
    """
    if name not in BACKBONES:
        raise UserError(f"there is no backbone {name!r}", expected=nearest(name, BACKBONES))
    allowed = [field.name for field in fields(Backbone) if field.name in SIZES]
    for key, value in sizes.items():
        if key not in allowed:
            raise UserError(f"backbone {name} has no size {key!r}", expected=nearest(key, allowed))
        if not isinstance(value, int) or value < 1:
            raise UserError(f"backbone size {key} is {value!r}", expected="a whole number above 0")
    spec = replace(BACKBONES[name], **sizes)
    if spec.width % spec.heads:
        raise UserError(
            f"width {spec.width} of backbone {name} is not divisible by its {spec.heads} heads",
            fix="change one of the two",
        )
    return spec
