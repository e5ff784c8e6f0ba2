"""How much of a vision transformer's tokens depends on the image, part by part.

A tokenizer may turn every image into nearly the same tokens, and training then goes on without a word. The image
share shows it. Hooks on the modules do all of this: the model runs as it always does, and is left as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

BLIND = 0.01
"""Below this share of the variance a part counts as blind to the image."""


@dataclass(frozen=True)
class Share:
    """What was found about the tokens of one part.

    Attributes:
        name: Where the tokens are.
        share: Image share, 0 to 1; NaN where all tokens are equal.
        variance: Total variance of the tokens, mean over channels.
    """

    name: str
    share: float
    variance: float

    @property
    def blind(self) -> bool:
        """Whether hardly anything depends on the image."""
        return self.share < BLIND

    @property
    def percent(self) -> str:
        """The share in per cent; a dash where there is none."""
        if math.isnan(self.share):
            return "-"
        return f"{100 * self.share:.2g} %" if self.blind else f"{100 * self.share:.1f} %"

    @property
    def verdict(self) -> str:
        """What a reader should notice."""
        if math.isnan(self.share):
            return "all tokens equal"
        return "blind" if self.blind else ""


def image_share(tokens: Tensor) -> tuple[float, float]:
    """The share of the tokens' variance that depends on the image.

    With t[b, l, d] the tokens of different images b: the total variance is the variance over b and l, averaged over
    d; the image share is the variance over b alone, averaged over l and d, divided by the total. The rest is what
    sets places apart in all images alike. A tokenizer that gives every image the same tokens has share 0; one whose
    tokens differ between images and not between places has share 1. Variances divide by the number of values, so that
    independent tokens of B images have a share of (B - 1) / B.

    Args:
        tokens: (B, L, D), of at least two different images.

    Returns:
        The share, NaN where all tokens are equal; and the total variance.

    Raises:
        ValueError: If ``tokens`` has another shape or holds fewer than two images.
    """
    if tokens.dim() != 3 or len(tokens) < 2:
        raise ValueError(f"tokens are {tuple(tokens.shape)}, expected (B, L, D) of at least two images")
    values = tokens.detach().double()
    total = values.flatten(0, 1).var(dim=0, correction=0).mean()
    between = values.var(dim=0, correction=0).mean()
    return (float(between / total) if total > 0 else math.nan), float(total)


def probe(module: nn.Module, images: Tensor, batch: int = 8) -> list[Share]:
    """Look at the tokens of all parts that make or change them.

    Of ``SpectralX``: the hyper tokenizer's tokens and attribute features, the low-rank path, the patch embedding, the
    tokens after each adapted block, what the experts add, and what the Are-adapter adds. Of any other module with a
    timm vision transformer in it: the patch embedding, and the tokens after the blocks that are decoded, or after
    every block.

    Args:
        module: The module; called as ``module(images)``, in evaluation mode.
        images: (B, C, H, W), normalised, of at least two different images.
        batch: Images per forward pass.

    Raises:
        ValueError: If there are fewer than two images, or no vision transformer in the module.
    """
    if len(images) < 2:
        raise ValueError(f"{len(images)} image, expected at least two: nothing can differ between fewer")
    log = _TokenLog()
    modes = [(part, part.training) for part in module.modules()]
    handles = _watch(module, log)
    try:
        module.eval()
        with torch.no_grad():
            for chunk in images.split(batch):
                log.begin()
                module(chunk)
    finally:
        for handle in handles:
            handle.remove()
        for part, mode in modes:
            part.training = mode
    return [Share(name, *image_share(torch.cat(pieces))) for name, pieces in log.ordered()]


class _TokenLog:
    """Tokens by name, in pieces of one forward pass each."""

    def __init__(self) -> None:
        self.pieces: dict[str, list[Tensor]] = {}
        self.held: dict[str, Tensor] = {}
        self.calls: dict[str, int] = {}

    def begin(self) -> None:
        """A new forward pass."""
        self.held, self.calls = {}, {}

    def add(self, name: str, tokens: Tensor) -> None:
        """Keep (B, L, D) of one forward pass."""
        self.pieces.setdefault(name, []).append(tokens.detach().float().cpu())

    def ordered(self) -> list[tuple[str, list[Tensor]]]:
        """What was found, in the order in which it was."""
        return list(self.pieces.items())


Hook = Callable[..., None]


def _watch(module: nn.Module, log: _TokenLog) -> list[RemovableHandle]:
    backbone = _transformer(module)
    prefix = int(getattr(backbone, "num_prefix_tokens", 0))
    handles: list[RemovableHandle] = []

    def hook(part: Any, function: Hook) -> None:
        if isinstance(part, nn.Module):
            handles.append(part.register_forward_hook(function))

    hook(_part(module, "hyper_tokenizer"), partial(_hyper_tokenizer, log))
    hook(_part(module, "patch_path", "up"), partial(_map, log, "low-rank path"))
    # Called last in timm's patch embedding, also where its layers are called one by one.
    embedding = _part(backbone, "patch_embed", "norm") or _part(backbone, "patch_embed")
    hook(embedding, partial(_tokens, log, "patch embedding of the backbone"))
    hook(_part(module, "patch_path"), partial(_tokens, log, "patch embedding (sum)"))
    blocks = cast(nn.ModuleList, cast(Any, backbone).blocks)
    levels = sorted(set(cast(Sequence[int], getattr(module, "levels", None) or range(len(blocks)))))
    adapters = _part(module, "adapters")
    for level in levels:
        adapter = dict(adapters.named_children()).get(str(level)) if adapters is not None else None
        for layer in ("fc1", "fc2"):
            hook(_part(adapter, layer), partial(_added, log, f"AoMoA beside {layer} of block {level}", prefix))
        _watch_block(blocks[level], f"tokens after block {level}", prefix, log, handles)
    hook(_part(module, "are_adapter"), partial(_modulated, log, levels))
    return handles


def _watch_block(block: nn.Module, name: str, prefix: int, log: _TokenLog, handles: list[RemovableHandle]) -> None:
    """Tokens after a block: its output, or, where its halves are called one by one, the sum of the second half."""
    own = f"call of {name}"

    def entered(_block: nn.Module, _inputs: Any) -> None:
        log.held[own] = torch.empty(0)

    def left(_block: nn.Module, _inputs: Any, output: Any) -> None:
        log.held.pop(own, None)
        log.add(name, _first(output)[:, prefix:])

    def halfway(_norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        log.held[name] = inputs[0]

    def second(_drop: nn.Module, _inputs: Any, output: Tensor) -> None:
        if own not in log.held and name in log.held:
            log.add(name, (log.held.pop(name) + output)[:, prefix:])

    handles.append(block.register_forward_pre_hook(entered))
    handles.append(block.register_forward_hook(left))
    norm, drop = getattr(block, "norm2", None), getattr(block, "drop_path2", None)
    if isinstance(norm, nn.Module) and isinstance(drop, nn.Module):
        handles.append(norm.register_forward_pre_hook(halfway))
        handles.append(drop.register_forward_hook(second))


def _hyper_tokenizer(log: _TokenLog, _module: nn.Module, _inputs: Any, output: Any) -> None:
    tokens, attributes = output
    log.add("attribute features, spatial", attributes.spatial)
    log.add("attribute features, spectral", attributes.spectral)
    log.add("HyperT tokens", tokens)


def _map(log: _TokenLog, name: str, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
    log.add(name, output.flatten(2).transpose(1, 2))


def _tokens(log: _TokenLog, name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
    tokens = _first(output)
    log.add(name, tokens.flatten(1, -2))  # (B, h, w, D) where a backbone takes images of any size


def _added(log: _TokenLog, name: str, prefix: int, _module: nn.Module, _inputs: Any, output: Any) -> None:
    log.add(name, _first(output)[:, prefix:])


def _modulated(log: _TokenLog, levels: Sequence[int], _module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
    call = log.calls["are_adapter"] = log.calls.get("are_adapter", -1) + 1
    log.add(f"Are-adapter after block {levels[call]}", _first(output) - inputs[0])


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _part(module: Any, *names: str) -> nn.Module | None:
    for name in names:
        module = getattr(module, name, None)
    return module if isinstance(module, nn.Module) else None


def _transformer(module: nn.Module) -> nn.Module:
    for part in module.modules():
        if isinstance(getattr(part, "blocks", None), nn.Sequential | nn.ModuleList) and hasattr(part, "patch_embed"):
            return part
    raise ValueError(f"{type(module).__name__} has no vision transformer in it: nothing with blocks and patch_embed")
