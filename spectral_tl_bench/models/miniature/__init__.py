"""A foundation model in miniature: a small ViT that was pretrained on RGB images only, shipped with the suite.

`landscapes` makes the images, `pretrain` says what is learnt from them and trains; ``rgb-mini.safetensors`` is
the result and ``rgb-mini.json`` says how it came about.
"""

from spectral_tl_bench.models.backbones.backbone import Backbone
from spectral_tl_bench.models.backbones.entries import make_vit
from spectral_tl_bench.models.backbones.spec import Card
from spectral_tl_bench.models.patch_embedding import RGB

RGB_MINI = Backbone(
    "rgb-mini", width=96, depth=4, heads=4, patch=8, make=make_vit, tag="rgb-mini",
    bundled="spectral_tl_bench.models.miniature:rgb-mini.safetensors",
    card=Card(
        data="RGB images of invented landscapes (synthetic), covers and pixels of patches", bands=RGB,
        normalisation="mean and standard deviation per channel", image_size=64, licence="MIT",
        citation="this suite",
        how="bundled with the suite; python -m spectral_tl_bench.models.miniature.pretrain makes them again",
    ),
)  # fmt: skip
"""As wide and deep as ``compact``; what differs between the two is the pretraining."""

__all__ = ["RGB_MINI"]
