"""Runs single parts of the model on weights under the release's keys.

Sizes come from the weights, not from the configuration of a case: the number of bands, the token grid, ranks and
experts may be any.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from spectralx import positions
from spectralx.aomoa import AoMoA, Experts, Gate
from spectralx.are_adapter import AreAdapter
from spectralx.attention import AttentionBlock, CrossAttention
from spectralx.hyper_tokenizer import Attributes, HyperTokenizer
from spectralx.released import linear
from spectralx.released.keys import ARE_KEYS, BLOCK_KEYS, HYPER_KEYS, convert, rename, stack_experts

Filled = TypeVar("Filled", bound=nn.Module)

HEADS = 8
"""Heads of the release's perception blocks, whatever their width."""

TOP_K = 2
"""Experts that a token uses, where a case does not say."""


class ReferenceCase(Protocol):
    """Weights and inputs of one part, under the names of the release."""

    name: str
    config: dict
    state_dict: dict[str, Tensor]
    inputs: dict[str, Tensor]


@torch.no_grad()
def evaluate(case: ReferenceCase) -> dict[str, Tensor]:
    """Runs one part of the model in the ``released`` reading, in single precision.

    A case with the word ``train`` in its name runs with the batch statistics of its inputs (HyperT and Are-adapter).

    Args:
        case: Weights in the release's keys, inputs and configuration of the part; its name begins with one of
            ``PARTS``.

    Returns:
        Output name -> tensor.

    Raises:
        KeyError: If there is no such part in this package.
        ValueError: If weights are missing, or do not fit together.
    """
    for prefix, run in PARTS.items():
        if case.name.startswith(prefix):
            return run(case)
    raise KeyError(f"{case.name}: no such part here, expected one of {', '.join(PARTS)}")


def filled(module: Filled, state_dict: Mapping[str, Tensor], train: bool = False) -> Filled:
    """A module with these weights, in evaluation or training mode.

    Raises:
        ValueError: If weights are missing or have another shape than the module's.
    """
    own = module.state_dict()
    counters = {name: value for name, value in own.items() if name.endswith("num_batches_tracked")}
    if missing := sorted(own.keys() - state_dict.keys() - counters.keys()):
        raise ValueError(f"weights are missing, in this package's names: {', '.join(missing)}")
    try:
        module.load_state_dict({**counters, **state_dict})
    except RuntimeError as error:
        raise ValueError(str(error)) from None
    return module.train(train)


def _in_training(case: ReferenceCase) -> bool:
    return "train" in re.split(r"[^a-z]+", case.name.lower())


def _positions(case: ReferenceCase) -> dict[str, Tensor]:
    outputs = {"spa": positions.spatial(512, 28, 28, 10.0)[None]}
    plain = positions.spatial(1024, 14, 14, 10.0)
    outputs["vit_gsd10_cls"] = torch.cat([plain.new_zeros(1, 1024), plain])[None]
    for bands, wavelengths in case.config["WL"].items():
        outputs[f"spe_raw_{bands}"] = positions.spectral(784, wavelengths)
        outputs[f"spe_interp_{bands}"] = positions.spectral(784, wavelengths, 512)
    return outputs


def _block(width: int, state_dict: Mapping[str, Tensor]) -> AttentionBlock:
    mlp = state_dict["mlp.fc1.weight"].shape[0] / width
    return _with_heads(filled(AttentionBlock(width, HEADS, mlp), convert(state_dict, BLOCK_KEYS)))


def _with_heads(block: AttentionBlock) -> AttentionBlock:
    """Our blocks take fewer heads where they are thin; the release's do not."""
    width = block.proj.in_features
    block.heads = HEADS if width % HEADS == 0 else block.heads
    return block


def _spatial_block(case: ReferenceCase) -> dict[str, Tensor]:
    x = case.inputs["x"]
    rows, columns, width = x.shape[1:]
    block = _block(width, case.state_dict)
    return {"out": block(x.flatten(1, 2), (rows, columns, 14)).view_as(x)}


def _spectral_block(case: ReferenceCase) -> dict[str, Tensor]:
    x = case.inputs["x"]
    rows, columns, _ = x.shape[1:]
    block = _block(rows * columns, case.state_dict)
    return {"out": block(x.flatten(1, 2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)}


def _cross_attention(case: ReferenceCase) -> dict[str, Tensor]:
    media, latents = case.inputs["x"], case.inputs["latents"]
    module = filled(CrossAttention(media.shape[-1], latents.shape[-1]), case.state_dict)
    weights = module.log_weights(latents, module.keys_values(media)[0]).exp()
    return {"out": module(latents, media), "attn": weights[:, None]}


def _wavelengths(case: ReferenceCase) -> list[float]:
    for name in ("wavelength", "wavelengths"):
        for source in (case.config, case.inputs):
            if (values := source.get(name)) is not None:
                return [float(value) for value in torch.as_tensor(values).flatten()]
    raise ValueError(f"{case.name}: no wavelengths in the configuration, expected a list under 'wavelength'")


def hyper_tokenizer(
    state_dict: Mapping[str, Tensor], image_size: Sequence[int], wavelengths: Sequence[float], train: bool = False
) -> HyperTokenizer:
    """The hyper tokenizer that fits the release's weights.

    Args:
        state_dict: Weights under the release's keys; others are ignored.
        image_size: Rows and columns of the images in pixels.
        wavelengths: Centre wavelengths in micrometres; as many as one likes.
        train: Whether to use batch statistics.

    Raises:
        ValueError: If weights are missing, or do not fit the image size.
    """
    weights = convert(state_dict, HYPER_KEYS)
    sizes = ("stem.mix.weight", "stem.last.weight", "match.query_spatial", "perception.spectral.norm1.weight")
    for name in (*sizes, "perception.spatial.fc1.weight"):
        if name not in weights:
            raise ValueError(f"weights are missing, in this package's names: {name}")
    first, last, queries, places = (weights[name].shape for name in sizes)
    reductions = [name for name in weights if re.fullmatch(r"stem\.reductions\.\d+\.0\.weight", name)]
    inner = [weights[name].shape[0] for name in sorted(reductions, key=lambda name: int(name.split(".")[2]))]
    patch = math.isqrt(image_size[0] * image_size[1] // queries[0])
    grid = (image_size[0] // patch, image_size[1] // patch)
    cells = math.isqrt(places[0] // queries[0])
    if grid[0] * grid[1] != queries[0] or cells * cells * queries[0] != places[0]:
        raise ValueError(
            f"weights are for {queries[0]} tokens and {places[0]} places, which images of {tuple(image_size)} px "
            "do not divide into"
        )
    attributes, hidden = weights["perception.spatial.fc1.weight"].shape[::-1]
    module = HyperTokenizer(
        first[1],
        wavelengths,
        grid,
        patch,
        2 * queries[1],
        cells=cells,
        gsd=10.0,
        widths=(first[0], *inner, last[0]),
        heads=HEADS,
        mlp=hidden / attributes,
    )
    filled(module, weights, train)
    _with_heads(module.perception.spatial)
    _with_heads(module.perception.spectral)
    return module


def _hyper_tokenizer(case: ReferenceCase) -> dict[str, Tensor]:
    x = case.inputs["x"]
    module = hyper_tokenizer(case.state_dict, x.shape[-2:], _wavelengths(case), _in_training(case))
    seen: dict[str, Tensor] = {}
    for name, part in {
        "mid_downsample": module.stem,
        "mid_spa_block": module.perception.spatial,
        "mid_spe_block": module.perception.spectral,
        "mid_spa_attn": module.match.attend_spatial,
        "mid_spe_attn": module.match.attend_spectral,
    }.items():
        part.register_forward_hook(lambda _module, _inputs, output, name=name: seen.update({name: output}))
    tokens, attributes = module(x)
    rows, columns = seen["mid_downsample"].shape[-2:]
    grid = (len(tokens), rows, columns, -1)
    seen["mid_spa_block"] = seen["mid_spa_block"].view(grid)
    seen["mid_spe_block"] = seen["mid_spe_block"].transpose(1, 2).reshape(grid)
    return {"tokens": tokens, "spa_fea": attributes.spatial, "spe_fea": attributes.spectral, **seen}


def _hyper_tokenizer_with_path(case: ReferenceCase) -> dict[str, Tensor]:
    """HyperT in the place of the patch convolution, under any prefix, and the low-rank path beside it."""
    x = case.inputs["x"]
    anchors = [key for key in case.state_dict if key == "spa_query" or key.endswith(".spa_query")]
    if len(anchors) != 1:
        raise ValueError(f"{case.name}: found {anchors}, expected exactly one key that ends in spa_query")
    prefix = anchors[0].removesuffix("spa_query")
    inner = {key.removeprefix(prefix): value for key, value in case.state_dict.items() if key.startswith(prefix)}
    theirs = {prefix + key for key in inner if rename(key, HYPER_KEYS) is not None}
    beside = {key: value for key, value in case.state_dict.items() if key not in theirs}
    module = hyper_tokenizer(inner, x.shape[-2:], _wavelengths(case), _in_training(case))
    tokens, attributes = module(x)
    path = linear.patch_path(beside, scaled=True)
    rows, columns = module.match.grid
    tokens = path(x, tokens).transpose(1, 2).unflatten(2, (rows, columns))
    return {"out": tokens, "spa_fea": attributes.spatial, "spe_fea": attributes.spectral}


def aomoa(state_dict: Mapping[str, Tensor], top_k: int = TOP_K) -> AoMoA:
    """The AoMoA layer that fits the release's weights.

    Raises:
        ValueError: If weights are missing.
    """
    weights = stack_experts(state_dict)
    for name in ("norm_in.weight", "down.weight", "scale", "gate.gate", "experts.fc1_weight"):
        if name not in weights:
            raise ValueError(f"weights are missing, in this package's names: {name}")
    inner, half = weights["down.weight"].shape
    experts, hidden, _ = weights["experts.fc1_weight"].shape
    layer = AoMoA(2 * half, weights["scale"].numel(), experts=experts, top_k=top_k, combine="exponential")
    layer.down, layer.norm_down = nn.Linear(half, inner, bias=False), nn.LayerNorm(inner)
    layer.up = nn.Linear(inner, layer.scale.numel() // 2, bias=False)
    layer.gate, layer.experts = Gate(inner, experts, top_k, 0.0, ties="topk"), Experts(experts, inner, hidden)
    return filled(layer, weights)


def _aomoa(case: ReferenceCase) -> dict[str, Tensor]:
    x = case.inputs["x"]
    layer = aomoa(case.state_dict, case.config.get("k", TOP_K))
    trace = layer.trace(x)
    base = functional.linear(x, case.state_dict["linear.weight"], case.state_dict.get("linear.bias"))
    outputs = {"out": base + layer(x)[0]}
    for half, name in enumerate(("spa", "spe")):
        gates = trace.gates[:, :, half].flatten(0, 1)
        outputs[f"gates_{name}"] = gates
        outputs[f"load_{name}"] = (gates > 0).sum(0)
        outputs[f"moe_{name}"] = trace.combined[:, :, half].flatten(0, 1)
        outputs[f"aomoa_{name}"] = trace.raised[:, :, half]
    return outputs


def are_adapter(state_dict: Mapping[str, Tensor], train: bool = False) -> AreAdapter:
    """The Are-adapter that fits the release's weights.

    Raises:
        ValueError: If weights are missing, or the token grid is not square.
    """
    weights = convert(state_dict, ARE_KEYS)
    for name in ("spatial.direct.weight", "spectral.direct.weight", "norm.weight"):
        if name not in weights:
            raise ValueError(f"weights are missing, in this package's names: {name}")
    patches, places = weights["spatial.direct.weight"].shape
    attributes, half = weights["spectral.direct.weight"].shape[1], weights["norm.weight"].numel()
    grid, cells = math.isqrt(patches), math.isqrt(places // patches)
    if grid**2 != patches or cells**2 * patches != places:
        raise ValueError(f"weights are for {patches} tokens and {places} places, expected square grids")
    module = AreAdapter(2 * half, attributes, grid, matching="hard", cells=cells)
    return filled(module, weights, train)


def _are_adapter(case: ReferenceCase) -> dict[str, Tensor]:
    tokens = case.inputs["feats"]
    attributes = Attributes(case.inputs["spa_fea"], case.inputs["spe_fea"])
    module = are_adapter(case.state_dict, _in_training(case))
    patches = case.state_dict["spa_mlp.weight"].shape[0]
    prefix = tokens.shape[1] - patches
    if prefix < 0:
        raise ValueError(f"{case.name}: {tokens.shape[1]} tokens, expected {patches} and perhaps a class token")
    own, media = tokens[:, prefix:], module.media(attributes)
    refined = module(own, media)
    outputs = {"out": torch.cat([tokens[:, :prefix], refined], dim=1), "out_no_cls": refined}
    outputs["delta"] = module.modulation(own, media)
    for name, match, half, side in zip(
        ("spa", "spe"), (module.spatial, module.spectral), own.chunk(2, dim=-1), media, strict=True
    ):
        weights = match.attend.log_weights(half, side[0]).exp()
        outputs[f"attn_{name}"] = weights[:, None]
        outputs[f"idx_{name}"] = weights.argmax(dim=1)
    return outputs


def _baseline(case: ReferenceCase) -> dict[str, Tensor]:
    family = cast(linear.Family, case.name.split("_")[0])
    return {"out": linear.run(family, case.state_dict, case.inputs["x"])}


PARTS = {
    "pos_encodings": _positions,
    "sam_block_spatial": _spatial_block,
    "sam_block_spectral": _spectral_block,
    "perceiver_attention": _cross_attention,
    "hypert_lowrank_conv": _hyper_tokenizer_with_path,
    "hypert": _hyper_tokenizer,
    "aomoa": _aomoa,
    "are_adapter": _are_adapter,
    "lora_": _baseline,
    "slr_": _baseline,
    "ia3_": _baseline,
}
"""Beginning of a case's name -> what runs it; the first that fits."""
