"""The files of the site while it is made: pages from templates, data as scripts, pictures named by their hash."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

from markupsafe import Markup, escape

from spectral_tl_bench.evaluation.metrics import MIOU_RULE
from spectral_tl_bench.leaderboard.frames import Fields
from spectral_tl_bench.leaderboard.generated import Generated
from spectral_tl_bench.leaderboard.rendering import environment
from spectral_tl_bench.leaderboard.site import cells, names
from spectral_tl_bench.leaderboard.site.names import Track
from spectral_tl_bench.leaderboard.site.scales import heat
from spectral_tl_bench.leaderboard.text import ABOUT_TUNING, NOTHING, WHICH_METRIC, WHY_RELEASE, percent, plain, shown

FORMAT = "site"
"""Under which the files stand in the folder's list of generated files."""
_CODE = re.compile(r"`+([^`]+)`+")
_SECTIONS = {"benchmark": "benchmarks", "method": "methods", "reported": "overview", "beside": "overview"}


class Writer:
    """Collects files.

    Args:
        tracks: The tracks that there are, in the order of the navigation.
    """

    def __init__(self, tracks: list[Track]) -> None:
        self.tracks = tracks
        static = resources.files("spectral_tl_bench.leaderboard.site") / "static"
        self.files = {
            f"static/{file.name}": Generated(FORMAT, file.read_bytes())
            for file in static.iterdir()
            if file.name.endswith((".css", ".js", ".svg"))
        }
        shared = {"NOTHING": NOTHING, "ABOUT_TUNING": ABOUT_TUNING, "WHY_RELEASE": WHY_RELEASE,
                  "WHICH_METRIC": WHICH_METRIC, "MIOU_RULE": MIOU_RULE, "tracks": tracks, "cells": cells}  # fmt: skip
        self._templates = environment(".site", shown, shared, autoescape=True)
        written = ("signed", "points", "count", "seconds", "megabytes", "setting", "printed")
        formats = {name: getattr(names, name) for name in written}
        self._templates.filters |= {"heat": heat, "percent": percent, "code": code, **formats}

    def page(self, path: str, template: str, **values: Any) -> None:
        """Render a page.

        Args:
            path: Relative to the site, with ``/``.
            template: Name of the template, without ``.html``.
            values: What it needs; ``root`` and ``home``, the ways from the page to the site's top and to the folder of
                its track, and ``section``, where it stands in the navigation, are added.
        """
        self._text(path, self._render(path, template, {"section": _SECTIONS.get(template, template), **values}))

    def pages(self, path: str, template: str, rows: Sequence[Fields], size: int, **values: Any) -> None:
        """Render a page with a table of rows: more than ``size`` of them stand in parts, on a page each.

        The rows of each part are also a script, for the pages of the other parts: what sorts or filters acts on all.

        Args:
            path: Of the first page.
            template: The page; it gets ``part``, and the rows as ``body``, from the template ``TEMPLATE_rows``.
            rows: All of them, in their order.
            size: Rows of one part.
            values: What both templates need.
        """
        folder = path[: path.rfind("/") + 1]
        links: list[Fields] = [
            {"path": names.part_name(path, number)[len(folder) :], "first": first, "last": min(first + size, len(rows))}
            for number, first in enumerate(range(0, max(1, len(rows)), size))
        ]
        scripts = [link["path"].replace(".html", ".rows.js") for link in links]
        for number, link in enumerate(links):
            shown = rows[link["first"] : link["last"]]
            part = {**link, "number": number, "total": len(rows), "links": links, "scripts": scripts}
            body = Markup(self._render(path, f"{template}_rows", {**values, "rows": shown}))  # noqa: S704 - a template's
            self.page(folder + link["path"], template, **values, part=part, body=body)
            if len(links) > 1:
                text = json.dumps(body, ensure_ascii=False)  # a file of its own, in which markup does no harm
                self._text(folder + scripts[number], f"stbench.put({names.script_json(scripts[number])},{text});\n")

    def _render(self, path: str, template: str, values: Fields) -> str:
        depth = path.count("/")
        ways = {"root": "../" * depth, "home": "../" * (depth - 1)}
        return self._templates.get_template(f"{template}.html").render(ways | values)

    def script(self, path: str, key: str, value: Any) -> None:
        """Add data as a script: a page that is opened from disk can load no other."""
        self._text(path, f"stbench.put({names.script_json(key)},{names.script_json(value)});\n")

    def picture(self, content: bytes) -> str:
        """Add a PNG and give its path: the same picture is stored once."""
        path = f"pictures/{hashlib.sha256(content).hexdigest()[:20]}.png"
        self.files[path] = Generated(FORMAT, content)
        return path

    def _text(self, path: str, text: str) -> None:
        self.files[path] = Generated(FORMAT, text.encode())


def code(text: str) -> Markup:
    """Text whose pieces between backticks are code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(plain(text)))))  # noqa: S704 - escaped on this line
