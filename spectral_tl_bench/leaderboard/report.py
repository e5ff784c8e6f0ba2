"""Boards as files: one Markdown and one CSV per track, a pure function of the records."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from spectral_tl_bench.evaluation.metrics import MIOU_RULE
from spectral_tl_bench.files import digest, write_text
from spectral_tl_bench.leaderboard.board import FLOOR, Board, drops, floors, make_boards, mean, spread
from spectral_tl_bench.leaderboard.cells import Cell, RowKey, all_options
from spectral_tl_bench.leaderboard.schema import Record
from spectral_tl_bench.leaderboard.table import long_table

_TITLES = {
    "real": "Leaderboard",
    "partial": "Board of partial data",
    "sample": "Board of synthetic sample scenes",
    "own": "Board of own benchmarks",
}
_WARNINGS = {
    "partial": "**Only a part of the data was used. These numbers are not results on the complete benchmarks.**",
    "sample": "**Synthetic scenes: this shows that the suite runs. It is not a result on real data.**",
    "own": "**Benchmarks that users brought themselves; their data are not checked by this suite.**",
}
_SEASON_NOTE = (
    "DFC2020's seasonal gap is also a gap between cities: every season was taken over cities of its own, so that "
    "the two effects cannot be told apart."
)
_NOTHING = "–"


def write_report(records: Iterable[Record], out: Path) -> list[Path]:
    """Write the boards of all tracks that have records.

    Args:
        records: Stored records, in any order; the same records give the same bytes.
        out: Folder. The real track goes to ``board.md`` and ``board.csv``, any other to ``board-<track>.*``.

    Returns:
        The files that were written. Everything is computed before the first is, and each is whole or not there.

    Raises:
        RecordError: If evidence is missing or changed, or a score contradicts it; nothing is written then.
    """
    texts: dict[Path, str] = {}
    for track, board in make_boards(records).items():
        stem = "board" if track == "real" else f"board-{track}"
        texts[Path(out) / f"{stem}.md"] = markdown(board)
        texts[Path(out) / f"{stem}.csv"] = long_table(board).to_csv(index=False, lineterminator="\n")
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)


def markdown(board: Board) -> str:
    """One board as Markdown, scores in per cent."""
    parts = [f"# {_TITLES[board.track]}"]
    if board.track in _WARNINGS:
        parts.append(_WARNINGS[board.track])
    parts += [
        f"Data: {escape(text)}"
        for text in sorted({cell.record.statement for cell in board.cells if cell.record.statement})
    ]
    parts += [
        MIOU_RULE,
        "Numbers are mIoU in per cent of the checkpoint that was selected on source validation: the mean over seeds ± "
        "their sample standard deviation where there are several. The mean goes over all benchmarks with a gap that "
        "occur on this board; a row that lacks one of them, or one seed of it, is incomplete and has no rank.",
        _main_table(board),
    ]
    notes = list(board.notes)
    if any(cell.record.dataset.upper().startswith("DFC2020") for cell in board.cells):
        notes.append(_SEASON_NOTE)
    notes += sorted(
        {
            f"{c.record.benchmark}: {note}"
            for c in board.cells
            if c.record.data is not None
            for note in c.record.data.notes
        }
    )
    if notes:
        parts += ["## Notes", "\n".join(f"- {escape(note)}" for note in notes)]
    parts += ["## Cells", _CELL_LEGEND, _cell_table(board), "## Majority class", _FLOOR_LEGEND, _floor_table(board)]
    failed = [cell for cell in board.cells if not cell.completed]
    if failed:
        parts += ["## Failed cells", _failed_table(failed)]
    return "\n\n".join([*parts, "## Configurations", _configurations(board)]) + "\n"


def escape(text: object) -> str:
    """Text of a record as one line of Markdown, of which nothing is markup and nothing ends a table cell."""
    line = " ".join(str(text).split())
    for mark, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        line = line.replace(mark, entity)
    for mark in "\\`*[]|":
        line = line.replace(mark, f"\\{mark}")
    return line


_CELL_LEGEND = (
    "Selected: the best checkpoint on source validation. Last: the end of training. Oracle: the best on the target, "
    "which nobody can select without target labels. Worst domain: the lowest mIoU of a target domain. Release: what "
    "the metric of the authors' release says on the same predictions, and by how much that is above the mIoU here; it "
    "leaves out classes without ground truth together with the pixels predicted as such. Drop: mIoU of the in-domain "
    "reference minus mIoU on the target, over the seeds that both have. Seconds: mean of a run."
)
_FLOOR_LEGEND = (
    "What a predictor reaches on the same pixels that always says the most frequent class of the source's training "
    "labels."
)


def _main_table(board: Board) -> str:
    names = (*board.benchmarks, *board.references)
    reference = [f"{name} (in-domain)" for name in board.references]
    head = ["Rank", "Method", "Backbone", "Configuration", "Seeds", *board.benchmarks, "Mean", *reference]
    lines = []
    for row in board.rows.to_dict("records"):
        floor = row["method"] == FLOOR
        scores = {name: _state_cell(row, str(name)) for name in names}
        average = _percent(row["mean"], row["mean_std"]) if row["complete"] else "incomplete"
        lines.append([
            _NOTHING if math.isnan(_number(row["rank"])) else str(int(row["rank"])),
            row["method"],
            row["backbone"] or _NOTHING,
            _NOTHING if floor else _row_name(row),
            row["seeds"] or _NOTHING,
            *[scores[name] for name in board.benchmarks],
            average,
            *[scores[name] for name in board.references],
            _range(row["trainable_min"], row["trainable_max"]),
            _seconds(row["seconds"]),
        ])  # fmt: skip
    return _table([*head, "Trainable parameters", "Seconds"], lines)


def _cell_table(board: Board) -> str:
    loss = drops(board.cells)
    head = ["Benchmark", "Method", "Backbone", "Configuration", "Seeds", "Selected", "Last", "Oracle", "Worst domain",
            "OA", "Release", "Inflation", "Drop", "Trainable parameters", "Seconds"]  # fmt: skip
    lines = []
    groups = board.groups()
    for benchmark in (*board.benchmarks, *board.references):
        for key, group in groups.items():
            cells = list(group.get(benchmark, {}).values())
            done = [cell for cell in cells if cell.completed]
            about = [benchmark, key[0], key[1], _name(key)]
            seeds = ", ".join(str(cell.record.seed) + ("" if cell.completed else " (failed)") for cell in cells)
            if not done:
                state = "failed" if cells else _NOTHING
                lines.append([*about, seeds or _NOTHING, state, *[_NOTHING] * 9])
                continue
            released = [
                (cell.blocks["selected"].release_miou, cell.blocks["selected"].miou)
                for cell in done
                if cell.blocks["selected"].release_miou is not None
            ]
            trainable = [cell.record.parameters.trainable for cell in done if cell.record.parameters is not None]
            lines.append([
                *about,
                seeds,
                *[_over_seeds(cell.blocks[name].miou for cell in done if name in cell.blocks)
                  for name in ("selected", "last", "oracle")],
                _worst(done),
                _over_seeds(cell.blocks["selected"].oa for cell in done),
                _over_seeds(said for said, _ in released if said is not None),
                _signed(mean(said - ours for said, ours in released if said is not None)),
                _signed(mean(loss[c.record.fingerprint] for c in done if c.record.fingerprint in loss)),
                _range(min(trainable, default=None), max(trainable, default=None)),
                _seconds(mean(cell.record.seconds.total for cell in done if cell.record.seconds is not None)),
            ])  # fmt: skip
    return _table(head, lines)


def _floor_table(board: Board) -> str:
    classes = {cell.record.benchmark: cell.record.classes for cell in board.cells if cell.completed}
    head = ["Benchmark", "Seeds", "Class", "mIoU", "Worst domain", "OA"]
    lines = []
    for floor in floors(board.cells):
        scores = floor.scores
        worst = f"{scores.worst_domain} {_percent(scores.per_domain[scores.worst_domain])}"
        name = classes[floor.benchmark][floor.majority_class]
        lines.append([
            floor.benchmark, ", ".join(map(str, floor.seeds)), name, _percent(scores.miou), worst, _percent(scores.oa)
        ])  # fmt: skip
    return _table(head, lines)


def _failed_table(failed: Sequence[Cell]) -> str:
    rows = [
        [cell.record.benchmark, cell.record.method, cell.record.seed, cell.record.error.kind, cell.record.error.message]
        for cell in failed
        if cell.record.error is not None
    ]
    rows = [[*row[:4], f"{str(row[4])[:200]}{'…' if len(str(row[4])) > 200 else ''}"] for row in rows]
    return _table(["Benchmark", "Method", "Seed", "Kind", "Message"], sorted(rows, key=str))


def _configurations(board: Board) -> str:
    rows = []
    for key, group in board.groups().items():
        record = next(cell.record for by_seed in group.values() for cell in by_seed.values())
        backbone = _json(record.backbone.model_dump(mode="json"))
        rows.append([_name(key), key[0], _json(all_options(record)), backbone, record.protocol, _json(record.settings)])
    return _table(["Configuration", "Method", "Options", "Backbone", "Protocol", "Settings"], rows)


def _name(key: RowKey) -> str:
    """A short name for one row's method, options, backbone, protocol and settings."""
    return digest(*key)[:8]


def _row_name(row: dict[Any, Any]) -> str:
    names = ("method", "backbone", "options_digest", "backbone_digest", "protocol", "settings_digest")
    return _name(tuple(row[name] for name in names))


def _state_cell(row: dict[Any, Any], name: str) -> str:
    state = row[f"{name}:state"]
    if state == "failed":
        return "failed"
    if state == "missing":
        return _NOTHING
    text = _percent(row[name], row[f"{name}:std"])
    return text if state == "completed" else f"{text} (incomplete)"


def _worst(cells: Sequence[Cell]) -> str:
    """The domain with the lowest mean over seeds."""
    values: dict[str, list[float]] = {}
    for cell in cells:
        for domain, value in cell.blocks["selected"].per_domain.items():
            if value is not None:
                values.setdefault(domain, []).append(value)
    domain = min(values, key=lambda name: (mean(values[name]), name))
    return f"{domain} {_percent(mean(values[domain]))}"


def _over_seeds(values: Iterable[float]) -> str:
    found = list(values)
    return _percent(mean(found), spread(found))


def _percent(value: object, std: object = None) -> str:
    number, deviation = _number(value), _number(std)
    if math.isnan(number):
        return _NOTHING
    return f"{100 * number:.2f}" + ("" if math.isnan(deviation) else f" ± {100 * deviation:.2f}")


def _signed(value: float) -> str:
    if math.isnan(value):
        return _NOTHING
    text = f"{100 * value:+.2f}"
    return "0.00" if float(text) == 0 else text


def _range(low: object, high: object) -> str:
    first, last = _number(low), _number(high)
    if math.isnan(first):
        return _NOTHING
    return f"{first:,.0f}" if first == last else f"{first:,.0f} to {last:,.0f}"


def _seconds(value: object) -> str:
    number = _number(value)
    return _NOTHING if math.isnan(number) else f"{number:.1f}"


def _number(value: object) -> float:
    """A float; NaN for anything that is not a number, pandas' NA among them."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float("nan")


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return "None."
    lines = [[escape(value) for value in row] for row in (head, *rows)]
    lines.insert(1, ["---"] * len(head))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
