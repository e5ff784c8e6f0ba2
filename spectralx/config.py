"""Options of the model, and the two readings that give them their defaults."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

Reading = Literal["paper", "released"]
BackboneTrains = Literal["none", "norms", "all"]

READINGS: dict[str, dict[str, Any]] = {
    "paper": {
        "train_hyper_tokenizer": True,
        "drifting_statistics": False,
        "query_std": 0.1,
        "token_scale": 0.1,
        "strict_wavelengths": True,
        "balance": 1e-3,
        "matching": "soft",
        "combine": "stable",
        "gate_std": 0.02,
        "ties": "first",
        "positions": "resolution",
    },
    "released": {
        "train_hyper_tokenizer": False,
        "drifting_statistics": True,
        "query_std": 1.0,
        "token_scale": 1.0,
        "strict_wavelengths": False,
        "balance": 0.0,
        "matching": "hard",
        "combine": "exponential",
        "gate_std": 0.0,
        "ties": "topk",
        "positions": "mixed",
    },
}
"""Where the authors' released code and their paper differ, one row per option of ``SpectralXConfig``."""


def _by_reading() -> Any:
    return field(default=None)


@dataclass(frozen=True)
class SpectralXConfig:
    """What can be chosen about ``SpectralX`` apart from the sizes that its backbone dictates.

    Options that default to ``by reading`` take the value of ``READINGS[reading]`` unless they are given.

    Attributes:
        reading: ``paper`` follows the publication, ``released`` follows the authors' code. The default is the one that
            does better on source validation (docs/spectralx.md).
        train_hyper_tokenizer: Whether the hyper tokenizer learns, or stays at its random start (by reading).
        drifting_statistics: Whether batch statistics of a frozen hyper tokenizer still move (by reading).
        query_std: Standard deviation of the attribute queries at the start (by reading). Queries enter the
            tokens directly: with 1 about 1 % of the tokens' variance comes from the image at the start, with 0.02
            hardly any from the place; near 0.1 what depends on both is largest (measured on random images).
        token_scale: Fixed factor on the hyper tokenizer's tokens (by reading). Below 1 they begin smaller, and change
            more slowly, than the low-rank path beside them: better on source validation (docs/spectralx.md).
        strict_wavelengths: Whether the number of wavelengths has to equal the number of bands (by reading).
        balance: Coefficient of the load-balancing loss of the experts (by reading).
        matching: How attributes find their patch in the Are-adapter (by reading): ``hard`` takes the best patch and
            gives the cross-attention no gradient, ``soft`` weighs all patches.
        combine: How expert outputs are joined in log space (by reading): ``stable`` is a log-sum-exp,
            ``exponential`` is the plain formula, which overflows when an output passes about 88.
        gate_std: Standard deviation of the gate weights at the start (by reading). With 0, all experts tie.
        ties: Which of equal experts a token gets (by reading): ``first`` the one with the lower index, on every device,
            ``topk`` whatever ``torch.topk`` returns.
        positions: Position encoding of the patch tokens (by reading): ``resolution`` is a sine-cosine encoding of
            the place in metres, ``mixed`` uses it in stage 1 and plain grid positions in stage 2, ``backbone`` keeps
            what the backbone was trained with.
        hyper_tokenizer: Whether the hyper tokenizer makes the tokens; otherwise the backbone's patch embedding.
        aomoa: Whether experts stand beside the MLPs of the adapted blocks.
        are_adapter: Whether the Are-adapter works on tokens in stage 2; needs the hyper tokenizer.
        backbone_trains: What learns in the backbone: ``norms`` its LayerNorms, ``all`` every parameter that a forward
            pass uses, ``none`` nothing.
        reconstruction: Whether to build what stage 1 needs.
        levels: Blocks (0-based) that are adapted and whose output is decoded; by default the end of every quarter.
        experts: Experts per AoMoA layer.
        top_k: Experts that a token uses.
        rank: Inner channels of the low-rank patch path.
        stem_widths: Channels of the stem, one more than it has stride-2 steps; by default the last is half the token
            width and each earlier one half of the next (1024 at patch 16 gives 64, 128, 256, 512).
        attribute_cells: Places of the attribute map per patch side; by default 2, or 1 for backbones that are narrow
            for the number of their patches (``spectralx.model.attribute_cells``).
        attribute_heads: Most heads in an attribute perception block.
        attribute_window: Largest side of the attention windows in the spatial perception block.
        attribute_mlp: Hidden width of the perception blocks' MLP, relative to their width.
        match_temperature: Sharpness of ``soft`` matching; ``hard`` is its limit at 0.
        head_channels: Inner channels of the own segmentation head; by default half the token width.
        mask_ratio: Share of patches that stage 1 hides.
        decoder_width: Token width of the reconstruction decoder; by default half the backbone's.
        decoder_depth: Blocks of the reconstruction decoder.
    """

    reading: Reading = "released"
    train_hyper_tokenizer: bool = _by_reading()
    drifting_statistics: bool = _by_reading()
    query_std: float = _by_reading()
    token_scale: float = _by_reading()
    strict_wavelengths: bool = _by_reading()
    balance: float = _by_reading()
    matching: Literal["soft", "hard"] = _by_reading()
    combine: Literal["stable", "exponential"] = _by_reading()
    gate_std: float = _by_reading()
    ties: Literal["first", "topk"] = _by_reading()
    positions: Literal["resolution", "mixed", "backbone"] = _by_reading()
    hyper_tokenizer: bool = True
    aomoa: bool = True
    are_adapter: bool = True
    backbone_trains: BackboneTrains = "norms"
    reconstruction: bool = True
    levels: tuple[int, ...] | None = None
    experts: int = 4
    top_k: int = 2
    rank: int = 16
    stem_widths: tuple[int, ...] | None = None
    attribute_cells: int | None = None
    attribute_heads: int = 8
    attribute_window: int = 14
    attribute_mlp: float = 4.0
    match_temperature: float = 0.1
    head_channels: int | None = None
    mask_ratio: float = 0.75
    decoder_width: int | None = None
    decoder_depth: int = 2

    def __post_init__(self) -> None:
        if self.reading not in READINGS:
            raise ValueError(f"reading is {self.reading!r}, expected one of {sorted(READINGS)}")
        for name, value in READINGS[self.reading].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        choices = {
            "matching": ("soft", "hard"),
            "combine": ("stable", "exponential"),
            "ties": ("first", "topk"),
            "positions": ("resolution", "mixed", "backbone"),
            "backbone_trains": ("none", "norms", "all"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of {allowed}")
        if not 1 <= self.top_k <= self.experts:
            raise ValueError(f"top_k is {self.top_k}, expected 1 to experts={self.experts}")
        if self.attribute_cells is not None and self.attribute_cells < 1:
            raise ValueError(f"attribute_cells is {self.attribute_cells}, expected at least 1")
        if not 0.0 < self.mask_ratio < 1.0:
            raise ValueError(f"mask_ratio is {self.mask_ratio}, expected a share between 0 and 1")
        if self.are_adapter and not self.hyper_tokenizer:
            raise ValueError("the Are-adapter works on attributes of the hyper tokenizer: switch both off, or none")

    def differences(self) -> dict[str, Any]:
        """The options in which the readings differ, with the values that hold here."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name in READINGS[self.reading]}
