"""A real SLURM for the slow tests of this folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, missing_programs


@pytest.fixture(scope="session")
def running_cluster() -> Iterator[Cluster]:
    """A cluster that takes jobs, for all tests."""
    if missing := missing_programs():
        pytest.skip(f"no SLURM here: {', '.join(missing)} not installed (slurmctld, slurmd, slurm-client, munge)")
    base = Path(tempfile.mkdtemp(prefix="stb-", dir="/tmp"))
    cluster = Cluster(base)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def cluster(running_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster with an empty queue."""
    monkeypatch.setenv("SLURM_CONF", running_cluster.environment["SLURM_CONF"])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield running_cluster
    running_cluster.clear()
