"""From a chip on disk to a batch: index, splits, samplers, transforms."""
