"""Pretrain the miniature foundation model on invented landscapes whose covers are known, on the CPU.

``python -m spectral_tl_bench.models.miniature.pretrain --out FILE`` writes the weights and, beside them, a card in
JSON. It runs on one thread and draws everything from one seed: the same command gives the same file on the same kind
of processor with the same versions of PyTorch and NumPy.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor, nn
from torch.nn import functional

from spectral_tl_bench.console import say
from spectral_tl_bench.files import atomic_path, file_digest, seed_from, write_json
from spectral_tl_bench.models.miniature.landscapes import KINDS, NAMESPACE, collection, describe
from spectral_tl_bench.models.patch_embedding import RGB

WINDOW = 64
"""Side of the training windows in pixels."""

SIDES = (WINDOW, WINDOW, WINDOW // 2, 2 * WINDOW)
"""Sides of the cuts that become windows, each as likely: images come enlarged, as they are, and coarser."""

THINNED = 37
"""Of so many pixels one is looked at for the covariance of the colours."""


@dataclass(frozen=True)
class Recipe:
    """All choices of the pretraining.

    Attributes:
        patch: Patch side in pixels.
        landscapes: Invented landscapes to draw images of.
        views: Images per landscape, each of another date and sensor.
        size: Side of an image in pixels, at least twice the window's.
        steps: Optimiser steps.
        warmup: Share of the steps in which the learning rate rises; then it falls as a half cosine.
        batch: Windows per step.
        learning_rate: Largest learning rate of AdamW.
        weight_decay: Decay of matrices; biases, norms and the class token have none.
        pixels: Weight of the error of the pixels beside that of the covers.
        positions: Amplitude of the position table.
        mixing: Spread of the random mixing of the colours of a window.
        seed: Seed of images, weights and windows.
    """

    width: int = 96
    depth: int = 4
    heads: int = 4
    patch: int = 8
    landscapes: int = 400
    views: int = 2
    size: int = 128
    steps: int = 1600
    warmup: float = 0.05
    batch: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    pixels: float = 0.5
    positions: float = 0.2
    mixing: float = 0.1
    seed: int = 0


class Windows(NamedTuple):
    """Standardised images (B, 3, 64, 64), and the share of each cover in each patch, (B, K, h, w)."""

    images: Tensor
    shares: Tensor


def shares_of(covers: Tensor, grid: int) -> Tensor:
    """The share of each cover in each cell of a grid, (K, grid, grid), of the numbers of covers (S, S)."""
    side = len(covers) // grid
    cells = torch.arange(grid).repeat_interleave(side)
    numbers = (cells[:, None] * grid + cells) * len(KINDS) + covers
    counts = torch.bincount(numbers.flatten(), minlength=grid**2 * len(KINDS))
    return counts.view(grid, grid, -1).movedim(-1, 0) / side**2


def windows(images: Tensor, covers: Tensor, recipe: Recipe, generator: Generator) -> Iterator[Windows]:
    """Batches without end, of random places, three scales and the symmetries of the square.

    Colours are standardised by statistics that lie at random between those of all images and those of the window, as
    a data set may be as varied as all landscapes or as uniform as one, and then mixed a little.

    Args:
        images: Reflectance, (N, 3, S, S).
        covers: Number of the cover per pixel, (N, S, S).
        recipe: Batch size, patch and mixing.
    """
    count, bands, size, _ = images.shape
    mean, spread = images.mean((0, 2, 3)), images.std((0, 2, 3)).log()
    grid = WINDOW // recipe.patch

    def draw(below: int) -> int:
        return int(torch.randint(below, (), generator=generator))

    def one() -> tuple[Tensor, Tensor]:
        number, side, symmetry = draw(count), SIDES[draw(len(SIDES))], draw(8)
        row, column = draw(size - side + 1), draw(size - side + 1)
        place = (number, ..., slice(row, row + side), slice(column, column + side))
        image = images[place]
        if side < WINDOW:
            image = functional.interpolate(image[None], size=WINDOW, mode="bicubic", align_corners=False)[0]
        elif side > WINDOW:
            image = functional.adaptive_avg_pool2d(image, WINDOW)
        shares = shares_of(covers[place], grid)
        image, shares = (part.rot90(symmetry % 4, (1, 2)) for part in (image, shares))
        if symmetry >= 4:
            image, shares = image.flip(2), shares.flip(2)
        of_mean, of_spread = torch.rand(2, generator=generator)
        own_mean, own_spread = image.mean((1, 2)), (image.std((1, 2)) + 1e-3).log()
        own_spread = torch.maximum(own_spread, spread - 1.2)  # still water has no contrast to be stretched
        image = image - torch.lerp(mean, own_mean, of_mean)[:, None, None]
        image = image / torch.lerp(spread, own_spread, of_spread).exp()[:, None, None]
        mixer = torch.eye(bands) + recipe.mixing * torch.randn(bands, bands, generator=generator)
        return (mixer @ image.flatten(1)).view_as(image), shares

    while True:
        cut = [one() for _ in range(recipe.batch)]
        yield Windows(*(torch.stack(parts) for parts in zip(*cut, strict=True)))


def pretrain(recipe: Recipe, report: Callable[[str], None] = say) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Make the images and train on them.

    Returns:
        The encoder's weights in timm's names, and what a card says about mean, standard deviation and loss.
    """
    threads = torch.get_num_threads()
    state = torch.get_rng_state()
    torch.set_num_threads(1)  # sums of several threads depend on how they share the work
    try:
        torch.default_generator.manual_seed(seed_from(NAMESPACE, "weights", recipe.seed))
        return _pretrain(recipe, report)
    finally:
        torch.set_rng_state(state)
        torch.set_num_threads(threads)


def _pretrain(recipe: Recipe, report: Callable[[str], None]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    images, covers = map(torch.from_numpy, collection(recipe.seed, recipe.landscapes, recipe.size, recipe.views))
    mean, std = images.double().mean((0, 2, 3)).float(), images.double().std((0, 2, 3)).float()
    report(f"{len(images)} images; mean {_rounded(mean)}, standard deviation {_rounded(std)}")
    thinned = ((images - mean[:, None, None]) / std[:, None, None]).flatten(2)[..., ::THINNED, None]
    model = Learner(
        recipe.width, recipe.depth, recipe.heads, recipe.patch, WINDOW, len(KINDS), recipe.positions,
        whitening(thinned),
    )  # fmt: skip
    plain = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    plain.append(model.encoder.cls_token)
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2 and p is not model.encoder.cls_token]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, total_steps=recipe.steps + 1, pct_start=recipe.warmup, cycle_momentum=False
    )
    generator = Generator().manual_seed(seed_from(NAMESPACE, "windows", recipe.seed))
    batches = windows(images, covers, recipe, generator)
    every = max(1, recipe.steps // 20)
    trace: list[tuple[int, float, float]] = []
    errors: list[tuple[float, float]] = []
    for step in range(1, recipe.steps + 1):
        of_covers, of_pixels = model(*next(batches))
        optimiser.zero_grad()
        (of_covers + recipe.pixels * of_pixels).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        errors.append((of_covers.item(), of_pixels.item()))
        if step % every == 0 or step == recipe.steps:
            covers_error, pixels_error = (round(sum(part) / len(part), 4) for part in zip(*errors, strict=True))
            trace.append((step, covers_error, pixels_error))
            report(f"step {step}: covers {covers_error:.4f}, pixels {pixels_error:.4f}")
            errors = []
    weights = {name: value.detach().clone().contiguous() for name, value in model.encoder.state_dict().items()}
    return weights, {"mean": _rounded(mean), "std": _rounded(std), "loss": trace}


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 5) for value in values.tolist()]


def write(out: Path, recipe: Recipe, report: Callable[[str], None] = say) -> None:
    """Pretrain, and write the weights and the card beside them, with the suffix ``.json``."""
    weights, facts = pretrain(recipe, report)
    with atomic_path(out) as temporary:
        save_file(weights, temporary)
    card = {
        "name": out.stem,
        "licence": "MIT",
        "what": "vision transformer pretrained on synthetic RGB images only: covers and pixels of every patch",
        "command": _command(out, recipe),
        "sha256": file_digest(out),
        "parameters": sum(value.numel() for value in weights.values()),
        "window": WINDOW,
        "wavelengths": list(RGB),
        "data": describe(recipe.seed, recipe.landscapes, recipe.size, recipe.views),
        "recipe": asdict(recipe),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "timm", "numpy", "scipy")},
        },
        "processor": platform.machine(),
        **facts,
    }
    write_json(out.with_suffix(".json"), card)


def _command(out: Path, recipe: Recipe) -> str:
    default = asdict(Recipe())
    changed = [f"--{key.replace('_', '-')} {value}" for key, value in asdict(recipe).items() if value != default[key]]
    return " ".join(["python -m spectral_tl_bench.models.miniature.pretrain --out", out.name, *changed])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line: ``--out``, and every field of `Recipe`."""
    parser = argparse.ArgumentParser(prog="python -m spectral_tl_bench.models.miniature.pretrain", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="weights file to write (.safetensors)")
    for key, value in asdict(Recipe()).items():
        parser.add_argument(f"--{key.replace('_', '-')}", type=type(value), default=value, help="default: %(default)s")
    chosen = vars(parser.parse_args(arguments))
    out = chosen.pop("out")
    write(out, Recipe(**chosen))


FLOOR = 0.01
"""Added to the variances of the whitened colours, so that noise is not made large."""

QUIET = 0.3
"""Factor on the last layers of the branches: a narrow network starts near the identity, but not on it."""


def grid_positions(width: int, side: int) -> Tensor:
    """Sines and cosines of the cells of a square grid (side * side, width); the first half tells the column."""
    quarter = width // 4
    frequencies = 1.0 / 10000.0 ** (torch.arange(quarter, dtype=torch.float32) / quarter)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [places.reshape(-1, 1).float() * frequencies for places in (columns, rows)]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)


def whitening(images: Tensor) -> Tensor:
    """The matrix (3, 3) that makes of red, green and blue of ``images`` (N, 3, H, W) brightness and colour differences.

    All three have about unit variance, so that colour differences, which are small, weigh as much as brightness.
    """
    colours = images.permute(1, 0, 2, 3).flatten(1)
    variances, axes = torch.linalg.eigh(torch.cov(colours))
    return (axes / (variances + FLOOR).sqrt()).T


class Learner(nn.Module):
    """A ViT and the linear maps that read its levels.

    Args:
        depth: Transformer blocks; each is a level.
        patch: Patch side in pixels.
        window: Side of the images in pixels.
        covers: How many covers there are.
        positions: Amplitude of the fixed sines and cosines that tell a token's place.
        colours: The matrix (3, 3) of ``whitening``.
    """

    colours: Tensor

    def __init__(
        self, width: int, depth: int, heads: int, patch: int, window: int, covers: int, positions: float,
        colours: Tensor,
    ) -> None:  # fmt: skip
        super().__init__()
        self.patch = patch
        self.encoder = VisionTransformer(
            img_size=window, patch_size=patch, in_chans=3, num_classes=0, global_pool="",
            embed_dim=width, depth=depth, num_heads=heads,
        )  # fmt: skip
        table = torch.cat([torch.zeros(1, width), grid_positions(width, window // patch)])
        self.encoder.pos_embed.data.copy_(positions * table[None])
        self.encoder.pos_embed.requires_grad_(False)
        for block in self.encoder.blocks:
            for layer in block.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight)
                    nn.init.zeros_(layer.bias)
            for layer in (block.attn.proj, block.mlp.fc2):
                layer.weight.data.mul_(QUIET)
        self.classify = nn.Linear(depth * width, covers)
        self.redraw = nn.ModuleList(nn.Linear(width, 3 * patch**2) for _ in range(depth))
        self.register_buffer("colours", colours, persistent=False)

    def forward(self, images: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        """The two errors, scalars.

        Args:
            images: Standardised (B, 3, H, W).
            shares: Share of each cover in each patch (B, K, h, w).

        Returns:
            Cross-entropy of the covers, and squared error of the whitened pixels relative to their mean square.
        """
        levels = self.encoder.forward_intermediates(
            images, indices=list(range(len(self.redraw))), norm=False, output_fmt="NLC", intermediates_only=True
        )
        logits = self.classify(torch.cat(levels, dim=-1)).transpose(1, 2)
        of_covers = functional.cross_entropy(logits, shares.flatten(2))
        pixels = torch.einsum("kc,bchw->bkhw", self.colours, images)
        cells = functional.unfold(pixels, self.patch, stride=self.patch).transpose(1, 2)
        errors = [(read(level) - cells).square().mean() for read, level in zip(self.redraw, levels, strict=True)]
        return of_covers, torch.stack(errors).mean() / cells.square().mean()


if __name__ == "__main__":
    main()
