"""What a result depends on, by name: finished work is found again, and wrong work is not reused.

A number changes when its inputs change, or when code that computes it does. Inputs are named here one by one. Code is
named by its **numerics version**: a number beside the code that it speaks for, raised by hand when a result may change.
Golden cases (``tests/golden``) fail when numbers move and the version does not, so that nobody can forget it.
Moving, renaming and rewriting code leave every identity as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

from spectral_tl_bench.files import canonical, digest


class RunIdentity(BaseModel):
    """Everything that changes the number of one cell, and nothing else: no device, no readers, no folder, no date.

    Attributes:
        definition: Hash of what the benchmark's definition says, without titles, colours and notes.
        manifest: Hash of the chips' pixels and labels; not of files, their dates or their folder.
        split: Hash of who trains, validates and tests.
        method: Full name of the method, with its preset: weights are drawn from a seed made of it.
        options: The method's options, complete.
        objectives: Options of the objectives by name.
        backbone: Name, sizes, patch embedding and hash of the weights; None where the method uses none.
        settings: Of the protocol, with its name.
        stage: Hash of the tensors of a first stage that the user gave; None for the run's own.
        seed: The seed.
        numerics: Numerics version of every component that takes part.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmark: str
    definition: str
    manifest: str
    split: str
    method: str
    options: dict[str, JsonValue]
    objectives: dict[str, dict[str, JsonValue]]
    backbone: dict[str, JsonValue] | None
    settings: dict[str, JsonValue]
    stage: str | None
    seed: int
    numerics: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """A hash of everything here (64 hex digits)."""
        return fingerprint_of({name: canonical(value) for name, value in self.model_dump(mode="json").items()})

    def differences(self, other: RunIdentity) -> dict[str, tuple[Any, Any]]:
        """What is not the same in another identity: both values, by name; members of mappings as ``field.name``."""
        mine, theirs = flat(self.model_dump(mode="json")), flat(other.model_dump(mode="json"))
        return {
            name: (mine.get(name), theirs.get(name))
            for name in sorted(mine.keys() | theirs.keys())
            if mine.get(name) != theirs.get(name)
        }


def fingerprint_of(texts: Mapping[str, str]) -> str:
    """The fingerprint of an identity.

    Args:
        texts: The canonical JSON of every field, by name.
    """
    members = ",".join(f"{canonical(name)}:{texts[name]}" for name in sorted(texts))
    return hashlib.sha256(f"[{{{members}}}]".encode()).hexdigest()


class Texts:
    """The canonical JSON of fields of many identities: each is made once for the same objects.

    It must not outlive them, nor a change of any version: one plan is what it is for.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], tuple[str, tuple[object, ...]]] = {}

    def __call__(self, name: str, depends_on: tuple[object, ...], make: Callable[[], Any]) -> str:
        """The text of a field.

        Args:
            depends_on: Objects that it is made of; numbers and texts count by their value.
        """
        key = (name, *(one if isinstance(one, int | str) else id(one) for one in depends_on))
        if key not in self._kept:
            self._kept[key] = canonical(make()), depends_on  # held, so that no other object gets the same id
        return self._kept[key][0]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by name, members of mappings as ``field.name``."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def benchmark_digest(definition: Mapping[str, Any]) -> str:
    """A hash of the parts of a benchmark's definition that can change a number on it: no title, colour or note.

    How files are read (units, alignment, which nodata counts), cut into chips and given their domains is not in it
    either: what that does to pixels, labels and domains stands in the manifest.

    Args:
        definition: ``Benchmark.model_dump(mode="json")``.
    """
    texts = {
        "title", "citation", "notes", "groups", "track", "layout", "cut", "domains_by", "expected", "nodata_in",
    }  # fmt: skip
    facts = {key: value for key, value in definition.items() if key not in texts}
    facts["nodata"] = "error" if definition["nodata"] == "refuse" else definition["nodata"]  # as Benchmark.nodata_key
    facts["labels"] = {
        **{key: value for key, value in definition["labels"].items() if key not in ("align", "nodata")},
        "classes": [{key: cover[key] for key in ("name", "raw")} for cover in definition["labels"]["classes"]],
    }
    facts["domains"] = [domain["id"] for domain in definition["domains"]]
    facts["sensor"] = {key: definition["sensor"][key] for key in ("gsd", "bands")}
    return digest(facts)


def backbone_inputs(facts: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What of a backbone's facts changes a number: where its weights came from, and what they are called, does not.

    Args:
        facts: ``Backbone.facts()``, or what a record keeps of it; None where the method uses none.
    """
    if facts is None:
        return None
    weights = facts.get("weights")
    kept = {key: value for key, value in facts.items() if key not in ("pretrained", "weights")}
    return {**kept, "weights": weights and weights["digest"]}


def version_of(kind: type, package: str, package_version: str) -> str:
    """The numerics version of a class that a package offers as a method or objective.

    Args:
        kind: The class. ``numerics_version`` counts where the class itself declares it, not where it inherits it.
        package: Its distribution.
        package_version: That of the distribution, for a class that declares none.
    """
    declared = vars(kind).get("numerics_version")
    return str(declared) if declared is not None else f"{package} {package_version}"
