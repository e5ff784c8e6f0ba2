"""Records from random confusion matrices, for every test here."""

from __future__ import annotations

from random_records import fail, fields, frame, store

__all__ = ["fail", "fields", "frame", "store"]
