"""Decoders that fuse four feature maps: those of segmentation-models-pytorch behind a pyramid neck.

Normalisation is over groups rather than over the batch, see ``normalise_over_groups``.
"""

from __future__ import annotations

from collections.abc import Sequence

from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder
from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from torch import Tensor, nn

from spectral_tl_bench.models.decoders.head import Head, convolution, normalise_over_groups
from spectral_tl_bench.models.decoders.neck import STRIDES, PyramidNeck


class UPerNet(Head):
    """Pyramid neck and the UPerNet decoder (Xiao et al., ECCV 2018).

    Args:
        width: Channels of the incoming maps, one number or four.
        num_classes: Number of logit channels.
        channels: Inner channels.
    """

    def __init__(self, width: int | Sequence[int], num_classes: int, channels: int) -> None:
        super().__init__(channels, num_classes)
        self.neck = PyramidNeck(width, channels)
        self.decoder = UPerNetDecoder((0, 0, *[channels] * len(STRIDES)), encoder_depth=5, decoder_channels=channels)
        normalise_over_groups(self.decoder)

    def forward(self, features: Sequence[Tensor], image_size: tuple[int, int]) -> Tensor:
        """Logits (B, K, H, W) from four maps (B, width, h, w)."""
        pyramid = self.neck(features, image_size)
        return self.classify(self.decoder([pyramid[0], pyramid[0], *pyramid]), image_size)


class FPN(Head):
    """Feature pyramid with one upsampling branch per level (Kirillov et al., Panoptic FPN, CVPR 2019).

    The neck's convolutions are the lateral ones.

    Args:
        width: Channels of the incoming maps, one number or four.
        num_classes: Number of logit channels.
        channels: Channels of the pyramid; the branches have half as many, in whole multiples of 32.
    """

    def __init__(self, width: int | Sequence[int], num_classes: int, channels: int) -> None:
        branch = max(1, channels // 64) * 32  # the library normalises over 32 groups
        super().__init__(branch, num_classes)
        self.neck = PyramidNeck(width, channels, doubling=True)
        self.decoder = FPNDecoder(
            [channels] * len(STRIDES), encoder_depth=len(STRIDES), pyramid_channels=channels,
            segmentation_channels=branch, dropout=0.0,
        )  # fmt: skip
        self.decoder.p5 = nn.Identity()
        for block in (self.decoder.p4, self.decoder.p3, self.decoder.p2):
            block.skip_conv = nn.Identity()
        normalise_over_groups(self.decoder)

    def forward(self, features: Sequence[Tensor], image_size: tuple[int, int]) -> Tensor:
        """Logits (B, K, H, W) from four maps (B, width, h, w)."""
        return self.classify(self.decoder(self.neck(features, image_size)), image_size)


class DPT(Head):
    """Residual fusion from coarse to fine (Ranftl et al., Vision Transformers for Dense Prediction, ICCV 2021).

    Two things differ from the paper, so that the decoder fits every backbone: maps are resized by bilinear
    interpolation instead of convolutions whose strides hold for one patch, and class tokens are left out (its
    readout "ignore").

    Args:
        width: Channels of the incoming maps, one number or four.
        num_classes: Number of logit channels.
        channels: Channels of the fusion; the levels before it have 1, 2, 4 and 4 times as many, which for 256 are
            the paper's for ViT-L.
    """

    def __init__(self, width: int | Sequence[int], num_classes: int, channels: int) -> None:
        super().__init__(channels, num_classes)
        between = [factor * channels for factor in (1, 2, 4, 4)]
        self.neck = PyramidNeck(width, between, doubling=True)
        self.decoder = DPTDecoder(
            between, STRIDES, encoder_has_prefix_tokens=False, readout="ignore", intermediate_channels=between,
            fusion_channels=channels,
        )  # fmt: skip
        for block in self.decoder.reassemble_blocks:
            block.project_to_out_channel = nn.Identity()  # the neck has done it
        self.smooth = convolution(channels, channels)
        normalise_over_groups(self.decoder)

    def forward(self, features: Sequence[Tensor], image_size: tuple[int, int]) -> Tensor:
        """Logits (B, K, H, W) from four maps (B, width, h, w)."""
        fused = self.decoder(self.neck(features, image_size), [None] * len(STRIDES))
        return self.classify(self.smooth(fused), image_size)
