"""Packing: cut off and gone on with, full disks, several processes, damage that is found, and the verb."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from packs import assert_same_samples, holes_in_a_band, make_pack, quiet
from tiny import run_main

from spectral_tl_bench.data import packing
from spectral_tl_bench.data.index import build_index
from spectral_tl_bench.data.packed import find_packed, pack_folder, read_pack, reading_key, shards_in
from spectral_tl_bench.data.packing import compare, pack
from spectral_tl_bench.errors import DataError, StorageError
from spectral_tl_bench.storage.signs import Claim

KILLED = """
import os, signal, sys, time
from pathlib import Path
from spectral_tl_bench.benchmarks import read_benchmark
from spectral_tl_bench.data import packing
from spectral_tl_bench.data.index import build_index

packing.SHARD_BYTES = 4000
root, out, when = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
write, count = packing._write_chip, [0]

def dies(stream, *rest):
    count[0] += 1
    found = write(stream, *rest)
    stream.flush()
    if count[0] == when:
        os.kill(os.getpid(), signal.SIGKILL)
    return found

packing._write_chip = dies
benchmark = read_benchmark(root / "mine.yaml")
packing.pack(benchmark, build_index(benchmark, root, packed="off"), out, 1, print)
"""


@pytest.fixture
def plain(own):
    """A user's data, and the index of its chips without any pack."""
    holes_in_a_band(own)
    benchmark = own.benchmark(nodata="fill")
    return own, benchmark, build_index(benchmark, own.root, packed="off")


def whole(out: Path, benchmark) -> int:
    return len(read_pack(pack_folder(benchmark, out), reading_key(benchmark))[0])


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# ------------------------------------------------------------------------------------------------------------- cut off


@pytest.mark.slow
@pytest.mark.parametrize("when", [1, 5, 10])
def test_killed_and_gone_on_with(plain, tmp_path, monkeypatch, when):
    own, benchmark, index = plain
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(own.root), str(out), str(when)]
    ended = subprocess.run(
        command, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, timeout=300
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    before = whole(out, benchmark)
    assert before < 10 and (before > 0 or when == 1)
    assert len(find_packed(benchmark, index.frame, out).places) == before, "nothing half-written looks whole"
    lines: list[str] = []
    done = pack(benchmark, index, out, 2, lines.append)
    assert (done.before, done.packed) == (before, 10 - before)
    assert f"{10 - before} of 10 chips are to be packed" in lines[0]
    assert not list(out.rglob("*.part")), "what was left is gone"
    assert assert_same_samples(benchmark, index, build_index(benchmark, own.root, packed=out)) == 10


def test_stopped_in_the_middle_and_gone_on_with(plain, tmp_path, monkeypatch):
    own, benchmark, index = plain
    monkeypatch.setattr(packing, "SHARD_BYTES", 4000)
    write, count = packing._write_chip, [0]

    def stops(*arguments):
        count[0] += 1
        if count[0] == 6:
            raise KeyboardInterrupt
        return write(*arguments)

    monkeypatch.setattr(packing, "_write_chip", stops)
    with pytest.raises(KeyboardInterrupt):
        pack(benchmark, index, tmp_path / "out", 1, quiet)
    before = whole(tmp_path / "out", benchmark)
    assert 0 < before < 10 and len(shards_in(pack_folder(benchmark, tmp_path / "out"))) == before // 2
    assert len(files_below(tmp_path)) - len(files_below(own.root)) == before // 2, "shards, and nothing else"
    assert pack(benchmark, index, tmp_path / "out", 1, quiet).before == before


def test_nothing_is_done_twice(plain, tmp_path):
    _, benchmark, index = plain
    assert pack(benchmark, index, tmp_path, 2, quiet).packed == 10
    lines: list[str] = []
    assert pack(benchmark, index, tmp_path, 2, lines.append).packed == 0 and lines == []


# ------------------------------------------------------------------------------------------------------------- no room


def test_a_disk_that_becomes_full_is_said_and_what_was_packed_stays(plain, tmp_path, monkeypatch):
    _, benchmark, index = plain
    monkeypatch.setattr(packing, "SHARD_BYTES", 4000)
    write, count = packing._write_chip, [0]

    def full(*arguments):
        count[0] += 1
        if count[0] > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(*arguments)

    monkeypatch.setattr(packing, "_write_chip", full)
    with pytest.raises(StorageError, match="No space left") as caught:
        pack(benchmark, index, tmp_path / "out", 1, quiet)
    assert "goes on from here" in str(caught.value)
    assert whole(tmp_path / "out", benchmark) == 4
    assert len(files_below(tmp_path / "out")) == 2
    monkeypatch.setattr(packing, "_write_chip", write)
    assert pack(benchmark, index, tmp_path / "out", 1, quiet).packed == 6


def test_room_is_looked_at_first(plain, tmp_path, monkeypatch):
    _, benchmark, index = plain
    small = type("Usage", (), {"free": 1000, "total": 2000, "used": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: small)
    for where, said in ((tmp_path / "out", "room"), (None, f"no room for the packed chips of {benchmark.id} ")):
        with pytest.raises(StorageError, match=said):
            pack(benchmark, index, where, 1, quiet)
    assert not (tmp_path / "out").exists()


def test_a_limit_of_the_cache_counts(plain, tmp_path, monkeypatch):
    _, benchmark, index = plain
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STBENCH_CACHE_LIMIT", "1KB")
    with pytest.raises(StorageError, match="STBENCH_CACHE_LIMIT"):
        pack(benchmark, index, None, 1, quiet)
    assert pack(benchmark, index, tmp_path / "out", 1, quiet).packed == 10, "which is not where it goes to"


def test_where_nothing_can_be_written(plain, tmp_path, monkeypatch):
    own, benchmark, index = plain
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="is a file, not a folder"):
        pack(benchmark, index, tmp_path / "file", 1, quiet)
    assert run_main(monkeypatch, ["data", "pack", own.yaml, "--out", tmp_path / "file"]) == 2


def test_a_pack_that_cannot_be_written_is_read(plain, tmp_path):
    own, benchmark, index = plain
    make_pack(benchmark, own.root, tmp_path / "out")
    folder = pack_folder(benchmark, tmp_path / "out")
    for path in (*folder.iterdir(), folder, tmp_path / "out"):
        path.chmod(0o555)
    try:
        found = build_index(benchmark, own.root, packed=tmp_path / "out")
        assert assert_same_samples(benchmark, index, found) == 10
        assert pack(benchmark, index, tmp_path / "out", 1, quiet).packed == 0
    finally:
        for path in (tmp_path / "out", folder):
            path.chmod(0o755)


# --------------------------------------------------------------------------------------------------- several at a time


def test_whoever_comes_second_waits_and_finds_it_done(plain, tmp_path):
    _, benchmark, index = plain
    folder = pack_folder(benchmark, tmp_path)
    claim, lines, done = Claim(folder), [], []
    assert claim.take()
    second = threading.Thread(target=lambda: done.append(pack(benchmark, index, tmp_path, 1, lines.append)))
    second.start()
    while len(lines) < 2:
        second.join(0.05)
        assert second.is_alive()
    assert "another process is packing" in lines[1] and whole(tmp_path, benchmark) == 0
    packing._write(folder, reading_key(benchmark), packing._shards(packing._chips(benchmark, index)), 1, quiet)
    claim.release()
    second.join(30)
    assert done[0].packed == 0 and whole(tmp_path, benchmark) == 10


def test_two_that_pack_at_the_same_time_all_the_same(plain, tmp_path, monkeypatch):
    own, benchmark, index = plain
    monkeypatch.setattr(Claim, "take", lambda self: True)
    threads = [threading.Thread(target=pack, args=(benchmark, index, tmp_path, 2, quiet)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(shards_in(pack_folder(benchmark, tmp_path))) == 2
    assert assert_same_samples(benchmark, index, build_index(benchmark, own.root, packed=tmp_path)) == 10


# ---------------------------------------------------------------------------------------------------- damage is found


def test_a_flipped_bit_is_found_and_its_shard_removed(plain, tmp_path, monkeypatch, capsys):
    own, benchmark, index = plain
    first, second = make_pack(benchmark, own.root, tmp_path)
    assert compare(benchmark, index, tmp_path, 2, quiet) == []
    for part in ("pixels", "classes", "holes"):
        places = find_packed(benchmark, index.frame, tmp_path).places
        chip, place = next(
            (chip, one) for chip, one in places.items() if one.shard.path == str(first) and one.holes >= 0
        )
        content = bytearray(first.read_bytes())
        content[getattr(place, part) + 60] ^= 4
        first.write_bytes(content)
        (line,) = compare(benchmark, index, tmp_path, 2, quiet)
        assert f"chip {chip} differs from its files; removed" in line and not first.exists() and second.exists()
        make_pack(benchmark, own.root, tmp_path)
    first.write_bytes(first.read_bytes()[:-5])
    command = ["data", "pack", own.yaml, f"--data-root={own.root}", f"--out={tmp_path}", "--verify"]
    assert run_main(monkeypatch, command) == 0, "what is cut short is packed again first"
    content = bytearray(second.read_bytes())
    content[-1] ^= 1
    second.write_bytes(content)
    assert run_main(monkeypatch, command) == 2
    assert "damaged: " in capsys.readouterr().out
    assert run_main(monkeypatch, command) == 0
    assert "packed chips are those of the files, bit for bit" in capsys.readouterr().out


def test_a_damaged_shard_that_cannot_be_removed(plain, tmp_path, monkeypatch, capsys):
    own, benchmark, _ = plain
    first, _ = make_pack(benchmark, own.root, tmp_path)
    content = bytearray(first.read_bytes())
    content[-1] ^= 1
    first.write_bytes(content)

    def read_only(path, **_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "unlink", read_only)
    assert (
        run_main(monkeypatch, ["data", "pack", own.yaml, "--data-root", own.root, "--out", tmp_path, "--verify"]) == 2
    )
    out = capsys.readouterr().out
    assert "; not removed" in out and "--packed off" in out
    assert "the same command again" not in out and "runs read them" not in out


def test_a_disk_that_gives_back_something_else_is_noticed_while_packing(plain, tmp_path, monkeypatch):
    _, benchmark, index = plain
    check = packing._check

    def worse(path, *rest):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        check(path, *rest)

    monkeypatch.setattr(packing, "_check", worse)
    with pytest.raises(StorageError, match="is read back as another one"):
        pack(benchmark, index, tmp_path / "out", 1, quiet)
    assert whole(tmp_path / "out", benchmark) == 0


def test_a_file_that_changes_while_it_is_packed_is_not_packed(plain, tmp_path):
    own, benchmark, index = plain
    own.write_raster(own.image("e1_0"), own.pixels("e1_0") + np.uint16(1), "e1_0")
    with pytest.raises(DataError, match="a file has changed since it was indexed"):
        pack(benchmark, index, tmp_path / "out", 1, quiet)
    assert whole(tmp_path / "out", benchmark) in (0, 4)


# ------------------------------------------------------------------------------------------------------------ the verb


def test_the_verb_says_what_it_does(own, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    assert run_main(monkeypatch, ["data", "pack", "--benchmark", own.yaml, f"--data-root={own.root}"]) == 0
    out = capsys.readouterr().out
    assert "10 of 10 chips are to be packed, 17.5 KiB, into" in out
    assert "mine: 10 chips packed (17.5 KiB), 0 were before, in" in out
    assert run_main(monkeypatch, ["cache"]) == 0
    assert "packs " in capsys.readouterr().out
    assert run_main(monkeypatch, ["data", "check", own.yaml, f"--data-root={own.root}"]) == 0
    assert "reads packed chips in" in capsys.readouterr().out
    assert run_main(monkeypatch, ["data", "pack"]) == 2
    assert run_main(monkeypatch, ["run", "-b", own.yaml, "-m", "majority", "--packed", tmp_path / "no",
                                  f"--out={tmp_path / 'runs'}", f"--data-root={own.root}"]) == 2  # fmt: skip
    assert "no folder of packed chips is there" in capsys.readouterr().err


def test_the_cache_clears_packs_that_nobody_uses(own, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    pack(own.benchmark(), build_index(own.benchmark(), own.root, packed="off"), None, 1, quiet)
    folder = pack_folder(own.benchmark(), None)
    assert shards_in(folder)
    assert run_main(monkeypatch, ["cache", "clear", "packs", "--yes"]) == 0
    assert not folder.exists() and "removed 1 entries" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_gives_the_same_record_and_says_that_it_reads_packed_chips(own, tmp_path, monkeypatch, capsys):
    make_pack(own.benchmark(), own.root, tmp_path / "packs")
    found = []
    for packed in ("off", tmp_path / "packs"):
        out = tmp_path / f"runs-{len(found)}"
        command = ["run", "-m", "pixel-mlp", "-b", own.yaml, f"--data-root={own.root}", f"--out={out}", "--steps=4",
                   "--window=8", "--batch-size=2", "--validations=1", "--accelerator=cpu", "--jobs=1",
                   f"--packed={packed}"]  # fmt: skip
        assert run_main(monkeypatch, command) == 0
        assert ("reads packed chips in" in capsys.readouterr().out) == (packed != "off")
        (evidence,) = out.rglob("evidence-*")
        (weights,) = out.rglob("selected.safetensors")
        record = next(path for path in out.rglob("record.json"))
        found.append((record.parent.name, weights.read_bytes(), evidence.name))
    assert found[0] == found[1], "the cell's fingerprint, weights to the last bit, and evidence"
