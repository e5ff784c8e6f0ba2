"""Names that protocols go by; nothing is imported for them."""

GROUP = "spectral_tl_bench.protocols"
"""The entry-point group."""
DEFAULT_PROTOCOL = "strict"
AS_PUBLISHED = "as-published"
"""The one protocol that reads labels of the target while it trains; ``--as-published`` asks for it, no name does."""
