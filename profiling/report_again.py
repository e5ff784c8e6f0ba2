"""How long the second of two reports takes, after one new record among many: what is kept of unchanged records.

    python profiling/report_again.py --records 10000 --folder /tmp/records

Each report is a command of its own, from start to end, with tables and site. The cache lies below the folder.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from report_scale import _plan, _record, write_all

from spectral_tl_bench.leaderboard.kept import _SETTLED
from spectral_tl_bench.results.store import RECORD_FILE, write_record


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--records", type=int, default=10_000)
    arguments.add_argument("--folder", type=Path, required=True, help="where records, cache and boards go")
    given = arguments.parse_args()
    records, boards = given.folder / "records", given.folder / "boards"
    if sum(1 for _ in records.rglob(RECORD_FILE)) < given.records:
        write_all(records, given.records)
        time.sleep(_SETTLED)
    environment = {**os.environ, "STBENCH_CACHE": str(given.folder / "cache"), "OMP_NUM_THREADS": "1"}
    program = str(Path(sys.executable).with_name("stbench"))
    command = [program, "report", "--records", str(records), "--out", str(boards)]
    for name in ("first", "unchanged", "one new"):
        if name == "one new":
            there = sum(1 for _ in records.rglob(RECORD_FILE))
            write_record(records, *_record(*next(itertools.islice(_plan(), there, None))))
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"{name:10s} {time.perf_counter() - started:7.1f} s wall {cpu:7.1f} s CPU", flush=True)


if __name__ == "__main__":
    main()
