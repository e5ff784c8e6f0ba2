"""Protocols by name, found through entry points: ours and anybody's in the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.plugins import imported, offered
from spectral_tl_bench.protocol.names import DEFAULT_PROTOCOL, GROUP

if TYPE_CHECKING:
    from spectral_tl_bench.protocol.base import Protocol


def check_protocol_known(name: str) -> None:
    """Refuse a name that no installed package offers; nothing is imported.

    Raises:
        UserError: If it is unknown; the closest ones are named.
    """
    offered(name, GROUP, "protocol", UserError)


def get_protocol(name: str = DEFAULT_PROTOCOL) -> Protocol:
    """A protocol by name.

    Raises:
        UserError: If the name is unknown, or its package cannot be imported or holds something else.
    """
    entry = offered(name, GROUP, "protocol", UserError)
    from spectral_tl_bench.protocol.base import Protocol

    protocol = imported(entry, f"protocol {name!r}", UserError)
    if not isinstance(protocol, Protocol) or protocol.name != name:
        raise UserError(f"protocol {name!r} is not a {Protocol.__module__}.Protocol of that name",
                        where=entry.value)  # fmt: skip
    return protocol
