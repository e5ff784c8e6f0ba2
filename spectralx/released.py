"""Reads the state-dict keys of the authors' release, so that parts trained with it can be used and compared.

There is no second implementation here: every part is one of this package's modules, filled through ``convert``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from spectralx import positions
from spectralx.aomoa import AoMoA
from spectralx.are_adapter import AreAdapter
from spectralx.attention import AttentionBlock, CrossAttention
from spectralx.hyper_tokenizer import Attributes, HyperTokenizer, LowRankPatchPath

BLOCK_KEYS = ((r"\b(attn|mlp)\.", ""),)
"""Pairs of pattern and replacement for a perception block."""

HYPER_KEYS = (
    (r"^downsample_module\.conv1\.", "stem.mix."),
    (r"^downsample_module\.module1\.", "stem.residuals.0."),
    (r"^downsample_module\.module2\.", "stem.reductions.0."),
    (r"^downsample_module\.module3\.", "stem.residuals.1."),
    (r"^downsample_module\.module4\.", "stem.reductions.1."),
    (r"^downsample_module\.conv2\.", "stem.last."),
    (r"^spa_semantic_module\.0\.((attn|mlp)\.)?", "perception.spatial."),
    (r"^spe_semantic_module\.0\.((attn|mlp)\.)?", "perception.spectral."),
    (r"^spa_match_attn\.", "match.attend_spatial."),
    (r"^spe_match_attn\.", "match.attend_spectral."),
    (r"^spa_query$", "match.query_spatial"),
    (r"^spe_query$", "match.query_spectral"),
    (r"^match_ff\.0\.", "match.norm."),
    (r"^match_ff\.1\.", "match.fc1."),
    (r"^match_ff\.3\.", "match.fc2."),
)
"""Pairs for the hyper tokenizer."""

ARE_KEYS = (
    (r"^spa_match_attn\.", "spatial.attend."),
    (r"^spe_match_attn\.", "spectral.attend."),
    (r"^spa_mlp\.", "spatial.direct."),
    (r"^spe_mlp\.", "spectral.direct."),
    (r"^refine_spa\.", "refine_spatial."),
    (r"^refine_spe\.", "refine_spectral."),
)
"""Pairs for the Are-adapter."""

AOMOA_KEYS = (
    (r"^blocks_MoA\.norm1\.", "norm_in."),
    (r"^blocks_MoA\.dimReduction\.", "down."),
    (r"^blocks_MoA\.norm2\.", "norm_down."),
    (r"^blocks_MoA\.dimIncrease\.", "up."),
    (r"^blocks_MoA\.MoA\.w_", "gate."),
    (r"^scaler$", "scale"),
)
"""Pairs for an AoMoA layer; its experts are stacked by ``stack_experts``."""

PATCH_KEYS = ((r"^scaler$", "scale"),)
"""Pairs for the low-rank patch path."""


class ReferenceCase(Protocol):
    """Weights and inputs of one part, under the names of the release."""

    name: str
    config: dict
    state_dict: dict[str, Tensor]
    inputs: dict[str, Tensor]


def convert(state_dict: Mapping[str, Tensor], pairs: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    """Renames keys of the release to ours.

    Args:
        state_dict: Tensors under the keys of the release.
        pairs: Patterns and their replacements, applied one after another.

    Returns:
        The same tensors under our keys.
    """
    renamed = {}
    for key, value in state_dict.items():
        name = key
        for pattern, replacement in pairs:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def stack_experts(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Joins the release's expert modules of an AoMoA layer into our stacked tensors; leaves out its constants."""
    pattern = re.compile(r"^blocks_MoA\.MoA\.experts\.(\d+)\.(fc[12])\.(weight|bias)$")
    stacks: dict[str, dict[int, Tensor]] = {}
    rest = {}
    for key, value in state_dict.items():
        if match := pattern.match(key):
            stacks.setdefault(f"experts.{match[2]}_{match[3]}", {})[int(match[1])] = value
        elif not re.search(r"\.MoA\.(mean|std)$|^linear\.", key):
            rest[key] = value
    joined = {key: torch.stack([parts[i] for i in sorted(parts)]) for key, parts in stacks.items()}
    return convert(rest, AOMOA_KEYS) | joined


@torch.no_grad()
def evaluate(case: ReferenceCase) -> dict[str, Tensor]:
    """Runs one part of the model in the ``released`` reading.

    Args:
        case: Weights in the release's keys, inputs and configuration of the part.

    Returns:
        Output name -> tensor.

    Raises:
        KeyError: If there is no such part in this package.
    """
    for prefix, run in PARTS.items():
        if case.name.startswith(prefix):
            return run(case)
    raise KeyError(f"{case.name}: no such part here, expected one of {', '.join(PARTS)}")


def _filled(module: nn.Module, state_dict: Mapping[str, Tensor]) -> nn.Module:
    module.load_state_dict(state_dict)
    return module.eval()


def _positions(case: ReferenceCase) -> dict[str, Tensor]:
    outputs = {"spa": positions.spatial(512, 28, 28, 10.0)[None]}
    plain = positions.spatial(1024, 14, 14, 10.0)
    outputs["vit_gsd10_cls"] = torch.cat([plain.new_zeros(1, 1024), plain])[None]
    for bands, wavelengths in case.config["WL"].items():
        outputs[f"spe_raw_{bands}"] = positions.spectral(784, wavelengths)
        outputs[f"spe_interp_{bands}"] = positions.spectral(784, wavelengths, 512)
    return outputs


def _spatial_block(case: ReferenceCase) -> dict[str, Tensor]:
    x = case.inputs["x"]
    rows, columns, width = x.shape[1:]
    block = _filled(AttentionBlock(width, 8), convert(case.state_dict, BLOCK_KEYS))
    return {"out": block(x.flatten(1, 2), (rows, columns, 14)).view_as(x)}


def _spectral_block(case: ReferenceCase) -> dict[str, Tensor]:
    x = case.inputs["x"]
    rows, columns, _ = x.shape[1:]
    block = _filled(AttentionBlock(rows * columns, 8), convert(case.state_dict, BLOCK_KEYS))
    return {"out": block(x.flatten(1, 2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)}


def _cross_attention(case: ReferenceCase) -> dict[str, Tensor]:
    media, latents = case.inputs["x"], case.inputs["latents"]
    module = CrossAttention(media.shape[-1], latents.shape[-1])
    _filled(module, case.state_dict)
    weights = module.log_weights(latents, module.keys_values(media)[0]).exp()
    return {"out": module(latents, media), "attn": weights[:, None]}


def _hyper_tokenizer(case: ReferenceCase) -> dict[str, Tensor]:
    module = HyperTokenizer(case.config["in_channels"], case.config["wavelength"], 14, 16, 1024, gsd=10.0)
    _filled(module, convert(case.state_dict, HYPER_KEYS))
    seen: dict[str, Tensor] = {}
    for name, part in {
        "mid_downsample": module.stem,
        "mid_spa_block": module.perception.spatial,
        "mid_spe_block": module.perception.spectral,
        "mid_spa_attn": module.match.attend_spatial,
        "mid_spe_attn": module.match.attend_spectral,
    }.items():
        part.register_forward_hook(lambda _module, _inputs, output, name=name: seen.update({name: output}))
    tokens, attributes = module(case.inputs["x"])
    grid = (len(tokens), module.side, module.side, module.attributes)
    seen["mid_spa_block"] = seen["mid_spa_block"].view(grid)
    seen["mid_spe_block"] = seen["mid_spe_block"].transpose(1, 2).reshape(grid)
    return {"tokens": tokens, "spa_fea": attributes.spatial, "spe_fea": attributes.spectral, **seen}


def _aomoa(case: ReferenceCase) -> dict[str, Tensor]:
    x = case.inputs["x"]
    layer = AoMoA(case.config["in_dim"], case.config["out_dim"], combine="exponential")
    _filled(layer, stack_experts(case.state_dict))
    trace = layer.trace(x)
    linear = functional.linear(x, case.state_dict["linear.weight"], case.state_dict["linear.bias"])
    outputs = {"out": linear + layer(x)[0]}
    for half, name in enumerate(("spa", "spe")):
        gates = trace.gates[:, :, half].flatten(0, 1)
        outputs[f"gates_{name}"] = gates
        outputs[f"load_{name}"] = (gates > 0).sum(0)
        outputs[f"moe_{name}"] = trace.combined[:, :, half].flatten(0, 1)
        outputs[f"aomoa_{name}"] = trace.raised[:, :, half]
    return outputs


def _are_adapter(case: ReferenceCase) -> dict[str, Tensor]:
    tokens = case.inputs["feats"]
    attributes = Attributes(case.inputs["spa_fea"], case.inputs["spe_fea"])
    module = AreAdapter(tokens.shape[-1], attributes.spatial.shape[-1], 14, matching="hard")
    _filled(module, convert(case.state_dict, ARE_KEYS))
    patches, media = tokens[:, 1:], module.media(attributes)
    refined = module(patches, media)
    outputs = {"out": torch.cat([tokens[:, :1], refined], dim=1), "out_no_cls": refined}
    outputs["delta"] = module.modulation(patches, media)
    for name, match, half, side in zip(
        ("spa", "spe"), (module.spatial, module.spectral), patches.chunk(2, dim=-1), media, strict=True
    ):
        weights = match.attend.log_weights(half, side[0]).exp()
        outputs[f"attn_{name}"] = weights[:, None]
        outputs[f"idx_{name}"] = weights.argmax(dim=1)
    return outputs


def _patch_path(case: ReferenceCase) -> dict[str, Tensor]:
    x = case.inputs["x"]
    weight, bias = case.state_dict["proj.weight"], case.state_dict["proj.bias"]
    width, bands, patch, _ = weight.shape
    path = LowRankPatchPath(bands, width, patch, case.config["r"])
    own = {key: value for key, value in case.state_dict.items() if not key.startswith("proj.")}
    _filled(path, convert(own, PATCH_KEYS))
    embedded = functional.conv2d(x, weight, bias, stride=patch)
    tokens = path(x, embedded.flatten(2).transpose(1, 2))
    return {"out": tokens.transpose(1, 2).view_as(embedded)}


PARTS = {
    "pos_encodings": _positions,
    "sam_block_spatial": _spatial_block,
    "sam_block_spectral": _spectral_block,
    "perceiver_attention": _cross_attention,
    "hypert": _hyper_tokenizer,
    "aomoa": _aomoa,
    "are_adapter": _are_adapter,
    "slr_conv": _patch_path,
}
"""Beginning of a case's name -> what runs it."""
