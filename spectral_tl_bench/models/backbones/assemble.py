"""Builds a backbone: the network, then its weights, then the layer that reads the bands."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from timm.layers import resample_abs_pos_embed
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer import checkpoint_filter_fn as swin_names
from torch import Tensor, nn
from torch.nn import functional

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.models.backbones.files import read_state, without_module, without_prefix
from spectral_tl_bench.models.backbones.input_scale import check_window, enlarge_before
from spectral_tl_bench.models.backbones.pyramid import core, stem_key, stem_of
from spectral_tl_bench.models.backbones.spec import BackboneSpec, Weights
from spectral_tl_bench.models.patch_embedding import COMPOSITES, OWN, RGB, mixed, mixing, resampled
from spectral_tl_bench.models.weights import State

IGNORED = ("decoder", "mask_token", "head.", "fc.", "fc_norm.", "contrast_head", "predictor", "proj_up", "projectors.")
"""How names begin in checkpoints that belong to a pretraining and not to the encoder."""

LEAST = 0.5
"""Share of the encoder's parameters that a file must have."""


@dataclass(frozen=True)
class Fit:
    """How a file's tensors fit a network.

    Attributes:
        state: The tensors to load, by the names of ``core(network)``.
        matched: Share of the encoder's parameters that the file has.
        missing: Names in the network that the file lacks.
        unexpected: Names in the file that the network has no place for.
    """

    state: State
    matched: float
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def read_weights(weights: Weights, device: str = "cpu") -> State:
    """The tensors of a backbone's file; of several files, those of the second begin with ``spectral.``.

    Raises:
        UserError: If a file is missing, damaged, or holds no weights.
    """
    state, *more = (read_state(path, device) for path in weights.paths)
    for other in more:
        state = without_module(state) | {f"spectral.{name}": value for name, value in without_module(other).items()}
    return state


def assemble(spec: BackboneSpec, in_chans: int, image_size: int) -> nn.Module:
    """The network of a backbone with its weights; on the meta device without reading a file.

    Args:
        image_size: Side of the images in pixels.

    Raises:
        UserError: If images or bands do not suit it, or its weights do not fit.
    """
    _check(spec, in_chans, image_size)
    side = image_size // spec.token * spec.patch
    # What is made of enlarged images has as many metres per pixel fewer, which some tell their positions.
    seen = replace(spec, gsd=spec.gsd / spec.input_scale) if spec.gsd and spec.token != spec.patch else spec
    network = spec.make(seen, in_chans, side)
    on_meta = next(network.parameters()).is_meta
    if spec.weights is not None and not on_meta:
        fit = fit_state(seen, network, read_weights(spec.weights), in_chans)
        core(network).load_state_dict(fit.state, strict=False)
    elif spec.patch_embedding not in ("random", *OWN) and not on_meta:
        _spread_random(spec, network)
    if spec.patch_embedding == "lowrank":
        low_rank_stem(spec, network)
    enlarge_before(network, spec)
    cast(Any, network).level_norm = spec.level_norm
    return network


def _check(spec: BackboneSpec, in_chans: int, image_size: int) -> None:
    check_window(spec, image_size)
    if spec != spec.alone():
        what, flag = f"patch embedding {COMPOSITES!r} runs {spec.name} on three bands at a time", "--patch-embedding"
        if spec.patch_embedding != COMPOSITES:
            what, flag = f"input norm {spec.input_norm!r} is for what {spec.name} alone sees", "--input-norm"
        raise UserError(
            f"{what}, and this method builds its network for all bands by itself",
            expected="a method on the suite's segmenter, such as full, frozen, lora, rein or vpt-deep",
            fix=f"leave out {flag}",
        )
    if spec.patch_embedding not in ("random", "repeat", "mean") and len(spec.wavelengths) != in_chans:
        raise UserError(
            f"{spec.name} with patch embedding {spec.patch_embedding!r} needs the wavelength of every band: "
            f"{len(spec.wavelengths)} are given for {in_chans} bands",
            expected="Backbone.for_sensor(wavelengths, gsd), which the runner calls",
        )


def fit_state(spec: BackboneSpec, network: nn.Module, state: State, in_chans: int) -> Fit:
    """Bring the tensors of a checkpoint to the names and sizes of a network.

    Args:
        spec: The backbone; says how bands are changed.
        network: What ``spec.make`` built; only names and shapes are looked at.
        state: Tensors by name.
        in_chans: Bands of the network.

    Raises:
        UserError: If shapes differ, or the file holds less than half of the encoder.
    """
    grouped = any(name.endswith("channel_embed") or ".patch_embed.0." in f".{name}" for name in state)
    if grouped and spec.patch_embedding != "own-groups":
        raise UserError(
            "the weights are those of a model with grouped channels, which has several patch embeddings",
            where=spec.weights and spec.weights.path,
            expected="a model with one patch embedding (for SatMAE++: the one trained on fMoW RGB)",
            fix="choose the backbone that they belong to; those of Galileo are galileo-nano, -tiny and -base",
        )
    body = core(network)
    state = _renamed(spec, body, without_prefix(state, body))
    target = body.state_dict()
    state = _with_positions(body, state, target)
    stem, drawn = stem_key(network), False
    # Of a file with other patches than the declared ones, a wrong file is more likely than a wish.
    if stem in state and stem in target and state[stem].shape[-1:] == (spec.trained_patch,):
        state = {**state, stem: resampled(state[stem], spec.patch)}
    if stem in state and stem in target and spec.patch_embedding not in OWN:
        drawn = spec.patch_embedding == "random"
        state = {**state, stem: target[stem] if drawn else _new_bands(spec, state[stem], in_chans)}
    ignored = IGNORED + tuple(getattr(network, "left_out", ()))
    unexpected = tuple(name for name in state if name not in target and not name.startswith(ignored))
    if wrong := [name for name in state if name in target and state[name].shape != target[name].shape]:
        lines = [f"{name}: expected {_shape(target[name])}, found {_shape(state[name])}" for name in wrong[:5]]
        more = f"\n    and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise UserError(
            f"{len(wrong)} tensors of the weights do not have the shapes of {spec.name}:\n    "
            + "\n    ".join(lines)
            + more,
            where=spec.weights and spec.weights.path,
            fix="choose the backbone that the weights belong to, or --backbone-size",
        )
    fitting = {name: value for name, value in state.items() if name in target}
    if drawn:
        del fitting[stem]
    sizes = {name: parameter.numel() for name, parameter in body.named_parameters()}
    held = sum(size for name, size in sizes.items() if name in fitting or (drawn and name == stem))
    matched = held / max(1, sum(sizes.values()))
    missing = tuple(name for name in target if name not in fitting and not (drawn and name == stem))
    if matched < LEAST:
        raise UserError(
            f"the weights are not those of {spec.name}: they have {matched:.0%} of its parameters",
            where=spec.weights and spec.weights.path,
            expected=f"names like {missing[0] if missing else stem}",
            fix=f"the file has names like {next(iter(state), '(none)')}; choose the backbone that it belongs to",
        )
    return Fit(fitting, matched, missing, unexpected)


def _renamed(spec: BackboneSpec, body: nn.Module, state: State) -> State:
    if isinstance(body, SwinTransformer):
        try:
            return cast(State, swin_names(state, body))  # resizes the tables of relative positions, too
        except AttributeError as error:
            raise UserError(
                f"the weights are those of another Swin Transformer than {spec.name}: {error}",
                where=spec.weights and spec.weights.path,
            ) from None
    return spec.convert(spec, body, state) if spec.convert else state


def _with_positions(body: nn.Module, state: State, target: State) -> State:
    """The state with its position table interpolated to the grid of the network."""
    key = "pos_embed"
    if key not in state or key not in target or state[key].shape == target[key].shape:
        return state
    table, wanted = state[key], target[key]
    if table.ndim != 3 or wanted.ndim != 3 or table.shape[-1] != wanted.shape[-1]:
        return state  # reported as another shape
    grid = cast(Any, body).patch_embed.grid_size
    prefix = wanted.shape[1] - grid[0] * grid[1]
    side = round((table.shape[1] - prefix) ** 0.5)
    if prefix < 0 or side * side != table.shape[1] - prefix:
        return state
    resized = resample_abs_pos_embed(table, new_size=list(grid), old_size=[side, side], num_prefix_tokens=prefix)
    return {**state, key: resized}


def _new_bands(spec: BackboneSpec, weight: Tensor, in_chans: int) -> Tensor:
    """The weight of the first layer for other bands."""
    if weight.ndim != 4:
        return weight  # reported as another shape
    counted = weight.shape[1]
    if spec.patch_embedding in ("repeat", "mean"):
        placeholder = (0.0,) * in_chans
        return mixed(weight, mixing(spec.patch_embedding, placeholder, (0.0,) * counted))
    bands = next((known for known in (spec.card.bands, RGB) if len(known) == counted), None)
    if bands is None and counted == in_chans:
        return weight
    if bands is None:
        raise UserError(
            f"the patch embedding of the weights reads {counted} bands, whose wavelengths are not known",
            where=spec.weights and spec.weights.path,
            expected=f"{len(spec.card.bands) or 3} bands",
            fix="choose --patch-embedding repeat, mean or random",
        )
    return mixed(weight, mixing(spec.patch_embedding, spec.wavelengths, bands))


def _spread_random(spec: BackboneSpec, network: nn.Module) -> None:
    """The strategy on random filters for the bands that the backbone's weights would read."""
    owner, leaf = stem_of(network)
    layer = cast(nn.Conv2d, getattr(owner, leaf))
    bands = len(spec.card.bands or RGB)
    drawn = nn.Conv2d(bands, layer.out_channels, layer.kernel_size, bias=False)  # type: ignore[arg-type]
    with torch.no_grad():
        layer.weight.copy_(_new_bands(spec, drawn.weight, layer.in_channels))


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"


RANK = 16
"""Channels of the low-rank path between its two convolutions (Scheibenreif et al., CVPR 2024)."""


class FrozenFilters(nn.Module):
    """A patch convolution whose weights are no parameters, so that no method can train them.

    Args:
        layer: The convolution, stride = kernel.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.stride = layer.stride
        self.register_buffer("weight", layer.weight.detach().clone())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to (B, D, h, w)."""
        return functional.conv2d(images, self.weight, self.bias, self.stride)


class LowRankStem(nn.Module):
    """``W x + up(down(x))``: frozen filters, and two thin strided convolutions over all bands.

    Args:
        layer: The convolution that already reads all bands.
        rank: Channels between the two convolutions.
    """

    def __init__(self, layer: nn.Conv2d, rank: int = RANK) -> None:
        super().__init__()
        self.frozen = FrozenFilters(layer)
        patch = layer.kernel_size[0]
        second = max(side for side in range(1, math.isqrt(patch) + 1) if patch % side == 0)
        first = patch // second  # 4 and 4 for a patch of 16
        down = nn.Conv2d(layer.in_channels, rank, first, stride=first)
        up = nn.Conv2d(rank, layer.out_channels, second, stride=second)
        self.path = nn.Sequential(OrderedDict(down=down, up=up))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to (B, D, h, w)."""
        return self.frozen(images) + self.path(images)


def low_rank_stem(spec: BackboneSpec, network: nn.Module) -> None:
    """Put a ``LowRankStem`` in the place of the patch convolution.

    Raises:
        UserError: If the first layer is not a convolution over patches.
    """
    owner, leaf = stem_of(network)
    layer = cast(nn.Module, getattr(owner, leaf))
    if not isinstance(layer, nn.Conv2d) or layer.stride != layer.kernel_size:
        raise UserError(
            f"patch embedding 'lowrank' needs a convolution over patches, {spec.name} begins with another layer",
            fix="choose another --patch-embedding",
        )
    setattr(owner, leaf, LowRankStem(layer))
