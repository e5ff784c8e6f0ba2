"""Options that many methods share."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field

from spectral_tl_bench.methods.base import Method, Task
from spectral_tl_bench.models.decoders import AUTO, DECODERS, PIXELS, check_name, resolved

Decoder = Annotated[str, AfterValidator(lambda name: check_name(name, (AUTO, *DECODERS)))]
"""Type of an option that names a decoder."""

DECODER_TEXT = (
    f"decoder on the feature maps: {', '.join(DECODERS)}, each with {PIXELS} for a per-pixel MLP of all bands beside "
    f"it; {AUTO} by backbone and budget"
)
PATCH_EMBED_TEXT = "train the patch embedding (C bands to tokens)"
EMBED_DIFFERS = "The patch embedding trains, which the source keeps or does not have: its bands are others."
"""What differs from their sources in methods that train the patch embedding."""
NORMS_TEXT = "train the LayerNorms of the backbone"


class WithDecoder(Method):
    """Base of methods whose user chooses a decoder."""

    decoder: Decoder = Field(AUTO, description=DECODER_TEXT)

    def resolved(self, task: Task) -> Self:
        """With the name of a decoder in place of ``auto``."""
        name = resolved(self.decoder, task)
        return self if name == self.decoder else type(self).model_validate({**dict(self), "decoder": name})
