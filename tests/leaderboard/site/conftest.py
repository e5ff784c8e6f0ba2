"""One small store, one site and one browser for all tests of the site."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from site_records import make_store, reported_numbers

from spectral_tl_bench.leaderboard.analysis import Analysis, analyse
from spectral_tl_bench.leaderboard.board import make_boards
from spectral_tl_bench.leaderboard.site import write_site
from spectral_tl_bench.results.store import read_records

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@dataclass
class Site:
    """A written site and what it was written from."""

    root: Path
    analyses: dict[str, Analysis]
    paths: list[Path] = field(default_factory=list)

    def url(self, path: str) -> str:
        return (self.root / path).as_uri()

    def text(self, path: str) -> str:
        return (self.root / path).read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    return make_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def analyses(store: Path) -> dict[str, Analysis]:
    return {name: analyse(board) for name, board in make_boards(read_records([store])).items()}


@pytest.fixture(scope="session")
def site(analyses: dict[str, Analysis], tmp_path_factory: pytest.TempPathFactory) -> Site:
    root = tmp_path_factory.mktemp("site") / "site"
    return Site(root, analyses, write_site(analyses, reported_numbers(), root))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    if path is None:
        pytest.skip("there is no Chromium on the path")
    with sync_api.sync_playwright() as driver:
        try:
            found = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"Chromium does not start here: {str(error).splitlines()[0]}")
        yield found
        found.close()


@dataclass
class Watched:
    """A page and all that went wrong on it."""

    page: Page
    home: str
    lacking: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def complain(self, text: str, url: str = "") -> None:
        """Note what went wrong, but for a file that is lacking on purpose."""
        if not url.endswith(self.lacking):
            self.complaints.append(f"{text} {url}")


@pytest.fixture
def open_page(browser: Browser, site: Site) -> Iterator[Any]:
    """Opens a page of the site; at the end nothing may have gone wrong, and nothing outside have been asked for."""
    opened: list[Watched] = []

    def go(path: str, root: Path = site.root, lacking: str = "nothing", **context: Any) -> Page:
        page = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context}).new_page()
        page.set_default_timeout(10_000)
        watched = Watched(page, root.as_uri(), lacking)
        opened.append(watched)
        page.on("console", lambda message: watched.complain(f"{message.type}: {message.text}", message.location["url"]))
        page.on("pageerror", lambda error: watched.complain(str(error)))
        page.on("requestfailed", lambda request: watched.complain("failed", request.url))
        page.on("request", lambda request: watched.requests.append(request.url))
        page.goto(path if "://" in path else site.url(path))
        return page

    yield go
    for watched in opened:
        watched.page.context.close()
        assert watched.complaints == []
        outside = [url for url in watched.requests if not url.startswith(watched.home)]
        assert outside == []
