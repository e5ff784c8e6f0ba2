"""What a run takes where the user names nothing."""

DEFAULT_BACKBONE = "rgb-mini"
"""The miniature foundation model that comes with the package: pretrained on RGB, as the large ones are."""

HANG_AFTER = 60.0
"""Minutes without a sign of life after which a cell in a process of its own is stopped."""
