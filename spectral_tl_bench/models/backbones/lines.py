"""What to say about a backbone in a line each."""

from __future__ import annotations

from collections.abc import Sequence

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
    resized = ""
    if spec.trained_patch is not None:
        resized = f"; patches of {spec.patch} px, to which filters of {spec.trained_patch} px are resampled"
    return (
        f"weights of {spec.name}: {weights.source}, sha256 {weights.digest[:12]}, {weights.matched:.1%} of its "
        f"parameters, {counted}{examples}; patch embedding: {spec.patch_embedding}{resized}{terms}"
    )


def input_lines(spec: BackboneSpec, window: int, gsd: float | None = None, bands: Sequence[str] = ()) -> list[str]:
    """What a backbone is given that is not the image itself, and what that costs.

    Args:
        window: Side of the windows in pixels.
        gsd: Ground sampling distance in metres.
        bands: Names of the bands; by default their numbers, from 0.
    """
    lines = []
    if spec.token != spec.patch:
        side, plain = window // spec.token, max(1, window // spec.patch)
        ground = f", {spec.token * gsd:g} m" if gsd else ""
        parts = "the coarsest map has" if spec.kind == "pyramid" else "there are"
        lines.append(
            f"images are enlarged {spec.input_scale:g} times before {spec.name}: {spec.patch} px of it are "
            f"{spec.token} px of the image{ground}; {parts} {side} x {side} tokens in a window of {window} px, not "
            f"{plain} x {plain}, for about {cost_factor(spec, window):.3g} times the operations (--input-scale 1 "
            "leaves images as they are)"
        )
    if passes := len(spec.composites):
        groups = ", ".join("-".join(bands[band] if bands else str(band) for band in group) for group in spec.composites)
        lines.append(
            f"{spec.name} reads {passes} composite{'s' if passes > 1 else ''} of three bands, for {passes} times the "
            f"operations of one: {groups}"
        )
    return lines
