"""Options that many methods share."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from spectral_tl_bench.errors import MethodError, nearest
from spectral_tl_bench.models.decoders import DECODERS


def known_decoder(name: str) -> str:
    """The name of a decoder, unchanged.

    Raises:
        MethodError: If there is no such decoder.
    """
    if name not in DECODERS:
        raise MethodError(f"there is no decoder {name!r}", expected=nearest(name, DECODERS))
    return name


Decoder = Annotated[str, AfterValidator(known_decoder)]
"""Type of an option that names a decoder."""

DECODER_TEXT = f"decoder on the feature maps: {', '.join(DECODERS)}"
PATCH_EMBED_TEXT = "train the patch embedding (C bands to tokens)"
EMBED_DIFFERS = "The patch embedding trains, which the source keeps or does not have: its bands are others."
"""What differs from their sources in methods that train the patch embedding."""
NORMS_TEXT = "train the LayerNorms of the backbone"
