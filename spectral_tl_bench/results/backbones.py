"""The backbone of a stored result, built again."""

from __future__ import annotations

from pathlib import Path

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.methods.base import Backbone
from spectral_tl_bench.models.backbones import get_backbone, load_backbone
from spectral_tl_bench.results.schema import BackboneFacts


def recorded_backbone(facts: BackboneFacts, file: Path | None, where: Path) -> Backbone:
    """The backbone that a result stands on, with the same pretrained weights.

    Args:
        facts: What the result says about it.
        file: The pretrained weights, where the user names them.
        where: The result, for messages.

    Raises:
        UserError: If the weights cannot be had, or are others.
    """
    declared = load_backbone(facts.name)
    sizes = {size: getattr(facts, size) for size in declared.sizes}
    if facts.weights is None:
        backbone = get_backbone(facts.name, "none", facts.patch_embedding, **sizes)
    elif file is not None:
        backbone = get_backbone(facts.name, str(file), facts.patch_embedding, **sizes)
    else:
        if facts.weights.source == "file":
            raise UserError(
                f"the backbone stands on a file of weights with sha256 {facts.weights.digest}", where=where,
                fix="name that file with --backbone-weights",
            )  # fmt: skip
        backbone = get_backbone(facts.name, facts.weights.source, facts.patch_embedding, **sizes)
    if facts.weights and backbone.weights and backbone.weights.digest != facts.weights.digest:
        raise UserError(
            f"the weights of {facts.name} are not those that it was trained on", where=backbone.weights.path,
            expected=f"a file with sha256 {facts.weights.digest}",
        )  # fmt: skip
    return backbone.reading_as(facts)
