"""Hands SpectralX to the suite: the only module here that knows ``spectral_tl_bench``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Self, cast

import torch
from pydantic import AfterValidator, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.methods.adapters.place import check_free_sequence, check_vit
from spectral_tl_bench.methods.base import VOID, Backbone, Batch, Method, Part, Recipe, Shared, Stage, Task
from spectral_tl_bench.methods.options import WithDecoder
from spectral_tl_bench.models.decoders import AUTO, DECODERS, PIXELS, PLAIN, check_name, split_pixels
from spectral_tl_bench.models.decoders import resolved as resolved_decoder
from spectralx import NUMERICS_VERSION
from spectralx.config import READINGS, BackboneTrains, Reading, SpectralXConfig
from spectralx.model import SpectralX
from spectralx.pretrained_decoders import DecoderError, DecoderWeights
from spectralx.reconstructions import reconstruct
from spectralx.trainable import chooser, is_norm

OWN, SHARED = "own", "shared"
"""The model's neck and head, and the name that the suite's ``upernet`` has in records, from before there was a choice.
"""

SEGMENT_ONLY: dict[str, Any] = {
    "are_adapter": False, "matching": None, "decoder": SHARED, "decoder_channels": None,
    "final_norm": "none", "head_eps": 1e-5, "stage1_rotary": True,
}  # fmt: skip
"""Options that do not act in stage 1, with the values at which it is trained."""

WHU_OHS = "whuohs-s2t"
"""A benchmark of WHU-OHS, whose sensor's wavelengths the released stage 2 holds for every sensor."""

MISPRINT = (8, 0.569)
"""The ninth of those wavelengths as the release has it, with two digits changed over; the sensor's is 0.596."""

CARRIED_PARTS = ("hyper_tokenizer.", "patch_path.", "adapters.")
"""Parts that stage 1 trains, or that are drawn at random and stay so."""

PRETRAINED_PARTS = ("backbone.", "reconstruction.")
"""Parts of which stage 1 carries what it trains; what it does not train comes with the weights of the backbone."""

HARD_MATCHING = {
    f"are_adapter.{side}.{part}.": "hard matching takes no more of an attention than the place of its largest entry, "
    "and adds no linear map"
    for side in ("spatial", "spectral")
    for part in ("attend", "direct")
}
"""Parts of the Are-adapter that no gradient reaches, as in the released code."""


def reconstruction_loss(module: nn.Module, batch: Batch) -> Tensor:
    """Loss of stage 1: masked reconstruction of the images, and the balance of the experts."""
    return cast(SpectralX, module).forward_reconstruction(batch["image"])


def segmentation_loss(module: nn.Module, batch: Batch) -> Tensor:
    """Loss of stage 2: cross-entropy over labelled pixels, and the balance of the experts; 0 if all are void."""
    logits, balance = cast(SpectralX, module).segment(batch["image"])
    mask = batch["mask"].long()
    labelled = (mask != VOID).sum()
    total = functional.cross_entropy(logits.float(), mask, ignore_index=VOID, reduction="sum")
    return total / labelled.clamp(min=1) + balance * (labelled > 0)


def segmentation_outputs(module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits, and the balance of the experts: what ``segmentation_loss`` is made of."""
    logits, balance = cast(SpectralX, module).segment(batch["image"])
    return logits, balance


def reconstruction_pictures(module: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Columns of the pictures of stage 1, always with the same mask."""
    generator = torch.Generator(images.device).manual_seed(0)
    shown = reconstruct(cast(SpectralX, module), images, generator)
    return {"input": images, "masked": shown.masked, "reconstruction": shown.reconstruction}


@functools.lru_cache(maxsize=8)
def _decoder_shapes(backbone: Backbone) -> dict[str, Tensor]:
    """Read once, since stages are asked for often; the digest of the file is part of the key."""
    return backbone.decoder_tensors("meta")


def no_decoder(backbone: Backbone, reason: ValueError) -> MethodError:
    """Why a backbone's weights give no decoder, for people."""
    return MethodError(
        str(reason),
        where=backbone.weights and backbone.weights.path,
        expected="--weights with the authors' whole checkpoint of Scale-MAE or SatMAE++, encoder and decoder",
        fix="-o reconstruction_decoder=light",
    )


def known_decoder(name: str) -> str:
    """The name of a decoder, ``shared`` for ``upernet``.

    Raises:
        MethodError: If there is no such decoder.
    """
    if name in (SHARED, "upernet"):
        return SHARED
    if name == OWN + PIXELS:
        raise MethodError(f"the model's own decoder has no {PIXELS}", fix="-o decoder=upernet+pixels")
    return check_name(name, (AUTO, OWN, *DECODERS))


def _within(prefix: str) -> Callable[[str], bool]:
    return lambda name: name.startswith(prefix)


class SpectralXMethod(WithDecoder):
    """Hyper tokenizer, experts and Are-adapter on a frozen backbone, in two stages.

    Options whose default is None take the value of the reading.
    """

    numerics_version = NUMERICS_VERSION
    seed_name = "spectralx.method:SpectralXMethod"

    family: ClassVar[str] = "spectralx"
    reference: ClassVar[str] = "SpectralX, ISPRS J. Photogramm. Remote Sens. 239, 2026, 774-792; arXiv 2508.01731"
    recipe: ClassVar[Recipe] = Recipe(
        source="ours; the paper's 1e-4 is for 70,000 steps, and what the protocols published and as-published use"
    )
    search_space: ClassVar[Mapping[str, Sequence[Any]]] = {"experts": (2, 4, 8), "rank": (8, 16, 32)}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "freeze": {
            "pretrain": False,
            "hyper_tokenizer": False,
            "aomoa": False,
            "are_adapter": False,
            "backbone_trains": "none",
        },
        "full": {
            "pretrain": False,
            "hyper_tokenizer": False,
            "aomoa": False,
            "are_adapter": False,
            "backbone_trains": "all",
        },
        "hypert": {"aomoa": False, "are_adapter": False},
        "hypert-aomoa": {"are_adapter": False},
        "hypert-aomoa-are": {},
        "hypert-no-stage1": {"pretrain": False, "aomoa": False, "are_adapter": False},
        "hypert-aomoa-no-stage1": {"pretrain": False, "are_adapter": False},
        "no-stage1": {"pretrain": False},
        "paper": {"reading": "paper"},
        "released": {
            "reading": "released",
            "combine": "exponential",
            "wavelengths": "whu-ohs-as-released",
            "decoder": "own",
        },
        "tuned": {"pretrain": False, "hyper_tokenizer": False, "are_adapter": False, "decoder": "light+pixels"},
    }
    """The rows of the paper's ablation; the two readings, ``released`` to the last detail; and ours, ``tuned``."""

    later: ClassVar[Mapping[str, Any]] = {**Method.later} | {
        name: READINGS["paper"][name]
        for name in (
            "adapter_start", "stage1_image", "stage1_rotary", "reconstruction_decoder", "final_norm", "head_eps",
        )
    }  # fmt: skip

    reading: Reading = Field("released", description="follow the authors' released code or the publication")
    pretrain: bool = Field(True, description="run stage 1, masked reconstruction of unlabelled source chips")
    mask_ratio: float = Field(0.75, gt=0, lt=1, description="share of patches that stage 1 hides")
    hyper_tokenizer: bool = Field(True, description="tokens from HyperT; otherwise from the frozen patch embedding")
    aomoa: bool = Field(True, description="experts beside the MLPs at the end of every quarter")
    are_adapter: bool = Field(True, description="re-weight tokens by attributes; needs the hyper tokenizer")
    backbone_trains: BackboneTrains = Field("norms", description="what learns in the backbone")
    experts: int = Field(4, ge=2, description="experts per AoMoA layer, of which a token uses two")
    rank: int = Field(16, ge=1, description="inner channels of the low-rank patch path")
    stem_widths: tuple[int, ...] | None = Field(None, description="stem channels; by default from the token width")
    attribute_cells: int | None = Field(None, ge=1, description="places of HyperT's attribute map per patch side")
    attribute_mlp: float | None = Field(
        None,
        gt=0,
        description="relative hidden width in HyperT's perception blocks; 4, or 2 below width 384",
    )
    decoder: Annotated[str, AfterValidator(known_decoder)] = Field(
        AUTO,
        description=f"the model's neck and head (own), or a decoder of the suite: {', '.join(DECODERS)}, each with "
        f"{PIXELS} for a per-pixel MLP of all bands beside it; {AUTO} by backbone and budget; shared is upernet",
    )
    decoder_channels: int | None = Field(None, ge=1, description="inner channels of the decoder; by default its own")
    reconstruction_depth: int = Field(2, ge=1, description="blocks of the reconstruction decoder")
    train_hyper_tokenizer: bool | None = Field(None, description="train HyperT, or leave it at its random start")
    drifting_statistics: bool | None = Field(None, description="whether statistics of a HyperT that is frozen move")
    query_std: float | None = Field(None, ge=0, description="standard deviation of HyperT's queries at the start")
    token_scale: float | None = Field(None, gt=0, description="fixed factor on HyperT's tokens")
    strict_wavelengths: bool | None = Field(None, description="whether every band needs its own wavelength")
    gate_std: float | None = Field(None, ge=0, description="standard deviation of the gates' weights at the start")
    ties: Literal["first", "topk"] | None = Field(None, description="which of equal experts a token gets")
    balance: float | None = Field(None, ge=0, description="coefficient of the balance loss")
    matching: Literal["soft", "hard"] | None = Field(None, description="how the Are-adapter matches attributes")
    combine: Literal["stable", "exponential"] = Field(
        "stable", description="how expert outputs are joined; as released: exponential, equal where it is finite"
    )
    wavelengths: Literal["sensor", "whu-ohs", "whu-ohs-as-released"] = Field(
        "sensor",
        description="those of the sensor; as in the released stage 2: the 32 of WHU-OHS for every sensor, with the "
        "release's misprint in band 9 or without",
    )
    positions: Literal["resolution", "mixed", "backbone"] | None = Field(
        None, description="position encoding; pretrained backbones other than Scale-MAE keep their own"
    )

    adapter_start: Literal["zero", "xavier"] | None = Field(
        None, description="whether experts add nothing at the start, or something"
    )
    stage1_image: Literal["masked", "whole"] | None = Field(
        None, description="whether stage 1 blanks hidden patches before it tokenises, or drops their tokens after"
    )
    stage1_rotary: bool | None = Field(None, description="stage 1 for backbones with rotary positions (DINOv3), too")
    reconstruction_decoder: Literal["light", "pretrained", "if-pretrained"] | None = Field(
        None, description="what reconstructs in stage 1: a light decoder, or the one that comes with the weights"
    )
    final_norm: Literal["none", "rotary", "all", "plain"] | None = Field(
        None,
        description="whether feature maps pass the backbone's last LayerNorm, or a plain one; by default as "
        "--level-norm says, else by the reading",
    )
    head_eps: float | None = Field(None, gt=0, description="epsilon of the batch norms in the own neck and head")

    @model_validator(mode="after")
    def _are_adapter_has_attributes(self) -> Self:
        if self.are_adapter and not self.hyper_tokenizer:
            raise ValueError("are_adapter needs the hyper tokenizer: set are_adapter=false too")
        if self.decoder_channels is not None and split_pixels(self.decoder)[0] in PLAIN:
            raise ValueError(f"decoder {self.decoder} has no inner channels: leave out decoder_channels")
        strict = self.reading == "paper" if self.strict_wavelengths is None else self.strict_wavelengths
        if self.wavelengths != "sensor" and strict:
            raise ValueError(
                f"wavelengths={self.wavelengths} are those of another sensor: set strict_wavelengths=false too"
            )
        return self

    def config(self, backbone: Backbone, bands: int = 0) -> SpectralXConfig:
        """The model's options for a backbone and a number of bands."""
        positions = self.positions
        if positions is None and backbone.pretrained != "none" and "scale" not in backbone.pretrained.lower():
            positions = "backbone"
        chosen = {name: getattr(self, name) for name in READINGS[self.reading]} | {"positions": positions}
        if self.final_norm is None and backbone.level_norm != "none":
            chosen["final_norm"] = {"final": "all"}.get(backbone.level_norm, backbone.level_norm)
        differences = READINGS[self.reading] | {name: value for name, value in chosen.items() if value is not None}
        config = SpectralXConfig(
            reading=self.reading,
            hyper_tokenizer=self.hyper_tokenizer,
            aomoa=self.aomoa,
            are_adapter=self.are_adapter,
            backbone_trains=self.backbone_trains,
            reconstruction=self.pretrain,
            levels=backbone.levels,
            experts=self.experts,
            rank=self.rank,
            stem_widths=self.stem_widths,
            attribute_cells=self.attribute_cells,
            attribute_mlp=self.attribute_mlp or (4.0 if backbone.width >= 384 else 2.0),
            head_channels=self.decoder_channels,
            mask_ratio=self.mask_ratio,
            decoder_depth=self.reconstruction_depth,
            **differences,
        )
        decoder = self._pretrained_decoder(backbone, "meta")
        try:
            return config.settled(rotary=backbone.rotary, decoder_bands=decoder.bands if decoder else None, bands=bands)
        except ValueError as error:
            raise no_decoder(backbone, error) from None

    def _pretrained_decoder(self, backbone: Backbone, device: str) -> DecoderWeights | None:
        """The decoder of the backbone's weights, if stage 1 is to have it; on ``meta`` its shapes alone."""
        wanted = self.reconstruction_decoder or READINGS[self.reading]["reconstruction_decoder"]
        if not self.pretrain or wanted == "light" or backbone.weights is None:
            return None
        return DecoderWeights.find(_decoder_shapes(backbone) if device == "meta" else backbone.decoder_tensors(device))

    def build(self, task: Task) -> SpectralX:
        """The model for a benchmark; what no stage trains has ``requires_grad=False``."""
        backbone = task.backbone.build(task.num_bands, task.window)
        check_vit(backbone, task.backbone.name)
        check_free_sequence(backbone)
        if getattr(cast(Any, backbone).patch_embed.proj, "in_channels", task.num_bands) != task.num_bands:
            raise MethodError(
                f"{task.backbone.name} has a network between the bands and its patch embedding, whose place the hyper "
                "tokenizer cannot take",
                fix="choose another backbone, such as vit-large",
            )
        config = self.config(task.backbone, task.num_bands)
        if task.budget.pretrain_steps == 0:  # what no stage trains is not built
            config = replace(config, reconstruction=False)
        decoder = None
        if self.decoder != OWN:
            from spectral_tl_bench.models.decoders import build_decoder

            kind = "upernet" if self.decoder == SHARED else resolved_decoder(self.decoder, task)
            width, channels = task.backbone.width, self.decoder_channels
            decoder = build_decoder(width, task.num_classes, channels, kind, task.num_bands)
        published = None
        if config.reconstruction and config.reconstruction_decoder == "pretrained":
            device = "meta" if next(backbone.parameters()).is_meta else "cpu"
            published = self._pretrained_decoder(task.backbone, device)
        else:
            config = replace(config, reconstruction_decoder="light")
        try:
            return SpectralX(
                backbone,
                self._wavelengths(task),
                task.num_classes,
                task.window,
                task.gsd / task.backbone.input_scale,  # that of the image in which a token is a patch
                config,
                decoder,
                pretrained_decoder=published,
            )
        except DecoderError as error:
            raise no_decoder(task.backbone, error) from None

    def parts(self) -> list[Part]:
        """The parts that the paper's table counts, in its order; then those that it leaves out."""
        return [
            Part("low-rank patch path and scale", _within("patch_path.")),
            Part("LayerNorms", is_norm),
            Part("AoMoA", _within("adapters.")),
            Part("Are-adapter", _within("are_adapter."), whole=True),
            Part("HyperT", _within("hyper_tokenizer."), counted=False),
            Part("neck", _within("decoder.neck."), kind="decoder"),
            Part("pixel path", _within("decoder.pixels."), kind="decoder"),
            Part("head", _within("decoder."), kind="decoder"),
            Part("reconstruction decoder", _within("reconstruction."), kind="decoder"),
            Part("backbone, rest", _within("backbone.")),
        ]

    def _wavelengths(self, task: Task) -> tuple[float, ...]:
        if self.wavelengths == "sensor":
            return task.wavelengths
        from spectral_tl_bench.benchmarks import builtin_benchmarks

        known = builtin_benchmarks()[WHU_OHS].sensor.wavelengths
        band, misprint = MISPRINT
        return known if self.wavelengths == "whu-ohs" else (*known[:band], misprint, *known[band + 1 :])

    def stages(self, task: Task) -> list[Stage]:
        """Reconstruction without labels, then segmentation."""
        config = self.config(task.backbone, task.num_bands)
        facts = config.differences()
        segment = Stage(
            "segment",
            task.budget.steps,
            loss=segmentation_loss,
            outputs=segmentation_outputs,
            trainable=chooser(config, "segment"),
            options=facts,
            unreached=HARD_MATCHING if config.matching == "hard" else {},
        )
        if not config.reconstruction or task.budget.pretrain_steps == 0:
            return [segment]
        decoder = self._pretrained_decoder(task.backbone, "meta")
        first = Stage(
            "reconstruct",
            task.budget.pretrain_steps,
            labelled=False,
            loss=reconstruction_loss,
            trainable=chooser(config, "reconstruct"),
            options={
                **facts,
                "mask_ratio": self.mask_ratio,
                "reconstruction_decoder": decoder.kind if decoder else "light",
            },
            shared=self._shared(config),
            pictures=reconstruction_pictures,
        )
        return [first, segment]

    def _shared(self, config: SpectralXConfig) -> Shared:
        """How stage 1 serves other runs: by options that act in it alone, and weights that it trains or draws."""
        # Written out where they come from the reading, which stays an option because it also sets what has none here.
        canonical = self.model_copy(
            update={
                "pretrain": True,
                **config.differences(),
                "positions": "backbone" if config.positions == "backbone" else "resolution",
                **SEGMENT_ONLY,
            }
        )
        trained = chooser(config, "reconstruct")

        def carries(name: str) -> bool:
            return name.startswith(CARRIED_PARTS) or (name.startswith(PRETRAINED_PARTS) and trained(name))

        def relies_on(name: str) -> bool:
            return name.startswith(PRETRAINED_PARTS) and not carries(name)

        return Shared(canonical, carries, relies_on, free=frozenset({"mask_ratio", "balance"}))
