"""A backbone that can be built, for any bands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spectral_tl_bench.files import seed_from
from spectral_tl_bench.models.backbones.spec import SIZES, BackboneSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Backbone(BackboneSpec):
    """A network that a method may build, as often and with as many input bands as it likes.

    Its attributes are those of ``BackboneSpec``.
    """

    def build(self, in_chans: int, image_size: int) -> nn.Module:
        """The network for images (B, in_chans, image_size, image_size), with its weights.

        Returns:
            For kind ``vit`` a timm ``VisionTransformer`` or ``Eva``; for kind ``pyramid`` a ``Pyramid``. Both have
            ``forward_intermediates(images, indices=levels, norm=False, output_fmt="NCHW", intermediates_only=True)``.

        Raises:
            UserError: If images of this size or these bands do not suit it, or its weights do not fit.
        """
        import torch

        from spectral_tl_bench.models.backbones.assemble import assemble

        if self.seed is None:
            return assemble(self, in_chans, image_size)
        state = torch.get_rng_state()
        try:
            # Weights are drawn on the CPU; torch.manual_seed would also change the state of every GPU.
            torch.default_generator.manual_seed(
                seed_from(
                    "backbone", self.name, *(getattr(self, size) for size in SIZES), in_chans, image_size, self.seed
                )
            )
            return assemble(self, in_chans, image_size)
        finally:
            torch.set_rng_state(state)

    def decoder_tensors(self, device: str = "cpu") -> dict[str, Tensor]:
        """What the weights file holds of the decoder of its pretraining, by the published names.

        Args:
            device: ``cpu``, or ``meta`` for shapes alone.

        Returns:
            Nothing for random weights, and for files that hold the encoder alone.

        Raises:
            UserError: If the file cannot be read.
        """
        if self.weights is None:
            return {}
        from spectral_tl_bench.models.backbones.files import decoder_tensors

        return decoder_tensors(Path(self.weights.path), device)
