"""What makes a run small."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, Any] = {"steps": 2, "batch_size": 2, "validations": 1, "window": 16, "allow_partial": True}
