"""Options of the model, and the two readings that give them their defaults."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self

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
        "adapter_start": "zero",
        "stage1_image": "masked",
        "stage1_rotary": True,
        "reconstruction_decoder": "light",
        "final_norm": "none",
        "head_eps": 1e-5,
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
        "adapter_start": "xavier",
        "stage1_image": "whole",
        "stage1_rotary": False,
        "reconstruction_decoder": "if-pretrained",
        "final_norm": "rotary",
        "head_eps": 1e-6,
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
        adapter_start: The experts' maps down and up at the start (by reading): ``zero`` has the one up at zero, so that
            the backbone begins unchanged, ``xavier`` draws both, so that experts act from the first step.
        stage1_image: What is tokenised in stage 1 (by reading): ``masked`` blanks hidden patches before anything looks
            at the image, ``whole`` drops their tokens after; attribute features have then seen every pixel.
        stage1_rotary: Whether stage 1 is there for backbones with rotary positions (by reading).
        reconstruction_decoder: What reconstructs in stage 1 (by reading): ``light`` a small decoder that is trained,
            ``pretrained`` the backbone's own, frozen, with experts; ``if-pretrained`` that where the weights bring one.
        final_norm: Whether feature maps pass the backbone's last LayerNorm (by reading): ``none``, ``all``, or those
            of a backbone with ``rotary`` positions; ``plain`` is a LayerNorm without weights in its place.
        head_eps: Epsilon of the batch norms in the own segmentation head (by reading).
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
        decoder_width: Token width of the light reconstruction decoder; by default half the backbone's.
        decoder_depth: Blocks of the light reconstruction decoder.
        image_layers: Layers of a pretrained decoder whose shape depends on the number of bands: ``kept`` where the
            weights have as many bands, else ``drawn`` and trained; set by ``settled``.
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
    adapter_start: Literal["zero", "xavier"] = _by_reading()
    stage1_image: Literal["masked", "whole"] = _by_reading()
    stage1_rotary: bool = _by_reading()
    reconstruction_decoder: Literal["light", "pretrained", "if-pretrained"] = _by_reading()
    final_norm: Literal["none", "rotary", "all", "plain"] = _by_reading()
    head_eps: float = _by_reading()
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
    image_layers: Literal["kept", "drawn"] = "drawn"

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
            "adapter_start": ("zero", "xavier"),
            "stage1_image": ("masked", "whole"),
            "reconstruction_decoder": ("light", "pretrained", "if-pretrained"),
            "final_norm": ("none", "rotary", "all", "plain"),
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

    def settled(self, *, rotary: bool, decoder_bands: int | None, bands: int) -> Self:
        """The same for one backbone: what is said of kinds of backbones becomes what holds for this one.

        Args:
            rotary: Whether the backbone has rotary positions.
            decoder_bands: Bands that the pretrained decoder of its weights reconstructs; None if they bring none.

        Raises:
            ValueError: If a pretrained decoder is asked for and there is none.
        """
        if self.reconstruction_decoder == "pretrained" and decoder_bands is None:
            raise ValueError("reconstruction_decoder is 'pretrained', but the weights bring no decoder that is known")
        light = self.reconstruction_decoder == "light" or decoder_bands is None
        return replace(
            self,
            reconstruction=self.reconstruction and (self.stage1_rotary or not rotary),
            reconstruction_decoder="light" if light else "pretrained",
            final_norm=("all" if rotary else "none") if self.final_norm == "rotary" else self.final_norm,
            image_layers="kept" if not light and decoder_bands == bands else "drawn",
        )

    def differences(self) -> dict[str, Any]:
        """The options in which the readings differ, with the values that hold here."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name in READINGS[self.reading]}
