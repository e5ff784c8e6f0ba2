"""``stbench init-benchmark`` and ``stbench benchmarks check``: a benchmark of one's own."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_tl_bench.cli.run_options import TrustData
from spectral_tl_bench.console import counted, one_of, print_rows, say
from spectral_tl_bench.errors import UserError, nearest

if TYPE_CHECKING:
    from spectral_tl_bench.authoring.check_benchmark import CheckedBenchmark
    from spectral_tl_bench.authoring.folder import Seen
    from spectral_tl_bench.authoring.new_benchmark import Answers, Domains

_GAPS = ("region", "season", "none")
_NODATA = ("refuse", "fill", "void")


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("init-benchmark")(init_benchmark)


def check(
    benchmark: Annotated[str, typer.Argument(metavar="FILE", help="YAML file of a benchmark, or the id of one.")],
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of the data; default: as a run looks for them.")
    ] = None,
    no_data: Annotated[bool, typer.Option("--no-data", help="Look at the definition alone.")] = False,
    trust_data: TrustData = False,
) -> None:
    """Check a benchmark: its keys, then every chip, label value and domain that it points to."""
    from spectral_tl_bench.authoring.check_benchmark import check_benchmark

    _print(check_benchmark(benchmark, data_root, data=not no_data, trust_data=trust_data), benchmark, data_root)


def init_benchmark(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Images and their labels, in any subfolders.")],
    out: Annotated[Path | None, typer.Option(help="The YAML file; default: FOLDER/ID.yaml.")] = None,
    images: Annotated[str, typer.Option(help="Which files are images, as 'img/*.tif'; default: told by names.")] = "",
    labels: Annotated[str, typer.Option(help="Which files are labels, as 'map/*.tif'; default: likewise.")] = "",
    drop_unpaired: Annotated[
        bool, typer.Option("--drop-unpaired", help="Leave out images without label, and labels without image.")
    ] = False,
    size: Annotated[int | None, typer.Option(min=8, help="Leave out images of another side in pixels.")] = None,
    name: Annotated[
        str | None, typer.Option("--id", help="Name of the benchmark; default: that of the folder.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="One line about it.")] = None,
    citation: Annotated[str | None, typer.Option(help="Whom to cite for the data.")] = None,
    domains_by: Annotated[
        str | None, typer.Option(help="What tells the domains: table, folder, name, crs, or none.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Domains to train on, with commas.")] = None,
    target: Annotated[str | None, typer.Option(help="Domains to test on; default: all others.")] = None,
    gap: Annotated[str | None, typer.Option(help="What separates them: region, season or none.")] = None,
    gsd: Annotated[float | None, typer.Option(min=0.001, help="Side of a pixel in metres.")] = None,
    unit: Annotated[str | None, typer.Option(help="What a pixel value means, for people.")] = None,
    scale: Annotated[float | None, typer.Option(help="Reflectance = value * scale.")] = None,
    bands: Annotated[str | None, typer.Option(help="Names of the bands in file order, with commas.")] = None,
    wavelengths: Annotated[
        str | None, typer.Option(help="Their centres in micrometres, as 0.49,0.56,0.665; or evenly, as 0.4..1.0.")
    ] = None,
    classes: Annotated[str | None, typer.Option(help="As 1=forest,2=water; 1+3=forest puts values together.")] = None,
    void: Annotated[str | None, typer.Option(help="Label values without ground truth, with commas; or none.")] = None,
    nodata: Annotated[str | None, typer.Option(help="Values that are no measurement: refuse, fill or void.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; take what is proposed.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a YAML file and table that are there.")
    ] = False,
) -> None:
    """Write the YAML of a benchmark from a folder of images and labels; asks only what the files do not say."""
    from spectral_tl_bench.authoring.check_benchmark import check_benchmark, fitting_split
    from spectral_tl_bench.authoring.folder import look_into
    from spectral_tl_bench.authoring.new_benchmark import TABLE, definition_of, identifier, rows_of, write_benchmark

    if name is not None and identifier(name) != name:
        raise UserError(f"--id {name!r} cannot be a name", expected=f"such as {identifier(name) or 'my-valleys'}")
    seen = look_into(folder, images, labels, drop_unpaired=drop_unpaired, size=size)
    _print_seen(seen)
    ask = _Questions(interactive=sys.stdin.isatty() and not yes)
    usual = identifier(name or folder.resolve().name.lower()) or "mine"
    benchmark = usual if name else ask.text("name of the benchmark", "--id", usual)
    answers = _answers(
        seen, ask, identifier(benchmark) or usual, title, citation, domains_by, source, target, gap, gsd, unit, scale,
        bands, wavelengths, classes, void, nodata,
    )  # fmt: skip
    ask.check()
    path = out or folder / f"{answers.id}.yaml"
    if path.resolve().parent != folder.resolve():
        raise UserError(f"--out {path} is not in the folder of the data", expected=f"a file in {folder}")
    there = [one for one in (path, folder / TABLE) if one.exists()]
    if there and not overwrite:
        raise UserError(f"{there[0]} is there already", fix="add --overwrite, or name another file with --out")
    definition, rows = definition_of(seen, answers), rows_of(seen, answers)
    write_benchmark(definition, rows, path)
    say(f"written: {path} and {folder / TABLE} ({len(rows)} chips)")
    try:
        checked = check_benchmark(str(path))
    except UserError:
        # Blocks of ground may be too large for what there is of it.
        if definition["split"]["place"] != "grid":
            raise
        definition["split"]["block"] = min(seen.size) * answers.gsd
        write_benchmark(definition, rows, path)
        checked = check_benchmark(str(path))
    if checked.index is not None:
        block = fitting_split(checked.benchmark, checked.index).block
        if definition["split"]["place"] == "grid" and block != definition["split"]["block"]:
            definition["split"]["block"] = block
            write_benchmark(definition, rows, path)
            checked = check_benchmark(str(path))
    say("")
    _print(checked, str(path), None)


@dataclass
class _Questions:
    """Asks on a terminal; elsewhere takes what is proposed, and collects what nobody could propose."""

    interactive: bool
    lacking: list[str] = field(default_factory=list)

    def text(self, question: str, flag: str, proposed: str | None) -> str:
        """An answer; empty where there is none yet."""
        if self.interactive:
            return str(typer.prompt(f"{question} ({flag})", default=proposed)).strip()
        if proposed is None:
            self.lacking.append(f"{flag} ({question})")
            return ""
        say(f"{question}: {proposed}   ({flag})")
        return proposed

    def check(self) -> None:
        """Raises ``UserError`` if something is not known."""
        if self.lacking:
            raise UserError("the files do not say: " + "; ".join(self.lacking), fix="give these options")


def _answers(
    seen: Seen, ask: _Questions, benchmark: str, title: str | None, citation: str | None, domains_by: str | None,
    source: str | None, target: str | None, gap: str | None, gsd: float | None, unit: str | None, scale: float | None,
    bands: str | None, wavelengths: str | None, classes: str | None, void: str | None, nodata: str | None,
) -> Answers:  # fmt: skip
    from spectral_tl_bench.authoring import new_benchmark as making

    domains = _domains(making.ways_to_domains(seen), ask, domains_by)
    sides = _sides(domains, ask, source, target, gap, making.usual_source(domains))
    gap = gap or (making.usual_gap(domains) if len(domains.counts) == 1 or sides[0] == sides[1] else
                  ask.text("what separates them, region or season", "--gap", making.usual_gap(domains)))  # fmt: skip
    gap = "none" if sides[0] == sides[1] and gap != "none" else gap
    one_of("--gap", gap, _GAPS)
    metres = gsd or seen.gsd or _number(ask.text("side of a pixel in metres", "--gsd", None), "--gsd")
    named = _listed(bands) if bands else making.band_names(seen)
    waves, evenly = _wavelengths(seen, ask, wavelengths, making.known_wavelengths(seen))
    for flag, given in (("--bands", named), ("--wavelengths", waves)):
        if given and len(given) != len(seen.bands):
            raise UserError(
                f"{flag} names {len(given)}", expected=f"{len(seen.bands)}, as many as the images have bands"
            )
    usual_unit, usual_scale = making.usual_unit(seen)
    unit = unit or ask.text("what a pixel value means", "--unit", usual_unit)
    factor = scale if scale is not None else _number(
        ask.text("reflectance = value times", "--scale", f"{usual_scale:g}"), "--scale")  # fmt: skip
    usual = making.usual_void(seen)
    hollow = void if void is not None else ask.text(
        "label values without ground truth", "--void", ",".join(map(str, usual)) or "none")  # fmt: skip
    voids = () if hollow.strip().lower() in ("", "none") else tuple(_whole(part, "--void") for part in _listed(hollow))
    rest = [value for value in seen.values if value not in voids]
    names = _classes(classes, rest, ask)
    holes = nodata or (
        ask.text("pixels without a measurement: fill or void", "--nodata", "fill") if seen.holes else "refuse"
    )
    one_of("--nodata", holes, _NODATA)
    proposed = f"{benchmark}: {', '.join(sides[0])} to {', '.join(sides[1])}"
    return making.Answers(
        benchmark, title or ask.text("title", "--title", proposed),
        citation or ask.text("whom to cite", "--citation", "not published"), domains, *sides, gap, metres, unit, factor,
        named, waves, evenly, names, voids, holes,
    )  # fmt: skip


def _domains(ways: list[Domains], ask: _Questions, wanted: str | None) -> Domains:
    by_name = {way.how: way for way in reversed(ways)}
    if wanted is None and len(ways) == 1:
        return ways[0]
    if wanted is None:
        for way in ways:
            listed = ", ".join(f"{name} ({count})" for name, count in list(way.counts.items())[:8])
            say(f"  {way.how}: {way.words}: {listed}")
        wanted = ask.text("what tells the domains", "--domains-by", ways[0].how)
    if wanted not in by_name:
        raise UserError(f"the domains are not told by {wanted!r} here", expected=nearest(wanted, by_name))
    return by_name[wanted]


def _sides(
    domains: Domains, ask: _Questions, source: str | None, target: str | None, gap: str | None, usual: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    every = tuple(domains.counts)
    if len(every) == 1 or gap == "none":
        return every, every
    first = _known("--source", source or ask.text("train on", "--source", usual), every)
    others = tuple(name for name in every if name not in first)
    if not others:
        raise UserError(
            "--source names all domains, so none is left to test on", expected=f"fewer of {', '.join(every)}"
        )
    second = _known("--target", target, every) if target else others
    return first, second


def _known(flag: str, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    names = _listed(text)
    for name in names:
        if name not in known:
            raise UserError(f"{flag}: there is no domain {name!r}", expected=nearest(name, known))
    return names


def _wavelengths(
    seen: Seen, ask: _Questions, given: str | None, known: tuple[float, ...] | None
) -> tuple[tuple[float, ...], bool]:
    if given is None and known is not None:
        return known, False
    question = f"centre wavelengths of the {len(seen.bands)} bands in micrometres, as 0.49,0.56 or evenly as 0.4..1.0"
    text = given or ask.text(question, "--wavelengths", None)
    if ".." in text:
        first, last = (_number(part, "--wavelengths") for part in text.split("..", 1))
        step = (last - first) / max(1, len(seen.bands) - 1)
        return tuple(first + step * number for number in range(len(seen.bands))), True
    return tuple(_number(part, "--wavelengths") for part in _listed(text)), False


def _classes(given: str | None, values: list[int], ask: _Questions) -> dict[str, tuple[int, ...]]:
    if len(values) < 2:
        raise UserError(f"the labels hold {len(values)} values beside void", expected="two classes at least")
    usual = ",".join(f"{value}=class {value}" for value in values)
    names: dict[str, tuple[int, ...]] = {}
    for part in _listed(given or ask.text("names of the label values", "--classes", usual)):
        numbers, equals, name = part.partition("=")
        if not equals or not name.strip():
            raise UserError(f"--classes {part!r} is not of the form value=name", expected="1=forest,2=water")
        names[name.strip()] = (*names.get(name.strip(), ()), *(_whole(one, "--classes") for one in numbers.split("+")))
    named = [value for raw in names.values() for value in raw]
    missing = [value for value in values if value not in named]
    if missing:
        raise UserError(
            f"label values {', '.join(map(str, missing[:10]))} have no name", expected="each in --classes or --void"
        )
    return names


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _number(text: str, flag: str) -> float:
    if not text:
        return 1.0  # it is asked for at the end, with all that is lacking
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{flag} {text!r} is no number") from None


def _whole(text: str, flag: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{flag} {text!r} is no whole number") from None


def _print_seen(seen: Seen) -> None:
    systems = sorted(set(seen.crs))
    where = ", ".join(systems[:3]) + (f" and {len(systems) - 3} more" if len(systems) > 3 else "")
    bands = ", ".join(seen.bands) if all(seen.bands) else "without names"
    say(f"{len(seen.chips)} chips of {seen.size[0]}x{seen.size[1]} px; {len(seen.bands)} bands, {bands}; {seen.dtype}; "
        f"CRS: {where if where else 'none'}" + (f"; {seen.gsd:g} m" if seen.gsd else ""))  # fmt: skip
    total = sum(seen.values.values())
    say("label values: " + ", ".join(f"{value} ({100 * count / total:.1f} %)" for value, count in seen.values.items()))
    for note in seen.notes:
        say(f"note: {note}")


def _print(checked: CheckedBenchmark, given: str, data_root: Path | None) -> None:
    benchmark, index, split = checked.benchmark, checked.index, checked.split
    if index is None or split is None or checked.source is None:
        say(f"{benchmark.id}: the definition is right; its data were not looked at")
        return
    say(checked.source.line)
    say(f"unit: {index.unit}")
    rows = [("domain", "train", "validation", "target", "left out")]
    for domain, chips in index.frame.groupby("domain", sort=True):
        roles = split.role[chips.index].value_counts()
        counts = [str(int(roles.get(role, 0))) for role in ("train", "validation", "target", "buffer")]
        rows.append((str(domain), counts[0], counts[1], counts[2], counts[3]))
    print_rows(rows, right=(1, 2, 3, 4))
    for note in checked.notes:
        say(f"note: {note}")
    for warning in checked.warnings:
        say(f"warning: {warning}")
    root = f" --data-root {data_root}" if data_root is not None else ""
    say(f"{benchmark.id}: right" + (f", with {counted(len(checked.warnings), 'warning')}" if checked.warnings else ""))
    say(f"next: stbench run -m pixel-mlp -b {given}{root}")
