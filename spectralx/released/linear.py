"""The release's baselines: LoRA, SLR and IA3 on linear layers and on the patch convolution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

from torch import Tensor, nn
from torch.nn import functional

from spectralx.hyper_tokenizer import LowRankPatchPath
from spectralx.low_rank import LoraLinear, LowRankConv, SlrLinear

Family = Literal["lora", "slr", "ia3"]
Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)

FACTORS = ("down", "up")


def run(family: Family, state_dict: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Output of a baseline layer.

    Args:
        family: ``lora``, ``slr`` or ``ia3``.
        state_dict: Weights under the release's keys: the frozen layer's, a linear one or a patch convolution, those
            of ``down`` and ``up``, and scalers.
        x: (..., in), or images (B, C, H, W) for a convolution.

    Returns:
        (..., out), or (B, D, h, w).

    Raises:
        ValueError: If weights are missing or do not fit.
    """
    weight, bias = _base(state_dict)
    if family == "ia3":
        return _ia3(state_dict, weight, bias, x)
    if weight.dim() == 4:
        conv = LowRankConv(_convolution(weight, bias))
        conv.path = patch_path(state_dict, scaled=family == "slr")
        return conv(x)
    return _low_rank(family, state_dict, weight, bias)(x)


def patch_path(state_dict: Mapping[str, Tensor], scaled: bool) -> LowRankPatchPath:
    """The low-rank patch path, with any kernel sizes, under ``down``, ``up`` and ``scaler`` after any prefix.

    Args:
        state_dict: Weights; others are ignored.
        scaled: Whether ``scaler`` must be there; otherwise it is taken as one where it is not.

    Raises:
        ValueError: If weights are missing or do not fit.
    """
    (down, down_bias), (up, up_bias) = (_layer(state_dict, name) for name in FACTORS)
    if down.dim() != 4 or up.dim() != 4 or up.shape[1] != down.shape[0]:
        raise ValueError(f"down is {tuple(down.shape)} and up is {tuple(up.shape)}, expected two convolutions in a row")
    patch = down.shape[-1] * up.shape[-1]
    path = LowRankPatchPath(down.shape[1], up.shape[0], patch, down.shape[0])
    path.down, path.up = _convolution(down, down_bias), _convolution(up, up_bias)
    scaler = _needed(state_dict, "scaler") if scaled else _find(state_dict, "scaler")
    if scaler is not None:
        path.scale = nn.Parameter(_fitting(scaler, up.shape[0], "scaler"))
    return path.eval()


def _low_rank(family: Family, state_dict: Mapping[str, Tensor], weight: Tensor, bias: Tensor | None) -> nn.Module:
    (down, down_bias), (up, up_bias) = (_layer(state_dict, name) for name in FACTORS)
    if tuple(up.shape) != (weight.shape[0], down.shape[0]) or down.shape[1] != weight.shape[1]:
        raise ValueError(
            f"down is {tuple(down.shape)} and up is {tuple(up.shape)}, expected factors for {tuple(weight.shape)}"
        )
    kind = SlrLinear if family == "slr" else LoraLinear
    layer = kind(_linear(weight, bias), len(down))
    layer.down, layer.up = _linear(down, down_bias), _linear(up, up_bias)
    if isinstance(layer, SlrLinear):
        for name, width in (("in_scaler", weight.shape[1]), ("out_scaler", weight.shape[0])):
            setattr(layer, name, nn.Parameter(_fitting(_needed(state_dict, name), width, name)))
    return layer.eval()


def _ia3(state_dict: Mapping[str, Tensor], weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """``W(s * x) + b``; a scaler that fits only what comes out, or is named so, multiplies that instead."""
    outputs, inputs = weight.shape[:2]
    base = _base_name(state_dict)
    scalers = {key: value for key, value in state_dict.items() if key not in (f"{base}.weight", f"{base}.bias")}
    before, after = x.new_ones(inputs), x.new_ones(outputs)
    fitting = 0
    for key, value in scalers.items():
        named_out = "out" in key.rpartition(".")[2]
        if value.numel() == inputs and not (named_out and value.numel() == outputs):
            before = before * value.flatten()
        elif value.numel() == outputs:
            after = after * value.flatten()
        else:
            continue
        fitting += 1
    if not fitting:
        raise ValueError(f"no scaler of {inputs} or {outputs} values beside {base}: found {sorted(scalers)}")
    if weight.dim() == 2:
        return after * functional.linear(before * x, weight, bias)
    out = functional.conv2d(before.view(-1, 1, 1) * x, weight, bias, stride=(weight.shape[2], weight.shape[3]))
    return after.view(-1, 1, 1) * out


def _base_name(state_dict: Mapping[str, Tensor]) -> str:
    """Name of the frozen layer: the only one with a matrix or kernel apart from the factors."""
    names = [key.removesuffix(".weight") for key, value in state_dict.items() if value.dim() in (2, 4)]
    names = [name for name in names if f"{name}.weight" in state_dict and name.rpartition(".")[2] not in FACTORS]
    if len(names) != 1:
        raise ValueError(f"found {names or 'nothing'}, expected exactly one frozen layer, such as linear or proj")
    return names[0]


def _base(state_dict: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    name = _base_name(state_dict)
    return state_dict[f"{name}.weight"], state_dict.get(f"{name}.bias")


def _find(state_dict: Mapping[str, Tensor], name: str) -> Tensor | None:
    """The tensor under a name, after any prefix."""
    keys = [key for key in state_dict if key == name or key.endswith("." + name)]
    if len(keys) > 1:
        raise ValueError(f"found {', '.join(keys)} for {name}, expected one key that ends in it")
    return state_dict[keys[0]] if keys else None


def _needed(state_dict: Mapping[str, Tensor], name: str) -> Tensor:
    tensor = _find(state_dict, name)
    if tensor is None:
        raise ValueError(f"weights are missing: {name}, found {', '.join(sorted(state_dict)) or 'nothing'}")
    return tensor


def _layer(state_dict: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor | None]:
    return _needed(state_dict, f"{name}.weight"), _find(state_dict, f"{name}.bias")


def _fitting(scaler: Tensor, width: int, name: str) -> Tensor:
    if scaler.numel() != width:
        raise ValueError(f"{name} has {scaler.numel()} values, expected {width}")
    return scaler.flatten()


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    return _with_weights(
        nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta"), weight, bias
    )


def _convolution(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    kernel = (weight.shape[2], weight.shape[3])
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], kernel, kernel, bias=bias is not None, device="meta")
    return _with_weights(layer, weight, bias)


def _with_weights(layer: Layer, weight: Tensor, bias: Tensor | None) -> Layer:
    layer.weight = nn.Parameter(weight)
    if bias is not None:
        layer.bias = nn.Parameter(bias)
    return layer
