"""The command ``stbench``. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import codecs
import contextlib
import errno
import gc
import os
import signal
import sys
from typing import Annotated

import typer

from spectral_tl_bench import __version__
from spectral_tl_bench.cli import (
    authoring,
    benchmarks,
    compare,
    convert,
    data,
    leaderboard,
    new_benchmark,
    plan,
    predict,
    run,
    status,
    submit,
    tune,
)
from spectral_tl_bench.cli.backbones import backbones_app
from spectral_tl_bench.cli.cache import cache_app
from spectral_tl_bench.cli.methods import methods_app
from spectral_tl_bench.cli.strict import make_strict
from spectral_tl_bench.console import complain, is_text, say, show_what_can_be_shown
from spectral_tl_bench.endings import OutputClosed, stoppable, stopped_by
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.storage.place import stand_in_for_home
from spectral_tl_bench.storage.room import NO_ROOM

app = typer.Typer(
    name="stbench",
    help="Spectral TL Bench: train a land-cover method on one region or season, test it on others.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(methods_app, name="methods")
app.add_typer(backbones_app, name="backbones")
app.add_typer(cache_app, name="cache")
for group in (
    run, plan, tune, predict, benchmarks, data, authoring, new_benchmark, leaderboard, compare, convert, submit, status,
):  # fmt: skip
    group.register(app)
make_strict(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"stbench {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


def program() -> None:
    """Entry point of the command, with which the process ends."""
    main(to_the_end=True)


def main(to_the_end: bool = False) -> None:
    """The command: a user's mistake ends with a message and exit code 2, without a traceback.

    A signal ends it with 130 or 143, and an output that nobody reads with 141, as a shell would say it.

    Args:
        to_the_end: See ``stoppable``.
    """
    _speak_utf8()
    show_what_can_be_shown()
    with stoppable(to_the_end):
        try:
            _check_names(sys.argv[1:])
            stand_in_for_home()
            app()
        except UserError as error:
            complain(f"error: {error}")
            sys.exit(2)
        except OutputClosed:
            _to_nowhere()
            sys.exit(128 + signal.SIGPIPE)
        except (OSError, MemoryError) as error:
            if isinstance(error, MemoryError) or error.errno in (errno.ENOMEM, errno.EAGAIN):
                complain(
                    "error: memory, or the number of processes, is at its limit\n"
                    f"  where: {error!r}\n"
                    "  to do: ask the batch system for more, or read with fewer --workers or --threads"
                )
                sys.exit(2)
            if error.errno not in NO_ROOM:
                raise
            complain(f"error: {error.strerror}\n  where: {error.filename or 'not known'}\n  to do: make room")
            sys.exit(2)
        except SystemExit:
            if (number := stopped_by()) is not None:
                gc.freeze()  # Python would look for garbage in all of PyTorch before it ends, for seconds
                sys.exit(128 + number)
            raise


def _to_nowhere() -> None:
    """Let Python close an output that nobody reads without a word about it."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _speak_utf8() -> None:
    """Start again in Python's UTF-8 mode where names of files would be taken for ASCII, as GDAL never does."""
    if os.name != "posix" or sys.flags.utf8_mode or codecs.lookup(sys.getfilesystemencoding()).name == "utf-8":
        return
    if sys.executable:
        # The terminal stays what it is; what it cannot show is written with backslashes.
        shown = f"{getattr(sys.stdout, 'encoding', None) or 'ascii'}:backslashreplace"
        os.environ |= {"PYTHONUTF8": "1", "PYTHONIOENCODING": shown}
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - this very command


def _check_names(arguments: list[str]) -> None:
    """Refuse names that are no text: neither GDAL nor a record could hold them."""
    for argument in arguments:
        if not is_text(argument):
            raise UserError(
                f"{argument!r} is not valid UTF-8", expected="names of files in UTF-8", fix="rename the file or folder"
            )


if __name__ == "__main__":
    program()
