"""Accessibility by axe, where it is installed: `npm install axe-core` at the top, or STBENCH_AXE says where it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from test_site_browser import PAGES

AXE = Path(os.environ.get("STBENCH_AXE", Path(__file__).parents[3] / "node_modules" / "axe-core" / "axe.min.js"))

RUN = "async () => (await axe.run(document, {preload: false, resultTypes: ['violations']})).violations"


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed")
@pytest.mark.parametrize("path", PAGES)
def test_axe_finds_no_violation(open_page, path):
    page = open_page(path, bypass_csp=True)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    for scheme in ("light", "dark"):
        for width in (390, 1280, 1920):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 900})
            found = page.evaluate(RUN)
            said = [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]
            assert said == [], (scheme, width)
