"""What a backbone is: its sizes, its weights, and what builds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from spectral_tl_bench.models.patch_embedding import COMPOSITES, RGB, in_composites

if TYPE_CHECKING:
    from torch import Tensor, nn

SIZES = ("width", "depth", "heads", "patch")

LevelNorm = Literal["none", "final", "plain"]
"""What feature levels pass before a decoder: nothing, the network's last norm, or a LayerNorm without weights."""

InputNorm = Literal["source", "window", "reflectance"]
"""How pixels are normalised before a backbone: by the source's statistics, each window by its own, or as pictures."""

LATER_FACTS: Mapping[str, Any] = {"input_scale": 1.0, "level_norm": "none", "composites": (), "input_norm": "source"}
"""Facts that came after results were published, with the value that those results had and that is not written."""

IMAGENET_PIXELS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of red, green and blue from 0 to 1."""

Make = Callable[["BackboneSpec", int, int], "nn.Module"]
"""Builds the network of a backbone with random weights for (bands, image side)."""

Convert = Callable[["BackboneSpec", "nn.Module", "dict[str, Tensor]"], "dict[str, Tensor]"]
"""Renames the tensors of a published checkpoint to the names of the network."""


@dataclass(frozen=True)
class Card:
    """What to know about a backbone before using it.

    Attributes:
        data: What its weights were trained on, and how.
        bands: Centre wavelengths in micrometres of the bands that its weights read; empty for any, or unknown ones.
        reading: How it reads bands, in words, where there is more to say than ``bands``.
        normalisation: What its weights expect of pixel values. The suite normalises by the statistics of the source
            training chips all the same, for every method.
        pixels: Mean and deviation of red, green and blue from 0 to 1, for ``input_norm`` reflectance; ImageNet's
            where the weights have none of their own that are known.
        image_size: Side in pixels of the images that it was trained on.
        licence: Licence of the weights.
        source: Address of who publishes them.
        citation: Paper.
        how: How to get the weights.
    """

    data: str = "none"
    bands: tuple[float, ...] = RGB
    reading: str = ""
    normalisation: str = "none"
    pixels: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET_PIXELS
    image_size: int = 224
    licence: str = "none needed"
    source: str = ""
    citation: str = ""
    how: str = ""


@dataclass(frozen=True)
class Hub:
    """Where a library finds the weights.

    Attributes:
        library: ``timm`` for the files that timm has on the Hugging Face hub, or ``torchgeo``.
        collection: timm's architecture, or the name of TorchGeo's weights enum.
        default: timm's tag, or the member of the enum, that is meant when none is named; empty for timm's own choice.
    """

    library: Literal["timm", "torchgeo"]
    collection: str
    default: str = ""


@dataclass(frozen=True)
class Weights:
    """Pretrained weights that were found and compared with the network.

    Attributes:
        source: ``hub:NAME``, ``file`` or ``bundled``.
        path: The file.
        digest: SHA-256 of the file; of several files, of their digests.
        matched: Share of the encoder's parameters that the file has.
        missing: Tensors of the network that the file lacks.
        unexpected: Tensors of the file that the network has no place for.
        examples: The first of both, for people.
        others: Further files.
    """

    source: str
    path: str
    digest: str
    matched: float = 1.0
    missing: int = 0
    unexpected: int = 0
    examples: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files."""
        return (Path(self.path), *map(Path, self.others))

    def facts(self) -> dict[str, Any]:
        """What a record keeps: not the path."""
        kept = asdict(self)
        return {key: kept[key] for key in ("source", "digest", "matched", "missing", "unexpected")}


def unusual(backbone: object) -> dict[str, Any]:
    """The facts of ``LATER_FACTS`` that are not what earlier results had, of a backbone or of what a record keeps."""
    return {name: getattr(backbone, name) for name, usual in LATER_FACTS.items() if getattr(backbone, name) != usual}


def _plain(value: Any) -> Any:
    """As JSON has it."""
    return [list(group) for group in value] if isinstance(value, tuple) else value


@dataclass(frozen=True)
class BackboneSpec:
    """The facts of a backbone, all that assembling it needs; ``Backbone`` is what can also be built.

    Attributes:
        name: Registry name, for example ``compact``.
        width: Token width; of a pyramid, the channels of its last map.
        depth: Number of transformer blocks; of a pyramid, the number of its maps, four.
        heads: Attention heads; 0 where they differ from block to block, or where there are none.
        patch: Patch side in pixels; of a pyramid, the stride of its last map. It must divide the side of the images.
        make: Called by ``build``.
        pretrained: Name of the pretraining, ``none`` for random weights.
        seed: Seed of the random weights. With one, they depend on it and on the sizes alone, so that all methods of
            a seed stand on the same frozen weights; without, they come from the global random state.
        kind: ``vit`` for equal maps from blocks of one width, with timm's attributes (``blocks``, ``patch_embed``,
            ``embed_dim``, ``num_prefix_tokens``); ``pyramid`` for four maps at strides of 4, 8, 16 and 32 pixels.
        stages: Channels of a pyramid's maps.
        architecture: timm's name of the network, where timm builds it.
        sizes: Which of the sizes may be changed.
        card: What to know about it.
        hub: Where a library finds its weights.
        bundled: Weights that come with a package, as ``package:path/inside.safetensors``; the default where given.
        named_weights: Whether weights must be chosen: a name that stands for a pretraining promises it.
        tag: ``pretrained`` once weights are loaded; by default from the digest of the file.
        convert: Renames the tensors of a published checkpoint.
        weights: The weights to load; None for random ones.
        patch_embedding: How the patch embedding comes from that of the weights; see ``models.patch_embedding``.
        input_scale: How many times larger an image is made before it, so that a token covers ``token`` pixels.
        composites: With the patch embedding of this name, the bands that are read as red, green and blue, pass after
            pass; set by the runner.
        input_norm: How pixels are normalised before it.
        statistics: Mean and deviation of every band of the source's training chips, in reflectance; set by the runner
            where ``input_norm`` needs them.
        level_norm: What feature levels pass before a decoder.
        trained_patch: Side of the patches that its weights have, where ``patch`` was changed: filters are resampled.
        rotary: Whether positions are rotary, given to the attention of every block.
        reads_wavelengths: Whether the network is told the wavelengths, and makes its patch embedding from them.
        wavelengths: Centre wavelengths of the images in micrometres, one per band; set by the runner, as ``seed``.
        gsd: Ground sampling distance of the images in metres; set by the runner.
        form: How it differs from a plain vision transformer, in words. Methods that it does not suit are then refused
            before anything is trained.
        embeddings: Patch embeddings of its own, the default first, where it has no other.
        pretrained_embedding: The patch embedding by default where there are weights.
        published_levels: Blocks (0-based) after which its authors take features, up to the last one.
        published_norm: What its authors do with these features for dense tasks.
        files: The files of its weights, in words, where there are several; joined by ``+`` in ``--weights``.
    """

    name: str
    width: int
    depth: int
    heads: int
    patch: int
    make: Make = field(repr=False, compare=False)
    pretrained: str = "none"
    seed: int | None = None
    kind: Literal["vit", "pyramid"] = "vit"
    stages: tuple[int, ...] = ()
    architecture: str = ""
    sizes: tuple[str, ...] = SIZES
    card: Card = field(default_factory=Card, repr=False, compare=False)
    hub: Hub | None = field(default=None, repr=False, compare=False)
    bundled: str | None = field(default=None, repr=False, compare=False)
    named_weights: bool = field(default=False, repr=False, compare=False)
    tag: str = field(default="", repr=False, compare=False)
    convert: Convert | None = field(default=None, repr=False, compare=False)
    weights: Weights | None = None
    trained_patch: int | None = field(default=None, repr=False, compare=False)
    patch_embedding: str = "random"
    input_scale: float = 1.0
    level_norm: LevelNorm = "none"
    composites: tuple[tuple[int, ...], ...] = ()
    input_norm: InputNorm = "source"
    statistics: tuple[tuple[float, ...], ...] = field(default=(), repr=False, compare=False)
    rotary: bool = field(default=False, repr=False, compare=False)
    reads_wavelengths: bool = field(default=False, repr=False, compare=False)
    wavelengths: tuple[float, ...] = field(default=(), compare=False)
    gsd: float | None = field(default=None, compare=False)
    form: str = field(default="", repr=False, compare=False)
    embeddings: tuple[str, ...] = field(default=(), repr=False, compare=False)
    pretrained_embedding: str = field(default="wavelength", repr=False, compare=False)
    published_levels: tuple[int, ...] = field(default=(), repr=False, compare=False)
    published_norm: LevelNorm = field(default="none", repr=False, compare=False)
    files: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def for_sensor(self, wavelengths: Sequence[float], gsd: float | None) -> Self:
        """The same backbone, told which bands it will read.

        Args:
            wavelengths: Centre wavelengths in micrometres, one per image channel.
            gsd: Ground sampling distance in metres.
        """
        told = replace(self, wavelengths=tuple(wavelengths), gsd=gsd)
        if self.patch_embedding == COMPOSITES and not self.composites:
            told = replace(told, composites=in_composites(wavelengths))
        return told

    def alone(self) -> Self:
        """The backbone without what stands before it: what reads bands that are normalised, one composite at a time."""
        if self.patch_embedding != COMPOSITES:
            return replace(self, input_norm="source")
        strategy = "random" if self.weights is None else "wavelength"
        colours = tuple(sorted(self.card.bands, reverse=True))  # red, green, blue, as the weights have them
        return replace(self, patch_embedding=strategy, wavelengths=colours, composites=(), input_norm="source")

    def reading_as(self, facts: object) -> Self:
        """The same backbone, given images and read as ``facts`` say, which a record keeps."""
        return replace(self, **{name: getattr(facts, name) for name in LATER_FACTS})

    def facts(self) -> dict[str, Any]:
        """Name and sizes, and which pretrained weights: what a record says about a backbone."""
        return {
            "name": self.name,
            **{size: getattr(self, size) for size in SIZES},
            "pretrained": self.pretrained,
            "patch_embedding": self.patch_embedding,
            "weights": self.weights and self.weights.facts(),
            **{name: _plain(value) for name, value in unusual(self).items()},
        }

    @property
    def reads_otherwise(self) -> bool:
        """Whether a fact of ``LATER_FACTS`` has another value than results had before there was any."""
        return bool(unusual(self))

    @property
    def token(self) -> int:
        """Pixels per side of what one token covers, before images are enlarged; windows are multiples of it."""
        return round(self.patch / self.input_scale)

    @property
    def own_embeddings(self) -> tuple[str, ...]:
        """The patch embeddings that belong to its network, the default first; empty where it takes the usual ones."""
        return ("hypernetwork",) if self.reads_wavelengths else self.embeddings

    @property
    def levels(self) -> tuple[int, ...]:
        """The blocks (0-based) after which features are taken: the end of every quarter (5, 11, 17, 23 of 24).

        Those of its authors, where the depth is theirs.
        """
        if self.published_levels and self.published_levels[-1] == self.depth - 1:
            return self.published_levels
        return tuple(max(0, round(self.depth * quarter / 4) - 1) for quarter in (1, 2, 3, 4))

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the four feature maps; those of several composites are joined."""
        return tuple(max(1, len(self.composites)) * width for width in self.stages or (self.width,) * 4)
