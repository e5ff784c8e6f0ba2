"""The shape of a stored result: everything that is known about one cell, and nothing that is not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, get_args

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PrivateAttr,
    model_serializer,
    model_validator,
)

from spectral_tl_bench.identity import RunIdentity, backbone_inputs
from spectral_tl_bench.later_options import LaterOptions
from spectral_tl_bench.models.backbones.spec import LATER_FACTS, InputNorm, LevelNorm, unusual
from spectral_tl_bench.protocol.names import DEFAULT_PROTOCOL
from spectral_tl_bench.results.tuning import Tuning

if TYPE_CHECKING:
    from spectral_tl_bench.results.location import Location

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""A name that is also a folder name: no separators, no leading dot."""

MethodName = Annotated[str, Field(pattern=r"^{0}(@{0})?(\+{0})*$".format(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"))]
"""A method, with one of its presets or without, and the objectives it is trained with; a folder name too."""

Text = Annotated[str, Field(min_length=1, max_length=2_000)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
Checkpoint = Literal["selected", "last", "oracle"]
Track = Literal["reproduced", "partial", "sample", "demonstration", "aerial", "hyperspectral"]
TRACKS: tuple[str, ...] = get_args(Track)


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class WeightFacts(_Strict):
    """Pretrained weights.

    Attributes:
        source: ``hub:NAME``, ``file`` or ``bundled``.
        digest: SHA-256 of the file.
        matched: Share of the encoder's parameters that the file has.
        missing: Tensors of the network that the file lacks.
        unexpected: Tensors of the file that the network has no place for.
    """

    source: str
    digest: str
    matched: Annotated[float, Field(ge=0, le=1)]
    missing: Count
    unexpected: Count


class BackboneFacts(_Strict, LaterOptions):
    """The backbone of a run, without the means to build it."""

    later: ClassVar = LATER_FACTS
    name: str
    width: Count
    depth: Count
    heads: Count
    patch: Count
    pretrained: str = "none"
    patch_embedding: str = "random"
    weights: WeightFacts | None = None
    input_scale: Annotated[float, Field(ge=1)] = 1.0
    level_norm: LevelNorm = "none"
    composites: tuple[tuple[Count, ...], ...] = ()
    input_norm: InputNorm = "source"

    @property
    def reading(self) -> str:
        """Its patch embedding, and all else that is not the usual about what it is given and gives, in words."""
        said = unusual(self)
        groups = " ".join("-".join(map(str, group)) for group in said.get("composites", ()))
        said |= {"composites": groups} if groups else {}
        return ", ".join([self.patch_embedding, *(f"{name.replace('_', ' ')} {value}" for name, value in said.items())])


class ChipCounts(_Strict):
    """Number of chips, or pixels, on each side of the walls."""

    train: Count
    validation: Count
    target: Count


class DataFacts(_Strict, LaterOptions):
    """Which pixels a run saw.

    Attributes:
        kind: ``sample`` for synthetic scenes, ``files`` for anything read from a user's disk.
        chips: How many chips.
        split_hash: Hash of the division into training, validation and target.
        manifest_hash: Hash of the list of files.
        notes: What a reader must know, for example chips that were left out.
        unit: The unit of the pixels, and how the files' values became it; None in records of before it was asked.
        unmeasured: Pixels of which a band is no measurement, on each side of the walls; None likewise.
    """

    later: ClassVar = {"unit": None, "unmeasured": None}
    kind: Literal["sample", "files"]
    chips: ChipCounts
    split_hash: str
    manifest_hash: str
    notes: tuple[Text, ...] = ()
    unit: Text | None = None
    unmeasured: ChipCounts | None = None


class Parameters(_Strict, LaterOptions):
    """Numbers of parameters of the whole module.

    Attributes:
        decoder: How many of the trainable ones turn features into logits or pixels; None in records of before it was
            counted.
    """

    later: ClassVar = {"decoder": None}
    total: Count
    trainable: Count
    decoder: Count | None = None


class StageFacts(_Strict, LaterOptions):
    """One training stage as it was run.

    Attributes:
        measured: Windows per second, share of time waiting for data, joules where they could be read; empty in
            records of before it was measured, and where nothing was trained.
    """

    later: ClassVar = {"measured": {}}
    name: str
    steps: Count
    seconds: Seconds
    trainable: Count
    options: dict[str, JsonValue] = Field(default_factory=dict)
    measured: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)


class Times(_Strict):
    """Wall-clock seconds; a stage that was reused counts with the time that its training took."""

    train: Seconds
    evaluate: Seconds
    total: Seconds


class Convergence(_Strict):
    """How training until a plateau of source validation ended.

    Attributes:
        converged: Whether source validation stopped gaining; otherwise the steps ran out.
        step: The last step.
        plateaus: Steps at whose validations a plateau was found: the rate fell, or training ended.
    """

    converged: bool
    step: Count
    plateaus: tuple[Count, ...] = ()


class Selection(_Strict, LaterOptions):
    """How the selected checkpoint was found.

    Attributes:
        metric: What a validation says, in the words of the protocol's selection.
        trace: (step, value) of every validation.
        convergence: How training until a plateau ended; None where it had a number of steps.
    """

    later: ClassVar = {"convergence": None}
    metric: Text = "source-validation mIoU"
    step: Count
    value: float | None
    trace: tuple[tuple[Count, float | None], ...] = ()
    convergence: Convergence | None = None


class ScoreBlock(_Strict):
    """Scores of one checkpoint on the target, as ``metrics.MIOU_RULE`` defines them.

    Attributes:
        miou: Mean IoU over the pooled target.
        iou: Per class; None where the class occurs neither in the ground truth nor in the predictions.
        oa: Overall accuracy.
        mean_f1: Mean F1 over the same classes as ``miou``.
        kappa: Cohen's kappa; None where it is not defined.
        per_domain: mIoU of each target domain by itself; None where a domain has no labelled pixel.
        worst_domain: The domain with the lowest mIoU.
        release_miou: What the rule of the authors' release says on the same matrix.
    """

    miou: float
    iou: tuple[float | None, ...]
    oa: float
    mean_f1: float
    kappa: float | None
    per_domain: dict[str, float | None]
    worst_domain: str
    release_miou: float | None


class ScoreSet(_Strict):
    """One block per checkpoint; the oracle is the best on the target, which nobody may select by."""

    selected: ScoreBlock
    last: ScoreBlock
    oracle: ScoreBlock | None = None

    def blocks(self) -> dict[str, ScoreBlock]:
        """The blocks that are there, by checkpoint."""
        blocks = {"selected": self.selected, "last": self.last}
        return blocks if self.oracle is None else {**blocks, "oracle": self.oracle}


class EvidenceFacts(_Strict):
    """How evidence is known.

    Attributes:
        sha256: Of its content, see ``Evidence.sha256``, whichever file it lies in.
        earlier_file: In records of schema 1 alone, key ``file``: the Parquet file whose bytes ``sha256`` is of.
    """

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    earlier_file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.parquet$")] | None = Field(
        None, alias="file"
    )

    @property
    def file(self) -> str:
        """Name of the file in a run's own folder."""
        return self.earlier_file or f"evidence-{self.sha256[:16]}.parquet"

    @model_serializer
    def _keys(self) -> dict[str, str]:
        return {"sha256": self.sha256} | ({"file": self.earlier_file} if self.earlier_file else {})


class PictureFile(_Strict):
    """Predictions of the selected checkpoint for a few target chips, as a PNG of class indices beside the record.

    Attributes:
        file: Name of the file.
        sha256: Of its bytes.
        chips: The chips, from left to right.
    """

    file: Annotated[str, Field(pattern=r"^pictures-[0-9a-f]{16}\.png$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    chips: Annotated[tuple[Text, ...], Field(min_length=1, max_length=2)]


class Failure(_Strict):
    """Why a cell has no result."""

    kind: Text
    message: str


class Record(_Strict, LaterOptions):
    """One cell of the plan: one benchmark, method, backbone, protocol and seed.

    Attributes:
        options: The method's options, complete.
        objectives: Options of the objectives that the method was trained with, by name.
        settings: Everything else that changes the result: budget, window, stride, batch.
        backbone: None for a method that uses none.
        target_images: Whether the method was given the target's images, without labels, while it was trained.
        track: ``reproduced``: a published dataset, complete; ``partial``: a part of one; ``sample``: synthetic scenes;
            ``demonstration``: a user's own benchmark; ``aerial``, ``hyperspectral``: a further one of the suite.
        fingerprint: That of ``identity()``; of a record whose identity is not known, the hash that it came with.
        definition: Hash of the benchmark's definition, see ``identity.benchmark_digest``.
        numerics: Numerics version of every component that took part; None in a record of schema 1 whose identity was
            not rebuilt. Its numbers stand, but nothing says which code they belong to.
        given_stage: Hash of the tensors of a first stage that the user gave.
        earlier_fingerprint: The hash over source text under which schema 1 knew the result.
        majority_class: The most frequent class of the source's training labels.
        parameters: None, like all that was measured, only where the cell failed.
        statement: For synthetic data, the sentence that says so.
        tuning: The search on source validation that options and settings stem from; None where there was none.
    """

    later: ClassVar = {"tuning": None}
    schema_version: Literal[2] = 2
    status: Literal["completed", "failed"]
    benchmark: Name
    benchmark_version: Annotated[str, Field(pattern=r"^\d+\.\d+$")]
    dataset: Text
    gap: Literal["region", "season", "none"]
    method: MethodName
    family: Text
    options: dict[str, JsonValue]
    objectives: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    backbone: BackboneFacts | None
    protocol: Name = DEFAULT_PROTOCOL
    seed: Count
    settings: dict[str, JsonValue]
    track: Track
    target_images: bool = False
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")]
    definition: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    numerics: dict[Text, Text] | None = None
    given_stage: Text | None = None
    earlier_fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")] | None = None
    classes: Annotated[tuple[Text, ...], Field(min_length=2)]
    source_domains: Annotated[tuple[Text, ...], Field(min_length=1)]
    target_domains: Annotated[tuple[Text, ...], Field(min_length=1)]
    environment: dict[str, str]
    created: AwareDatetime
    statement: Text | None = None
    data: DataFacts | None = None
    majority_class: Count | None = None
    parameters: Parameters | None = None
    stages: tuple[StageFacts, ...] = ()
    seconds: Times | None = None
    peak_memory_mb: Annotated[float, Field(ge=0)] | None = None
    device: str | None = None
    selection: Selection | None = None
    scores: ScoreSet | None = None
    evidence: EvidenceFacts | None = None
    pictures: PictureFile | None = None
    error: Failure | None = None
    tuning: Tuning | None = None

    _location: Location | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _consistent(self) -> Record:
        needed = ("data", "majority_class", "parameters", "seconds", "device", "selection", "scores", "evidence")
        if self.status == "completed":
            missing = [name for name in needed if getattr(self, name) is None]
            if missing:
                raise ValueError(f"a completed record needs {', '.join(missing)}")
            if self.error is not None:
                raise ValueError("a completed record has no error")
        elif self.error is None or self.scores is not None or self.evidence is not None:
            raise ValueError("a failed record has an error, and neither scores nor evidence")
        if self.majority_class is not None and self.majority_class >= len(self.classes):
            raise ValueError(f"majority_class {self.majority_class} is not one of 0..{len(self.classes) - 1}")
        if self.data is not None and (self.data.kind == "sample") != (self.track == "sample"):
            raise ValueError(f"data of kind {self.data.kind!r} cannot be on the track {self.track!r}")
        if self.track == "sample" and self.statement is None:
            raise ValueError("a record of synthetic data needs a statement that says so")
        if self.tuning is not None and (others := self.tuning.disagreements(self.options, self.settings)):
            raise ValueError(f"tuning chose another {others[0]} than the run had")
        identity = self.identity()
        if identity is not None and identity.fingerprint != self.fingerprint:
            raise ValueError("the fingerprint does not follow from what the record says: it was edited after the run")
        return self

    def identity(self) -> RunIdentity | None:
        """What the result depends on; None where the record does not say it all."""
        if self.numerics is None or self.definition is None or self.data is None:
            return None
        return RunIdentity(
            benchmark=self.benchmark, definition=self.definition, manifest=self.data.manifest_hash,
            split=self.data.split_hash, method=self.method, options=self.options, objectives=self.objectives,
            backbone=backbone_inputs(self.backbone.model_dump(mode="json") if self.backbone else None),
            settings=self.settings, stage=self.given_stage, seed=self.seed, numerics=self.numerics,
        )  # fmt: skip

    @property
    def board(self) -> str:
        """The board it stands on: one for each track, protocol, and whether methods got the target's images."""
        protocol = "" if self.protocol == DEFAULT_PROTOCOL else f"-{self.protocol}"
        return f"{self.track}{protocol}{'-unlabelled-target' if self.target_images else ''}"

    @property
    def location(self) -> Location | None:
        """Where it is stored with its evidence; None for one that was only made."""
        return self._location

    @property
    def path(self) -> Path | None:
        """The file that the record was read from."""
        return self._location.path if self._location is not None else None

    def at(self, location: Location) -> Record:
        """The same record, knowing where it is stored."""
        copy = self.model_copy()
        copy._location = location
        return copy
