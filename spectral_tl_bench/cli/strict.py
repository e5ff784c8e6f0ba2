"""What all verbs do with their arguments.

What is given twice is an error, ``~`` in paths is the home folder, a misspelt verb or option is answered with what it
may have been, and every mistake ends as a `UserError`.

Of an option that may be given once, the libraries below would take the last; and a shell leaves the ``~`` of
``--out=~/runs`` as it is.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from spectral_tl_bench.console import user_path
from spectral_tl_bench.errors import UserError, nearest

MEANT = {"dataset": ("benchmark",), "epochs": ("steps",), "model": ("backbone", "method")}
"""What others call our options; those of them that a verb has are offered."""


class _Strict:
    """Beside a class of commands: reads the arguments first."""

    params: list[Any]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, as the class beside this one does.

        Raises:
            UserError: If there is no such option, one that may be given once is given more often, or a value is
                missing or of another type.
        """
        if ctx.resilient_parsing:  # where a shell completes, nothing is complete yet
            rest: list[str] = super().parse_args(ctx, args)  # type: ignore[misc]
        else:
            with _in_our_words(self, ctx):
                _refuse_single_dash(self, ctx, args)
                _refuse_twice(self, ctx, args)
                rest = super().parse_args(ctx, args)  # type: ignore[misc]
        # Earlier versions of Typer make paths of texts only later, and know by the type which are to be ones.
        texts = {param.name for param in self.params if getattr(getattr(param, "type", None), "name", "") == "path"}
        ctx.params.update({name: _expanded(value, name in texts) for name, value in ctx.params.items()})
        return rest


class StrictCommand(_Strict, TyperCommand):
    """A verb."""


class StrictGroup(_Strict, TyperGroup):
    """A group of verbs with options of its own."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb.

        Raises:
            UserError: If there is no such verb.
        """
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            raise UserError(
                f"`{ctx.command_path}` has no command {args[0]}",
                expected=nearest(args[0], self.list_commands(ctx)),
                fix=f"`{ctx.command_path} --help` says what each does",
            )
        return super().resolve_command(ctx, args)


def make_strict(app: typer.Typer) -> None:
    """Make all verbs of an app, and those of the apps in it, strict; to be called when all are registered."""
    for command in app.registered_commands:
        command.cls = StrictCommand
    app.info.cls = StrictGroup
    for group in app.registered_groups:
        if group.typer_instance is not None:
            make_strict(group.typer_instance)


@contextlib.contextmanager
def _in_our_words(command: Any, ctx: Any) -> Iterator[None]:
    """Say what Typer refuses as all else is said; its classes are in Typer or in click, depending on the version."""
    try:
        yield
    except Exception as error:
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if "UsageError" not in kinds or "NoArgsIsHelpError" in kinds:
            raise
        told: Any = error
        if "NoSuchOption" in kinds:
            raise _no_such_option(command, ctx, told.option_name) from None
        help_ = f"`{ctx.command_path} --help` says what it takes"
        if "BadOptionUsage" in kinds:
            flag = told.option_name
            raise UserError(f"{flag} has no value", expected=f"{flag} VALUE", fix=help_) from None
        if told.param is None:
            raise UserError(told.message, fix=help_) from None
        name = max(told.param.opts, key=len) if told.param.param_type_name == "option" else told.param.name.upper()
        if "MissingParameter" in kinds:
            raise UserError(f"`{ctx.command_path}` needs {name}", expected=told.param.help, fix=help_) from None
        raise UserError(f"{name}: {told.message}", fix=help_) from None


def _refuse_twice(command: Any, ctx: Any, args: list[str]) -> None:
    """Parse once more, with every option repeatable, so that no value is lost."""
    single = [param for param in command.params if param.param_type_name == "option" and not param.multiple]
    twin = copy.copy(command)
    twin.params = [_repeatable(param) if param in single else param for param in command.params]
    values, rest, _ = twin.make_parser(ctx).parse_args(args=list(args))
    if rest and not ctx.allow_extra_args:
        raise UserError(
            f"`{ctx.command_path}` takes no argument {' '.join(rest)}",
            expected=f"a value behind its option, as in -m {rest[0]}" if "--method" in _flags(command, ctx) else None,
            fix=f"`{ctx.command_path} --help` lists them",
        )
    for param in single:
        given = values.get(param.name)
        if not param.is_eager and isinstance(given, list) and len(given) > 1:
            flag = max(param.opts, key=len)
            shown = "" if param.is_flag else ": " + " and ".join(map(str, given))
            raise UserError(f"{flag} is given {_times(len(given))}{shown}", expected=f"{flag} once")


def _flags(command: Any, ctx: Any) -> list[str]:
    """The options that a user may see."""
    params = [param for param in command.get_params(ctx) if param.param_type_name == "option" and not param.hidden]
    return [flag for param in params for flag in (*param.opts, *param.secondary_opts) if flag.startswith("--")]


def _no_such_option(command: Any, ctx: Any, name: str) -> UserError:
    known = {flag.removeprefix("--"): flag for flag in _flags(command, ctx)}
    word = name.lstrip("-").replace("_", "-").lower()
    if word in known:
        return UserError(f"`{ctx.command_path}` has no option {name}", expected=f"did you mean --{word}?")
    close = [flag for flag in MEANT.get(word, ()) if flag in known]
    close += [flag for flag in known if _initials(flag) == word or (len(word) > 2 and flag.startswith(word))]
    close += [other for other in difflib.get_close_matches(word, known, n=3, cutoff=0.6) if other not in close]
    return UserError(
        f"`{ctx.command_path}` has no option {name}",
        expected=f"did you mean {' or '.join(known[other] for other in close[:3])}?" if close else None,
        fix=f"`{ctx.command_path} --help` lists them",
    )


def _initials(flag: str) -> str:
    """``lr`` of ``learning-rate``."""
    return "".join(word[:1] for word in flag.split("-")) if "-" in flag else ""


def _refuse_single_dash(command: Any, ctx: Any, args: list[str]) -> None:
    """Refuse ``-steps``, which would be read as ``-s teps``."""
    flags = _flags(command, ctx)
    for before, argument in zip(["", *args], args, strict=False):
        name = argument.partition("=")[0]
        if before == "--":
            return
        if len(name) > 2 and name[1] != "-" and f"-{name}" in flags:
            raise UserError(f"`{ctx.command_path}` has no option {name}", expected=f"two dashes: -{name}")


def _expanded(value: Any, is_path: bool) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_expanded(item, is_path) for item in value)
    if isinstance(value, Path):
        return user_path(value)
    return str(user_path(value)) if is_path and isinstance(value, str) else value


def _repeatable(param: Any) -> Any:
    param = copy.copy(param)
    param.multiple = True
    return param


def _times(count: int) -> str:
    return "twice" if count == 2 else f"{count} times"
