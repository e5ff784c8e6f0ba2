"""What the miniature learns from: the covers under each patch, and the pixels of the patch itself.

Covers are read from the four levels together and pixels from each level alone, both by linear maps of single tokens,
as simple decoders on a frozen network read them. The covers make the blocks look at texture and neighbours; the
pixels keep in every level what a random projection would have kept, colour differences included.
"""

from __future__ import annotations

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

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
        width: Token width.
        depth: Transformer blocks; each is a level.
        heads: Attention heads.
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
