"""Pretrain the miniature foundation model by masked reconstruction (He et al., MAE, CVPR 2022), on the CPU.

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
from typing import Any

import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor, nn

from spectral_tl_bench.console import say
from spectral_tl_bench.files import atomic_path, file_digest, seed_from, write_json
from spectral_tl_bench.models.miniature.landscapes import NAMESPACE, collection, describe
from spectral_tl_bench.models.miniature.masked import ReconstructionDecoder, draw_mask, grid_positions, masked_error
from spectral_tl_bench.models.patch_embedding import RGB

WINDOW = 64
"""Side of the training windows in pixels."""


@dataclass(frozen=True)
class Recipe:
    """All choices of the pretraining.

    Attributes:
        width: Token width.
        depth: Transformer blocks.
        heads: Attention heads.
        patch: Patch side in pixels.
        landscapes: Invented landscapes to draw images of.
        views: Images per landscape, each of another date and sensor.
        size: Side of an image in pixels, at least the window's.
        steps: Optimiser steps.
        warmup: Share of the steps in which the learning rate rises; then it falls as a half cosine.
        batch: Windows per step.
        learning_rate: Largest learning rate of AdamW.
        weight_decay: Decay of matrices; biases, norms and the mask token have none.
        mask_ratio: Share of hidden patches.
        decoder_width: Token width of the decoder.
        decoder_depth: Blocks of the decoder.
        brightness: Spread (log) of the brightness factor of a window.
        seed: Seed of images, weights, windows and masks.
    """

    width: int = 96
    depth: int = 4
    heads: int = 4
    patch: int = 8
    landscapes: int = 1000
    views: int = 2
    size: int = 128
    steps: int = 1600
    warmup: float = 0.05
    batch: int = 64
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    mask_ratio: float = 0.75
    decoder_width: int = 64
    decoder_depth: int = 1
    brightness: float = 0.15
    seed: int = 0


class MaskedAutoencoder(nn.Module):
    """A ViT that sees the visible patches only, and a light decoder that fills in the others.

    Positions are fixed sines and cosines of row and column, and weights start as in the original (Xavier); timm's
    standard deviation of .02 is for wide models and leaves a narrow one near the identity for long.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.patch, self.mask_ratio = recipe.patch, recipe.mask_ratio
        grid = WINDOW // recipe.patch
        self.encoder = VisionTransformer(
            img_size=WINDOW, patch_size=recipe.patch, in_chans=len(RGB), num_classes=0, global_pool="",
            embed_dim=recipe.width, depth=recipe.depth, num_heads=recipe.heads,
        )  # fmt: skip
        table = torch.cat([torch.zeros(1, recipe.width), grid_positions(recipe.width, grid)])
        self.encoder.pos_embed.data.copy_(table[None])
        self.encoder.pos_embed.requires_grad_(False)
        outputs = len(RGB) * recipe.patch**2
        self.decoder = ReconstructionDecoder(recipe.width, recipe.decoder_width, recipe.decoder_depth, grid, outputs)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                _uniform(module)

    def forward(self, images: Tensor, generator: Generator) -> Tensor:
        """Error on the hidden patches of standardised images (B, 3, 64, 64), a scalar."""
        encoder = self.encoder
        table = encoder.pos_embed
        tokens = encoder.patch_embed(images) + table[:, 1:]
        mask = draw_mask(len(images), tokens.shape[1], self.mask_ratio, generator)
        first = (encoder.cls_token + table[:, :1]).expand(len(images), -1, -1)
        visible = tokens.gather(1, mask.visible[..., None].expand(-1, -1, tokens.shape[-1]))
        seen = encoder.norm(encoder.blocks(torch.cat([first, visible], dim=1)))
        return masked_error(self.decoder(seen[:, 1:], mask), images, mask.hidden, self.patch)


def _uniform(module: nn.Linear | nn.Conv2d) -> None:
    nn.init.xavier_uniform_(module.weight.view(module.weight.shape[0], -1))
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def windows(images: Tensor, recipe: Recipe, generator: Generator) -> Iterator[Tensor]:
    """Batches (B, 3, 64, 64) without end: random places, one symmetry of the square each, brightness varied."""
    count, _, size, _ = images.shape
    span = size - WINDOW + 1
    while True:
        which = torch.randint(count, (recipe.batch,), generator=generator).tolist()
        corners = torch.randint(span, (recipe.batch, 2), generator=generator).tolist()
        symmetries = torch.randint(8, (recipe.batch,), generator=generator).tolist()
        gains = (recipe.brightness * torch.randn(recipe.batch, generator=generator)).exp()
        cut = []
        for number, (row, column), symmetry in zip(which, corners, symmetries, strict=True):
            window = images[number, :, row : row + WINDOW, column : column + WINDOW].rot90(symmetry % 4, (1, 2))
            cut.append(window.flip(2) if symmetry >= 4 else window)
        yield torch.stack(cut) * gains[:, None, None, None]


def pretrain(recipe: Recipe, report: Callable[[str], None] = say) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Make the images and train on them.

    Args:
        recipe: All choices.
        report: Takes a line now and then.

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
    images = torch.from_numpy(collection(recipe.seed, recipe.landscapes, recipe.size, recipe.views))
    mean, std = images.double().mean((0, 2, 3)).float(), images.double().std((0, 2, 3)).float()
    report(f"{len(images)} images; mean {_rounded(mean)}, standard deviation {_rounded(std)}")
    model = MaskedAutoencoder(recipe)
    plain = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, total_steps=recipe.steps + 1, pct_start=recipe.warmup, cycle_momentum=False
    )
    generator = Generator().manual_seed(seed_from(NAMESPACE, "windows", recipe.seed))
    batches = windows(images, recipe, generator)
    every = max(1, recipe.steps // 20)
    trace: list[tuple[int, float]] = []
    losses: list[float] = []
    for step in range(1, recipe.steps + 1):
        batch = (next(batches) - mean[:, None, None]) / std[:, None, None]
        loss = model(batch, generator)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if step % every == 0 or step == recipe.steps:
            trace.append((step, round(sum(losses) / len(losses), 4)))
            report(f"step {step}: error {trace[-1][1]:.4f}")
            losses = []
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
        "what": "vision transformer pretrained by masked reconstruction on synthetic RGB images only",
        "reference": "He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022",
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


if __name__ == "__main__":
    main()
