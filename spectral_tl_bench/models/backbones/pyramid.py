"""Networks that make four maps of falling resolution, with the names that methods use for vision transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.models.backbones.input_scale import Enlarge

STRIDES = (4, 8, 16, 32)
"""Pixels per cell of the four maps."""


class Pyramid(nn.Module):
    """A network of timm that is read at strides of 4, 8, 16 and 32 pixels.

    Args:
        body: The network, without a head. Its last norm, which no map goes through, is removed.

    Raises:
        UserError: If it has no maps at these strides.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        info = list(getattr(body, "feature_info", None) or ())
        places = {int(level["reduction"]): (number, int(level["num_chs"])) for number, level in enumerate(info)}
        if not hasattr(body, "forward_intermediates") or not set(STRIDES) <= places.keys():
            raise UserError(
                f"{type(body).__name__} is neither a vision transformer nor a network with maps at strides of "
                f"{', '.join(map(str, STRIDES))} px",
                expected="for example vit_small_patch16_224, resnet50, swin_tiny_patch4_window7_224",
            )
        for owner in (body, getattr(body, "head", None)):  # ConvNeXt has it in its head
            if isinstance(owner, nn.Module) and isinstance(getattr(owner, "norm", None), nn.LayerNorm):
                owner.norm = nn.Identity()
        # A norm in the head is left out with it; this one's weights are in files by the body's own name.
        self.left_out = () if any(name.startswith("norm.") for name in body.state_dict()) else ("norm.",)
        self.body = body
        self.enlarge: Enlarge | None = None
        self.places = tuple(places[stride][0] for stride in STRIDES)
        self.widths = tuple(places[stride][1] for stride in STRIDES)

    @property
    def patch_embed(self) -> nn.Module:
        """The first layer, which reads the bands; a ViT's patch embedding is called the same."""
        owner, leaf = stem_of(self)
        layer = getattr(owner, leaf)
        return cast(nn.Module, layer)

    def forward_intermediates(
        self,
        images: Tensor,
        indices: Sequence[int] | None = None,
        norm: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = True,
    ) -> list[Tensor]:
        """Maps of images (B, C, H, W), coarser from one to the next.

        Args:
            images: H and W are multiples of 32, once they are enlarged.
            indices: Which of the four maps, 0 to 3; by default all.
            norm: Only false: maps are taken as they are.
            output_fmt: Only ``NCHW``.
            intermediates_only: Only true.

        Returns:
            (B, widths[i], H / STRIDES[i], W / STRIDES[i]) of the enlarged image, for every index i, in rising order.

        Raises:
            ValueError: If another form of output is asked for.
        """
        if norm or output_fmt != "NCHW" or not intermediates_only:
            raise ValueError("a pyramid gives its maps alone, unnormalised, as NCHW")
        wanted = range(len(STRIDES)) if indices is None else sorted(set(indices))
        body = cast(Any, self.body)
        if self.enlarge is not None:
            (images,) = self.enlarge(self, (images,))
        return list(
            body.forward_intermediates(
                images, indices=[self.places[index] for index in wanted], norm=False, output_fmt="NCHW",
                intermediates_only=True,
            )
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """The coarsest map (B, widths[-1], H / 32, W / 32)."""
        return self.forward_intermediates(images, [len(STRIDES) - 1])[0]


def core(network: nn.Module) -> nn.Module:
    """The part whose parameters have the names of published checkpoints."""
    return network.body if isinstance(network, Pyramid) else network


def stem_of(network: nn.Module) -> tuple[nn.Module, str]:
    """The module that owns the layer that reads the bands, and the layer's name in it."""
    name = "patch_embed.proj"
    if isinstance(network, Pyramid):
        first = (getattr(network.body, "default_cfg", None) or {}).get("first_conv") or name
        name = first if isinstance(first, str) else first[0]
    owner, _, leaf = name.rpartition(".")
    return core(network).get_submodule(owner), leaf


def stem_key(network: nn.Module) -> str:
    """Name of the weight of the layer that reads the bands, within ``core(network)``."""
    owner, leaf = stem_of(network)
    prefix = next(name for name, module in core(network).named_modules() if module is owner)
    return f"{prefix}.{leaf}.weight".removeprefix(".")
