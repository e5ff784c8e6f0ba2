"""A protocol: everything that decides how a number comes about, apart from data, method and seed, as one object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spectral_tl_bench.data.rules import PixelRules
from spectral_tl_bench.evaluation.metrics import MeanIoU
from spectral_tl_bench.methods.base import Budget
from spectral_tl_bench.plugins import installed, package_of
from spectral_tl_bench.protocol.names import GROUP
from spectral_tl_bench.training.selection import BestOnSource


@dataclass(frozen=True)
class Protocol:
    """One protocol. A second one is a second object, in a file of its own: nothing asks for a protocol by its name.

    Attributes:
        name: What records, settings and the command line call it.
        about: One sentence.
        pixels: Normalisation, augmentation and windows.
        metric: What is measured.
        selection: Which checkpoint counts.
        budgets: Training budget and number of validations by name; ``small`` suits the sample and first steps on data
            of one's own.
        usual_budget: Name of the budget for published data.
        window: Side of the windows for published data, in pixels, where chips are as large.
        small_window: The same for everything else.
        options: Values of method options, for methods that have an option of that name. A preset of the method wins
            over them, and what the user says over both.
    """

    name: str
    about: str
    pixels: PixelRules
    metric: MeanIoU
    selection: BestOnSource
    budgets: Mapping[str, tuple[Budget, int]]
    usual_budget: str
    window: int
    small_window: int
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """The numerics version of each part; budget and window, which a run may change, stand in its settings."""
        return ", ".join(f"{name} {version}" for name, version in self.versions().items())

    def versions(self) -> dict[str, str]:
        """The numerics version of each part; one that says nothing of itself has that of the protocol's package."""
        package = " ".join(package_of(installed(GROUP).get(self.name)))
        return {name: str(getattr(part, "numerics_version", package)) for name, part in self.parts().items()}

    def parts(self) -> dict[str, Any]:
        """What numbers depend on; each part has a ``name`` and a ``numerics_version``."""
        return {
            "normalisation": self.pixels.normalise,
            "augmentation": self.pixels.augment,
            "windows": self.pixels.windows,
            "metric": self.metric,
            "selection": self.selection,
        }
