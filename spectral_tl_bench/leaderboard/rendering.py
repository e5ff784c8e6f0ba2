"""Templates: pages, Markdown and LaTeX, in which nothing of a record is markup."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jinja2
from markupsafe import Markup


def environment(
    package: str, finalize: Callable[[Any], Any], names: Mapping[str, Any], **options: Any
) -> jinja2.Environment:
    """The templates of a package, in which a name that is not there is an error.

    Args:
        package: Below ``spectral_tl_bench.leaderboard``.
        finalize: Every value goes through it.
        names: What all templates know.
    """
    options |= {"trim_blocks": True, "lstrip_blocks": True, "undefined": jinja2.StrictUndefined, "finalize": finalize}
    loader = jinja2.PackageLoader(f"spectral_tl_bench.leaderboard{package}")
    made = jinja2.Environment(loader=loader, keep_trailing_newline="autoescape" not in options, **options)  # noqa: S701
    made.globals |= names
    return made


def unless_markup(escape: Callable[[object], str]) -> Callable[[Any], str]:
    """Escapes what a template puts out, but for what is ``Markup`` (or ``safe``) already."""
    return lambda value: value if isinstance(value, Markup) else escape(value)
