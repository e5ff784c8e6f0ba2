"""What to say about a backbone in a line each."""

from __future__ import annotations

from spectral_tl_bench.models.backbones.input_scale import cost_factor
from spectral_tl_bench.models.backbones.spec import BackboneSpec


def weights_line(spec: BackboneSpec) -> str | None:
    """One line about the weights of a backbone, for the output of a run; None where they are random."""
    weights = spec.weights
    if weights is None:
        return None
    counted = f"{weights.missing} tensors missing, {weights.unexpected} unexpected"
    examples = f" ({', '.join(weights.examples)})" if weights.examples else ""
    terms = f"; licence: {spec.card.licence}" if spec.named_weights or weights.source != "file" else ""
    terms += f", from {spec.card.source}" if terms and spec.card.source else ""
    return (
        f"weights of {spec.name}: {weights.source}, sha256 {weights.digest[:12]}, {weights.matched:.1%} of its "
        f"parameters, {counted}{examples}; patch embedding: {spec.patch_embedding}{terms}"
    )


def input_line(spec: BackboneSpec, window: int, gsd: float | None = None) -> str | None:
    """One line about what a token covers and what that costs; None where images are not enlarged."""
    if spec.token == spec.patch:
        return None
    side, plain = window // spec.token, max(1, window // spec.patch)
    ground = f", {spec.token * gsd:g} m" if gsd else ""
    parts = "the coarsest map has" if spec.kind == "pyramid" else "there are"
    return (
        f"images are enlarged {spec.input_scale:g} times before {spec.name}: {spec.patch} px of it are {spec.token} px "
        f"of the image{ground}; {parts} {side} x {side} tokens in a window of {window} px, not {plain} x {plain}, for "
        f"about {cost_factor(spec, window):.3g} times the operations (--input-scale 1 leaves images as they are)"
    )
