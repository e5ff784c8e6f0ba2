"""Turns checkpoint files of the release into files of ours, and back; complete, or not at all.

A file of ours is a ``.safetensors`` with the tensors under this package's names, and the sizes of the model in its
header: ``open_converted`` makes the model of it, without another file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from spectralx.model import SpectralX
from spectralx.released.checkpoint import Checkpoint, Place, read_checkpoint
from spectralx.released.files import ReleaseFile
from spectralx.released.keys import split_biases
from spectralx.released.sizes import PARTS, Family, Part, Sizes, build, on_meta, read_sizes
from spectralx.released.transfer import Report, compare, is_idle
from spectralx.released.write import StageNumber, state_to_released

HEADER = "spectralx_release"
"""Key of the sizes in the metadata of a file of ours."""

PART_NAMES = (
    ("hyper_tokenizer.", "hyper tokenizer"),
    ("patch_path.", "low-rank patch path and scale"),
    ("adapters.", "AoMoA"),
    ("are_adapter.", "Are-adapter"),
    ("decoder.neck.", "neck"),
    ("decoder.head.", "head"),
    ("reconstruction.", "decoder of stage 1"),
    ("backbone.", "transformer"),
)
"""Beginnings of our names, and what a report calls the part."""

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

_AOMOA = (
    "norm_in.weight", "norm_in.bias", "down.weight", "norm_down.weight", "norm_down.bias", "up.weight", "gate.gate",
    "gate.noise", "scale", "experts.fc1_weight", "experts.fc1_bias", "experts.fc2_weight", "experts.fc2_bias",
)  # fmt: skip

_CONVS = [f"conv_blocks.{block}.{layer}" for block in (0, 1) for layer in ("convs.1", "convs.3", "residual")]
_FCN = ("proj", "pred.0.ln", "pred.1", "pred.3", "pred.5", "pred.7", *_CONVS)
_UP = ("up_conv", "up_norm", "res_block.conv1", "res_block.conv2", "res_norm", "proj_out")
_OWN: Mapping[str, tuple[str, ...]] = {
    "scalemae": (
        "fpn.fpn1.0", "fpn.fpn1.1.ln", "fpn.fpn1.3", "fpn.fpn2.0",
        *(f"{band}.{layer}" for band in ("fcn_high", "fcn_low") for layer in _FCN),
    ),
    "satmaepp": ("predict", "proj_up_conv", "proj_up_norm", *(f"up_block.{layer}" for layer in _UP)),
}  # fmt: skip
"""Layers with a weight that a family's decoder of stage 1 has beside transformer blocks."""


@dataclass(frozen=True)
class Conversion:
    """A checkpoint of the release, understood.

    Attributes:
        report: What its keys are to that model.
        missing: What a complete file would have, by our names.
        tensors: Those of the file, by its keys.
        facts: Plain entries of its ``hyper_parameters``.
    """

    sizes: Sizes
    report: Report
    missing: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]

    @property
    def problems(self) -> list[str]:
        """Why it cannot be used as a whole; empty if it can."""
        report = self.report
        return [
            *(f"not understood: {key}" for key in report.unknown),
            *(f"shape differs: {item}" for item in report.mismatched),
            *(f"no place in the model: {key}" for key in report.unplaced),
            *(f"missing: {name}" for name in self.missing),
        ]

    def parts(self) -> dict[str, tuple[int, int]]:
        """Number of tensors in the file, and of parameters in the model, by part."""
        tensors: Counter[str] = Counter()
        numbers: Counter[str] = Counter()
        for key, place in self.report.loaded.items():
            part = next(name for begin, name in PART_NAMES if place.name.startswith(begin))
            tensors[part] += 1
            if not place.name.endswith(_STATISTICS):
                value = self.tensors[key]
                numbers[part] += (value[1:] if key in self.report.without_void else value).numel()
        return {name: (tensors[name], numbers[name]) for _, name in PART_NAMES if name in tensors}

    def ours(self) -> dict[str, Tensor]:
        """The tensors under our names: experts stacked, without the row of class 0."""
        state: dict[str, Tensor] = {}
        experts: dict[str, dict[int, Tensor]] = {}
        for key, place in self.report.loaded.items():
            value = self.tensors[key]
            if place.index is not None:
                experts.setdefault(place.name, {})[place.index] = value
            elif place.name == "reconstruction.mask_token":
                state[place.name] = value.reshape(-1)
            else:
                state[place.name] = value[1:] if key in self.report.without_void else value
        return state | {name: torch.stack([parts[i] for i in range(len(parts))]) for name, parts in experts.items()}


def understand(
    file: ReleaseFile,
    stage: StageNumber | None = None,
    family: Family | None = None,
    heads: int | None = None,
    without: Collection[Part] = (),
) -> Conversion:
    """Finds out what a checkpoint of the release holds, and what it lacks.

    Args:
        file: The open file.
        stage: Of which stage it is; by default as its parts say.
        family: Which transformer; by default as keys and ``hyper_parameters`` say.
        heads: Attention heads; by default one for 64 channels.
        without: Parts that it was trained without.

    Raises:
        ValueError: If it cannot be told what model it is of.
    """
    tensors = split_biases({key: file.tensor(key) for key in file.tensors})
    checkpoint = read_checkpoint(tensors)
    if "backbone" not in checkpoint.roots:
        raise ValueError("there is no transformer in it: expected keys such as model.blocks.0.norm1.weight")
    sizes = read_sizes(checkpoint, tensors, file.facts, stage, family, heads, without)
    report = compare(on_meta(sizes), tensors, checkpoint)
    missing = list(report.missing)
    if sizes.stage == 1:
        report, lacking = _with_reconstruction(report, checkpoint, sizes)
        missing += lacking
    return Conversion(sizes, report, tuple(missing), tensors, file.facts)


def _with_reconstruction(report: Report, checkpoint: Checkpoint, sizes: Sizes) -> tuple[Report, list[str]]:
    """The decoder of stage 1 is the pretraining's own: known by names, whatever its sizes are."""
    places = {
        key: checkpoint.places[key]
        for key in report.unplaced
        if key in checkpoint.places and checkpoint.places[key].name.startswith("reconstruction.")
    }
    wanted = _decoder_names(sizes, places.values())
    known = {name for name in wanted if not name.endswith("]")} | {f"{layer}.bias" for layer in _layers(sizes)}
    known |= {name.partition("[")[0] for name in wanted}
    fits = {key: place for key, place in places.items() if place.name in known}
    found = {str(place) for place in fits.values()}
    values = {**report.__dict__, "loaded": {**report.loaded, **fits}}
    values["unplaced"] = tuple(key for key in report.unplaced if key not in fits)
    return Report(**values), [name for name in wanted if name not in found]


def _layers(sizes: Sizes) -> list[str]:
    return [f"reconstruction.{layer}" for layer in _OWN[sizes.family]]


def _decoder_names(sizes: Sizes, places: Collection[Place]) -> list[str]:
    """Names that a complete decoder of stage 1 has, an index behind those of experts."""
    names = [place.name for place in places]
    depth = 1 + max((int(n.split(".")[2]) for n in names if n.startswith("reconstruction.blocks.")), default=-1)
    block = [f"{layer}.{leaf}" for layer in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
             for leaf in ("weight", "bias")]  # fmt: skip
    wanted = ["embed.weight", "embed.bias", "norm.weight", "norm.bias", "mask_token"]
    wanted += [f"blocks.{number}.{name}" for number in range(max(depth, 1)) for name in block]
    beside = ["embed_adapter", *(["predict_adapter"] if sizes.family == "satmaepp" else [])]
    beside += [f"adapters.{number}.{layer}" for number in range(depth) for layer in ("fc1", "fc2")]
    experts = sizes.options.get("experts", 0)
    for layer in beside if sizes.options["aomoa"] else ():
        for name in _AOMOA:
            stacked = name.startswith("experts.")
            wanted += [f"{layer}.{name}[{i}]" for i in range(experts)] if stacked else [f"{layer}.{name}"]
    return [f"reconstruction.{name}" for name in wanted] + [f"{layer}.weight" for layer in _layers(sizes)]


def save_ours(conversion: Conversion, path: Path, source: str) -> None:
    """Writes a file of ours.

    Args:
        path: The ``.safetensors`` file.
        source: What its header says that it was made of.
    """
    tensors = {name: value.contiguous() for name, value in sorted(conversion.ours().items())}
    header = {"format": 1, "source": source, "sizes": conversion.sizes.as_json()}
    save_file(tensors, path, metadata={HEADER: json.dumps(header)})


def read_header(path: Path) -> dict[str, Any] | None:
    """The header of a file of ours; None for other files.

    Raises:
        ValueError: If its header cannot be understood.
    """
    try:
        with safe_open(path, framework="pt") as stream:
            text = (stream.metadata() or {}).get(HEADER)
    except (OSError, SafetensorError):
        return None
    if text is None:
        return None
    try:
        header = json.loads(text)
        Sizes.from_json(header["sizes"])
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"{path}: the header cannot be understood: {error}") from None
    return dict(header)


def open_converted(path: str | Path, wavelengths: tuple[float, ...] | None = None, **options: Any) -> SpectralX:
    """The model of a file of ours, of stage 2 with its head.

    Args:
        wavelengths: Centre wavelengths in micrometres, instead of those of the file.
        **options: Of ``SpectralXConfig``, instead of those of the file.

    Returns:
        The model, in evaluation mode. Of a file of stage 1, it has no head, and the decoder of stage 1 is left out.

    Raises:
        ValueError: If the file is none of ours, or does not fit the options.
    """
    path = Path(path)
    header = read_header(path)
    if header is None:
        raise ValueError(f"{path}: not a converted checkpoint: make one with stbench convert")
    model = build(Sizes.from_json(header["sizes"]), wavelengths, **options)
    load_converted(model, path)
    return model.eval()


@torch.no_grad()
def load_converted(model: SpectralX, path: str | Path) -> tuple[str, ...]:
    """Puts the tensors of a file of ours into a model, and leaves out those that it has no place for.

    Args:
        model: Changed only if nothing is raised.
        path: The file, of either stage.

    Returns:
        Names of tensors that the model uses and the file does not have; they keep their values.

    Raises:
        ValueError: If shapes differ, or nothing fits.
    """
    state, targets = load_file(path), model.state_dict()
    fits = {name: value for name, value in state.items() if name in targets}
    wrong = [name for name, value in fits.items() if value.shape != targets[name].shape]
    if wrong or not fits:
        found = f"{wrong[0]} has shape {tuple(fits[wrong[0]].shape)}, the model {tuple(targets[wrong[0]].shape)}"
        raise ValueError(f"{path} does not fit the model: {found if wrong else 'they share no tensor'}")
    for name, value in fits.items():
        targets[name].copy_(value)
    return tuple(
        name for name in targets
        if name not in fits and not is_idle(model, name) and not name.endswith("num_batches_tracked")
    )  # fmt: skip


def release_content(state: Mapping[str, Tensor], sizes: Sizes) -> tuple[dict[str, Any], Conversion]:
    """What to hand to ``torch.save`` for a file that the release loads, and what reading it again would tell.

    Args:
        state: A model's tensors by our names.

    Raises:
        ValueError: If something is missing that the release loads; it would not say so itself.
    """
    written = state_to_released(state, stage=sizes.stage)
    facts = {
        "in_channels": sizes.bands, "input_size": sizes.image_size, "patch_size": sizes.patch,
        "wavelength": None if sizes.wavelengths is None else list(sizes.wavelengths),
    }  # fmt: skip
    file = ReleaseFile(Path("what is written"), dict(written), facts)
    without = [part for part in PARTS if not sizes.options[part.replace("-", "_")]]
    again = understand(file, sizes.stage, sizes.family, sizes.heads, without)
    if again.problems:
        raise ValueError(f"the release would not find all it needs: {'; '.join(again.problems[:5])}")
    content = {
        "epoch": 0, "global_step": 0, "pytorch-lightning_version": "2.0.0", "state_dict": written,
        "hyper_parameters": facts,
    }  # fmt: skip
    return content, again
