"""Asking a server again when it is busy or the line breaks, with patience that has an end."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import requests

from spectral_tl_bench.data.sources.names import shown
from spectral_tl_bench.data.sources.progress import Say
from spectral_tl_bench.errors import UserError

TRIES_BEFORE, TRIES = 3, 8
"""Tries in a row without any answer of the server; tries in a row once it has answered."""
LONGEST_WAIT = 60.0
LONGEST_ASKED_WAIT = 900.0
"""Seconds between two tries; seconds that a server may ask for."""
TIMEOUT = (15.0, 60.0)
"""Seconds for a connection, and for silence in the middle of an answer."""
BUSY = {408, 425, 429, 500, 502, 503, 504}
SLEEP = time.sleep

_Answer = TypeVar("_Answer")


class AgainError(Exception):
    """It may well work another time.

    Args:
        reason: What happened, in words.
        wait: Seconds that the server asks to wait for.
        answered: Whether the server has answered at all.
    """

    def __init__(self, reason: str, wait: float | None = None, answered: bool = True) -> None:
        super().__init__(reason)
        self.reason, self.wait, self.answered = reason, wait, answered


class Patience:
    """Counts tries without progress.

    Args:
        address: What is asked, for messages.
        say: Prints one line.
    """

    def __init__(self, address: str, say: Say) -> None:
        self.address, self.say, self.tries, self.ever = shown(address), say, 0, False

    def progress(self) -> None:
        """Something has arrived: count from the beginning."""
        self.tries, self.ever = 0, True

    def wait(self, again: AgainError, kept: str = "") -> None:
        """Wait before another try.

        Args:
            again: Why this one failed.
            kept: What is kept if it was the last one, for the message.

        Raises:
            UserError: If there were enough tries.
        """
        self.tries += 1
        self.ever = self.ever or again.answered
        if self.tries >= (TRIES if self.ever else TRIES_BEFORE):
            raise UserError(
                f"no answer of use after {self.tries} tries: {again.reason}", where=self.address,
                fix=f"{kept}check the network, or try again later; --from takes a mirror or a local copy",
            )  # fmt: skip
        seconds = min(2.0 ** (self.tries - 1), LONGEST_WAIT) if again.wait is None else again.wait
        if seconds > LONGEST_ASKED_WAIT:
            raise UserError(
                f"the server asks to wait for {seconds / 60:.0f} minutes: {again.reason}", where=self.address,
                fix=f"{kept}try again then",
            )  # fmt: skip
        self.say(f"{again.reason}; next try in {seconds:.0f} s")
        SLEEP(seconds)


def patiently(ask: Callable[[], _Answer], address: str, say: Say) -> _Answer:
    """Call ``ask`` until it raises no ``AgainError``.

    Raises:
        UserError: If there were enough tries.
    """
    patience = Patience(address, say)
    while True:
        try:
            return ask()
        except AgainError as again:
            patience.wait(again)


def check_status(status: int, headers: Mapping[str, str], address: str) -> None:
    """Sort what a server answers.

    Raises:
        AgainError: If it is busy, or has a fault that may pass.
        UserError: If it refuses.
    """
    if status < 400:
        return
    where = shown(address)
    if status in BUSY:
        reason = "the server has too many requests (429)" if status == 429 else f"the server has a fault ({status})"
        raise AgainError(reason, asked_wait(headers.get("Retry-After")))
    if status in (401, 403):
        raise UserError(
            f"the server wants an account ({status})", where=where,
            fix="read and accept the terms on its page; for the Hugging Face hub, then set HF_TOKEN",
        )  # fmt: skip
    if status in (404, 410):
        raise UserError(
            f"there is no such file or repository on the server ({status})", where=where,
            fix="check the address and --revision; `stbench data list` shows the sources",
        )  # fmt: skip
    raise UserError(f"the server refuses ({status})", where=where, fix="--from takes a mirror or a local copy")


def send(method: str, url: str, **more: Any) -> requests.Response:
    """One request, not judged by its status.

    Raises:
        AgainError: If there was no answer.
        UserError: If there is no asking at this address.
    """
    try:
        return requests.request(method, url, timeout=TIMEOUT, **more)
    except (ValueError, requests.exceptions.TooManyRedirects):  # requests' own errors for bad addresses are both kinds
        raise UserError("nothing can be asked at this address", where=shown(url), fix="check it") from None
    except requests.exceptions.RequestException as error:
        raise broken(error) from None


def asked_wait(text: str | None) -> float | None:
    """Seconds from ``Retry-After``, which holds seconds or a date."""
    if not text:
        return None
    if text.strip().isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def broken(error: BaseException) -> AgainError:
    """What a broken connection is called; never the library's text, which holds the address with all secrets."""
    root, seen = error, 0
    while seen < 10 and (under := root.__cause__ or root.__context__) is not None:
        root, seen = under, seen + 1
    words = root.strerror if isinstance(root, OSError) else ""
    if not words and "timeout" in f"{type(error).__name__} {type(root).__name__}".lower():
        words = "no answer for too long"
    return AgainError("the connection broke" + (f" ({words})" if words else ""), answered=False)
