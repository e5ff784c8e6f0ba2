"""Batch normalisation that bears a batch of one."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class BatchNorm2d(nn.BatchNorm2d):
    """Uses the running statistics where a batch has a single value per channel, and hence no variance.

    That is so behind a global pooling when a batch holds one image, where ``nn.BatchNorm2d`` raises.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        if self.training and x.numel() == x.shape[1]:
            return functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return super().forward(x)
