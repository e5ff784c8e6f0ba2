"""Options that many methods share."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from spectral_tl_bench.methods.base import KeptFeatures, Method, Task
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


def _number(value: Any) -> Any:
    """A number that was typed; a choice among numbers takes no text."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


class OnKeptFeatures(Method):
    """Base of methods that can train on kept features; see ``KeptFeatures`` for what their module must offer."""

    cache: bool = Field(
        False, description="train on a fixed grid of windows, whose features are computed once and kept"
    )
    cache_copies: Annotated[Literal[1, 8], BeforeValidator(_number)] = Field(
        1, description="with cache: 1 takes each training window as it is, 8 in all symmetries of the square"
    )
    cache_dtype: Literal["float32", "float16", "bfloat16"] = Field(
        "float32", description="with cache: what features are rounded to"
    )
    head_seed: int = Field(0, ge=0, description="with cache: other decoder weights on the same features")

    @model_validator(mode="after")
    def _frozen_as_a_whole(self) -> Self:
        if self.cache and getattr(self, "train_patch_embed", False):
            raise ValueError("cache=true needs a backbone that is frozen as a whole: add -o train_patch_embed=false")
        if not self.cache and (self.cache_copies, self.cache_dtype, self.head_seed) != (1, "float32", 0):
            raise ValueError("cache_copies, cache_dtype and head_seed do nothing without cache=true")
        return self

    def kept_features(self) -> KeptFeatures | None:
        """What the options say."""
        return KeptFeatures(self.cache_copies, self.cache_dtype, self.head_seed) if self.cache else None
