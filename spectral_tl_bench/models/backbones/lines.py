"""What to say about a backbone in one line."""

from __future__ import annotations

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
