"""The arguments of a verb, to give it again."""

from __future__ import annotations

from collections.abc import Collection

import typer


def arguments_of(context: typer.Context, without: Collection[str] = ()) -> list[str]:
    """What a verb was given on the command line, as arguments that mean the same; defaults stay defaults.

    Args:
        without: Parameters to leave out.
    """
    found: list[str] = []
    for param in context.command.params:
        source = context.get_parameter_source(param.name or "")
        if param.name is None or param.name in without or source is None or source.name != "COMMANDLINE":
            continue
        value, flag = context.params[param.name], max(param.opts, key=len)
        if getattr(param, "is_flag", False):
            found.append(flag if value else max(param.secondary_opts, key=len))
        else:
            values = value if isinstance(value, list | tuple) else [value]
            found += [f"{flag}={one}" for one in values]  # as one word: a value may begin with a dash
    return found
