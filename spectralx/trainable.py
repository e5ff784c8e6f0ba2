"""What each stage trains, told from parameter names alone, so that it is known before a model exists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from spectralx.config import SpectralXConfig

StageName = Literal["reconstruct", "segment"]

BLOCK_NORMS = frozenset({"norm1", "norm2", "q_norm", "k_norm", "norm_pre"})
"""Names of the backbone's LayerNorms that every forward pass uses."""


def chooser(config: SpectralXConfig, stage: StageName | None = None) -> Callable[[str], bool]:
    """Tells of a parameter name of ``SpectralX`` whether it is trained.

    Args:
        config: The model's options.
        stage: ``reconstruct`` (stage 1) or ``segment`` (stage 2); None for either.

    Returns:
        A function from names to truth.

    Raises:
        ValueError: If there is no such stage.
    """
    stages = ("reconstruct", "segment")
    if stage is None:
        choices = [chooser(config, "reconstruct"), chooser(config, "segment")]
        return lambda name: any(choose(name) for choose in choices)
    if stage not in stages:
        raise ValueError(f"stage is {stage!r}, expected one of {stages}")
    # Stage 2 decodes block outputs, which the backbone's last LayerNorm does not touch.
    norms = BLOCK_NORMS | ({"norm"} if stage == "reconstruct" else set())
    parts = {"patch_path", "adapters"} | ({"reconstruction"} if stage == "reconstruct" else {"are_adapter", "decoder"})
    if config.train_hyper_tokenizer:
        parts.add("hyper_tokenizer")

    def choose(name: str) -> bool:
        part, *inner = name.split(".")
        if part != "backbone":
            return part in parts
        owner = inner[-2] if len(inner) > 1 else ""
        return owner in norms and not ("mlp" in inner or "attn_pool" in inner)

    return choose
