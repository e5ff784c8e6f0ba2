"""The two kinds of attention that HyperT and the Are-adapter are made of, and a batch norm for single samples."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of ``number`` that is at most ``limit`` (at least 1)."""
    return next((d for d in range(min(number, limit), 1, -1) if number % d == 0), 1)


class AttentionBlock(nn.Module):
    """Pre-LN transformer block on tokens.

    Args:
        heads: Most heads; the number used is the largest up to it that divides ``width`` and leaves each head
            at least 16 wide, where there is one.
        mlp: Hidden width of the MLP, relative to ``width``.
    """

    def __init__(self, width: int, heads: int, mlp: float = 4.0) -> None:
        super().__init__()
        self.heads = largest_divisor(width, min(heads, max(1, width // 16)))
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, int(width * mlp))
        self.fc2 = nn.Linear(int(width * mlp), width)

    def forward(self, x: Tensor, window: tuple[int, int, int] | None = None) -> Tensor:
        """Maps (B, N, width) to (B, N, width).

        Args:
            x: Tokens; with ``window`` in the order of a grid, row by row.
            window: Rows and columns of the grid and side of the square windows that attention stays within (the
                side divides both); None attends globally.
        """
        attended = self.norm1(x)
        if window is not None:
            attended = _to_windows(attended, *window)
        attended = self._attend(attended)
        if window is not None:
            attended = _from_windows(attended, *window)
        x = x + attended
        return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))

    def _attend(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(batch, length, width))


def _to_windows(x: Tensor, rows: int, columns: int, side: int) -> Tensor:
    batch, _, width = x.shape
    grid = x.view(batch, rows // side, side, columns // side, side, width)
    return grid.transpose(2, 3).reshape(-1, side * side, width)


def _from_windows(x: Tensor, rows: int, columns: int, side: int) -> Tensor:
    width = x.shape[-1]
    grid = x.view(-1, rows // side, columns // side, side, side, width)
    return grid.transpose(2, 3).reshape(-1, rows * columns, width)


class CrossAttention(nn.Module):
    """One head without biases, in which latents look at media; each side has its own LayerNorm.

    The inner width is half the width of the media.

    Args:
        media_width: Width M of the media.
        latent_width: Width D of the latents.
    """

    def __init__(self, media_width: int, latent_width: int) -> None:
        super().__init__()
        inner = max(1, media_width // 2)
        self.norm_media = nn.LayerNorm(media_width)
        self.norm_latents = nn.LayerNorm(latent_width)
        self.to_q = nn.Linear(latent_width, inner, bias=False)
        self.to_kv = nn.Linear(media_width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, latent_width, bias=False)

    def keys_values(self, media: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, N, inner) of media (B, N, M); worth keeping where several latents look at the same."""
        keys, values = self.to_kv(self.norm_media(media)).chunk(2, dim=-1)
        return keys, values

    def queries(self, latents: Tensor) -> Tensor:
        """Queries (..., L, inner) of latents (..., L, D)."""
        return self.to_q(self.norm_latents(latents))

    def log_weights(self, latents: Tensor, keys: Tensor) -> Tensor:
        """Logarithm of the attention (B, L, N) of latents (B, L, D) to media, given by their keys."""
        q = self.queries(latents)
        similarity = (q * q.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
        return similarity.float().log_softmax(dim=-1)

    def attended(self, weights: Tensor, values: Tensor) -> Tensor:
        """Output (B, L, D) for attention weights (B, L, N) and the values of the media."""
        return self.to_out(weights.to(values.dtype) @ values)

    def forward(self, latents: Tensor, media: Tensor) -> Tensor:
        """Maps latents (B or 1, L, D) and media (B, N, M) to (B, L, D)."""
        keys, values = self.keys_values(media)
        q = self.queries(latents).expand(len(media), -1, -1)
        return self.to_out(functional.scaled_dot_product_attention(q, keys, values))


class _ToleratesOne(nn.modules.batchnorm._BatchNorm):
    """Uses the running statistics where a batch has a single value per channel, and hence no variance."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return super().forward(x)


class BatchNorm1d(_ToleratesOne, nn.BatchNorm1d):
    """``nn.BatchNorm1d`` that also trains on a batch of one."""


class BatchNorm2d(_ToleratesOne, nn.BatchNorm2d):
    """``nn.BatchNorm2d`` that also trains on a batch of one, even where the map is a single pixel."""
