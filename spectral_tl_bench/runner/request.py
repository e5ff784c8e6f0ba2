"""What a user asks for: some benchmarks, methods and seeds, with one choice of everything else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectral_tl_bench.defaults import DEFAULT_BACKBONE
from spectral_tl_bench.protocol.names import DEFAULT_PROTOCOL
from spectral_tl_bench.protocol.settings import Overrides


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        benchmarks: Ids, groups or paths of YAML files.
        methods: Entry-point names, each by itself or with a preset and objectives (``name@preset+objective``).
        options: Method options, for every method of the request; they win over a preset's.
        weights: Pretrained weights of the backbone; see ``get_backbone``.
        patch_embedding: How its patch embedding comes from them.
        input_scale: How many times larger images are made before it; see ``models.backbones.input_scale``.
        level_norm: What feature levels pass before a decoder; what the backbone's authors do by default.
        input_norm: How pixels are normalised before it alone; by the source's statistics by default.
        data_root: ``--data-root``, if given.
        allow_partial: Whether published data may be incomplete.
        trust_data: Whether links and VRTs may lead out of the data root.
        packed: Where packed chips are, see ``data.packed.find_packed``; no number depends on it.
        as_published: Whether the target's labels may be read while training, which ``as-published`` alone does.
        oracle: Also report the oracle checkpoint.
        from_stage: Folder of a trained first stage to start from.
        objective_options: Options of objectives by name, for every method that has the objective.
        variant: What tells its cells from those of other requests of a plan, in words; empty where there are none.
    """

    benchmarks: Sequence[str]
    methods: Sequence[str]
    options: dict[str, Any] = field(default_factory=dict)
    backbone: str = DEFAULT_BACKBONE
    backbone_sizes: dict[str, int] = field(default_factory=dict)
    weights: str | None = None
    patch_embedding: str | None = None
    input_scale: str | None = None
    level_norm: str | None = None
    input_norm: str | None = None
    seeds: Sequence[int] = (0,)
    data_root: Path | None = None
    allow_partial: bool = False
    trust_data: bool = False
    packed: str | None = None
    protocol: str = DEFAULT_PROTOCOL
    as_published: bool = False
    overrides: Overrides = field(default_factory=Overrides)
    oracle: bool = False
    from_stage: Path | None = None
    objective_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    variant: str = ""
