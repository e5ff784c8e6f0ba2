"""From the JSON text of one record to a record, with errors that name the key."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.results.schema import Record


def parse_record(text: str, where: object, *, read_before: bool = False) -> Record:
    """Read a record of any schema version.

    Args:
        text: A JSON object.
        where: Named in errors.
        read_before: Whether this text was read before and found to be in order: no key is given twice in it.

    Raises:
        RecordError: If it is no JSON, or a key is missing, unknown, wrong or given twice.
    """
    if read_before:
        with contextlib.suppress(ValidationError):  # of an earlier schema, or a false promise: see below
            return Record.model_validate_json(text)
    try:
        value = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_once)
    except ValueError as error:
        raise RecordError(f"the record cannot be read: {error}", where=where) from None
    if not isinstance(value, dict):
        raise RecordError("a record is a JSON object", where=where)
    if value.get("schema_version") == 1:  # its identity was a hash over source text, which says nothing here
        value["schema_version"] = 2
    return validated(value, where)


def validated(fields: Mapping[str, Any], where: object) -> Record:
    """A record of these fields.

    Raises:
        RecordError: If a key is missing, unknown or wrong; the first five are named.
    """
    try:
        return Record.model_validate(dict(fields))
    except ValidationError as error:
        problems = []
        # what is wrong says more than what is missing, which a wrong key often explains
        for item in sorted(error.errors(), key=lambda item: item["type"] == "missing"):
            key = ".".join(str(part) for part in item["loc"])
            message = item["msg"].removeprefix("Value error, ")
            problems.append(f"key {key!r}: {message}" if key else message)
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise RecordError(
            "this is not a valid record:\n    " + "\n    ".join(problems[:5]) + more, where=where
        ) from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _once(items: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(items)
    if len(value) != len(items):
        keys = [key for key, _ in items]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} is given twice")
    return value
