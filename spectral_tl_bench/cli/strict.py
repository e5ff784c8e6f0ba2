"""What all verbs do with their arguments: what is given twice is an error, ``~`` in paths is the home folder.

Of an option that may be given once, the libraries below would take the last; and a shell leaves the ``~`` of
``--out=~/runs`` as it is.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from spectral_tl_bench.console import user_path
from spectral_tl_bench.errors import UserError


class _Strict:
    """Beside a class of commands: reads the arguments first."""

    params: list[Any]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, as the class beside this one does.

        Raises:
            UserError: If an option that may be given once is given more often.
        """
        _refuse_twice(self, ctx, args)
        rest: list[str] = super().parse_args(ctx, args)  # type: ignore[misc]
        # Earlier versions of Typer make paths of texts only later, and know by the type which are to be ones.
        texts = {param.name for param in self.params if getattr(getattr(param, "type", None), "name", "") == "path"}
        ctx.params.update({name: _expanded(value, name in texts) for name, value in ctx.params.items()})
        return rest


class StrictCommand(_Strict, TyperCommand):
    """A verb."""


class StrictGroup(_Strict, TyperGroup):
    """A group of verbs with options of its own."""


def make_strict(app: typer.Typer) -> None:
    """Make all verbs of an app, and those of the apps in it, strict; to be called when all are registered."""
    for command in app.registered_commands:
        command.cls = StrictCommand
    app.info.cls = StrictGroup
    for group in app.registered_groups:
        if group.typer_instance is not None:
            make_strict(group.typer_instance)


def _refuse_twice(command: Any, ctx: Any, args: list[str]) -> None:
    """Parse once more, with every option repeatable, so that no value is lost."""
    single = [param for param in command.params if param.param_type_name == "option" and not param.multiple]
    twin = copy.copy(command)
    twin.params = [_repeatable(param) if param in single else param for param in command.params]
    values, _, _ = twin.make_parser(ctx).parse_args(args=list(args))
    for param in single:
        given = values.get(param.name)
        if not param.is_eager and isinstance(given, list) and len(given) > 1:
            flag = max(param.opts, key=len)
            shown = "" if param.is_flag else ": " + " and ".join(map(str, given))
            raise UserError(f"{flag} is given {_times(len(given))}{shown}", expected=f"{flag} once")


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
