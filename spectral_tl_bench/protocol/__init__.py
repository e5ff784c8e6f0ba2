"""How a number comes about: settings, normalisation, augmentation, windows, selection, metric."""
