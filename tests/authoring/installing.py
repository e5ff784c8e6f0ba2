"""Where the wrong methods are, and what they are called."""

from __future__ import annotations

from pathlib import Path

SOURCE = Path(__file__).with_name("faulty.py")


def entry(name: str) -> str:
    """Entry-point name of a class of ``faulty.py``."""
    return f"faulty-{name.lower()}"
