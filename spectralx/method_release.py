"""Hands the conversion of the release's checkpoints to ``stbench convert``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import cast

import torch

from spectral_tl_bench.errors import UserError, nearest
from spectral_tl_bench.files import atomic_path
from spectral_tl_bench.methods.converters import Conversion, ConversionRequest
from spectralx.released.convert import (
    Conversion as Understood,
)
from spectralx.released.convert import (
    read_header,
    release_content,
    save_ours,
    understand,
)
from spectralx.released.files import open_file, read_file
from spectralx.released.sizes import FAMILIES, PARTS, Family, Part, Sizes

SHOWN = 8
"""Problems of a kind that are named; whoever has more knows enough."""

CLASS_0 = (
    "class 0: the release's head has a first channel for pixels without a label, which training only pushes down. Its "
    "row is left out: predictions here are always one of the {} classes"
)
CLASS_0_BACK = (
    "class 0: the release wants a first channel for pixels without a label. It is a copy of that of class 1, lower by "
    "100 for every image: it wins no pixel"
)
NO_STAGE_FOLDER = (
    "no folder for --from-stage: its card names the training chips by content, the normalisation and the budget, which "
    "a checkpoint of the release does not say"
)


def convert(request: ConversionRequest) -> Conversion:
    """Convert a checkpoint of the release, or a file of ours back.

    Raises:
        UserError: If the file cannot be read, or is not complete for its stage; nothing is written then.
    """
    for part in request.without:
        if part not in PARTS:
            raise UserError(f"--without {part!r} is no part", expected=nearest(part, PARTS))
    if request.family is not None and request.family not in FAMILIES:
        raise UserError(f"--family {request.family!r} is not known", expected=nearest(request.family, FAMILIES))
    with _explained(request.source):
        header = read_header(request.source)
        if request.to == "release":
            if header is None:
                raise UserError(
                    "this is not a converted checkpoint", where=request.source,
                    expected="a file that stbench convert --to ours has written",
                    fix="for a model in Python: spectralx.released.to_released(model, stage=2)",
                )  # fmt: skip
            return _back(request, Sizes.from_json(header["sizes"]))
        if header is not None:
            raise UserError("the file is one of ours already", where=request.source, fix="give --to release")
        return _forth(request)


def _forth(request: ConversionRequest) -> Conversion:
    file = open_file(request.source)
    done = understand(
        file, request.stage, cast("Family | None", request.family), request.heads,
        cast("tuple[Part, ...]", request.without),
    )  # fmt: skip
    if done.problems:
        raise UserError(
            f"the checkpoint is not a complete one of stage {done.sizes.stage} ({done.sizes.family}); nothing was "
            "written:\n    " + "\n    ".join(_shortened(done.problems)),
            where=request.source,
            expected="every tensor that the release's own file has",
            fix="get the whole file, or name what it was trained without: --without " + " | ".join(PARTS),
        )
    _write(request.out, lambda path: save_ours(done, path, request.source.name))
    summary = (
        *_summary(done.sizes),
        *([f"beside the tensors, not used: {', '.join(file.beside)}"] if file.beside else []),
    )
    return Conversion(summary, _placed(done), _ignored(done), _notes(done, request.out))


def _shortened(problems: list[str]) -> Iterator[str]:
    """The first ones of each kind."""
    for kind, found in groupby(problems, lambda problem: problem.partition(":")[0]):
        several = list(found)
        yield from several[:SHOWN]
        if len(several) > SHOWN:
            yield f"{kind}: {len(several) - SHOWN} more"


def _back(request: ConversionRequest, sizes: Sizes) -> Conversion:
    if request.stage not in (None, sizes.stage):
        raise UserError(f"the file is of stage {sizes.stage}, not {request.stage}", where=request.source)
    content, again = release_content(read_file(request.source), sizes)
    _write(request.out, lambda path: torch.save(content, path))
    notes = [CLASS_0_BACK] if sizes.stage == 2 else []
    notes.append("the release loads without complaint what lacks tensors; this was read back, and lacks none")
    if sizes.family == "dinov3":
        notes.append(
            "not written, since the release has them from DINOv3's own file: mask_token, rope_embed.periods, "
            "local_cls_norm"
        )
    return Conversion(_summary(sizes), _placed(again), (), tuple(notes))


def _summary(sizes: Sizes) -> tuple[str, ...]:
    waves = "not in the file" if sizes.wavelengths is None else ", ".join(f"{one:g}" for one in sizes.wavelengths)
    classes = f", {sizes.classes} classes" if sizes.classes else ""
    return (
        f"SpectralX, stage {sizes.stage}, {sizes.family}: {sizes.bands} bands{classes}, {sizes.image_size} px",
        f"transformer: width {sizes.width}, depth {sizes.depth}, heads {sizes.heads}, patch {sizes.patch} px",
        f"wavelengths (um): {waves}",
    )


def _placed(done: Understood) -> tuple[tuple[str, int, int], ...]:
    return tuple((part, *numbers) for part, numbers in done.parts().items())


def _ignored(done: Understood) -> tuple[tuple[str, tuple[str, ...]], ...]:
    reasons: dict[str, list[str]] = {}
    for key, reason in done.report.ignored.items():
        reasons.setdefault(reason, []).append(key)
    for key in done.report.constants:
        reason = "zero, and this network has none" if key.endswith("]") else "the same in every checkpoint"
        reasons.setdefault(reason, []).append(key)
    return tuple((reason, tuple(keys)) for reason, keys in reasons.items())


def _notes(done: Understood, out: Path | None) -> tuple[str, ...]:
    name = "FILE" if out is None else out.name
    if done.sizes.stage == 1:
        return (
            NO_STAGE_FOLDER,
            f"to use it: spectralx.released.load_converted(model, {name!r}) puts it into a model of these sizes",
        )
    return (
        CLASS_0.format(done.sizes.classes),
        f"to use it: model = spectralx.released.open_converted({name!r})",
    )


def _write(out: Path | None, save: Callable[[Path], None]) -> None:
    if out is not None:
        with atomic_path(out) as temporary:
            save(temporary)


@contextmanager
def _explained(source: Path) -> Iterator[None]:
    """What the model's own package finds wrong, as a user's mistake."""
    try:
        yield
    except ValueError as error:
        text = str(error).removeprefix(f"{source}: ")
        raise UserError(f"the checkpoint cannot be converted: {text}", where=source) from None
