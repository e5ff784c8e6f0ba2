"""Protocols by name, found through entry points: ours and anybody's in the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectral_tl_bench.errors import UserError, nearest
from spectral_tl_bench.plugins import imported, installed

if TYPE_CHECKING:
    from spectral_tl_bench.protocol.base import Protocol

GROUP = "spectral_tl_bench.protocols"
DEFAULT_PROTOCOL = "strict"


def check_protocol_known(name: str) -> None:
    """Refuse a name that no installed package offers; nothing is imported.

    Raises:
        UserError: If it is unknown; the closest ones are named.
    """
    entries = installed(GROUP, "a protocol")
    if name not in entries:
        raise UserError(f"there is no protocol {name!r}", expected=nearest(name, entries))


def get_protocol(name: str = DEFAULT_PROTOCOL) -> Protocol:
    """A protocol by name.

    Raises:
        UserError: If the name is unknown, or its package cannot be imported or holds something else.
    """
    check_protocol_known(name)
    from spectral_tl_bench.protocol.base import Protocol

    entries = installed(GROUP, "a protocol")
    protocol = imported(entries[name], f"protocol {name!r}", UserError)
    if not isinstance(protocol, Protocol) or protocol.name != name:
        raise UserError(f"protocol {name!r} is not a {Protocol.__module__}.Protocol of that name",
                        where=entries[name].value)  # fmt: skip
    return protocol
