"""A cell on the devices of several nodes, each of which starts the same command."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from killing import left_by, record_in

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.runner.nodes import Place, placed
from spectral_tl_bench.runner.slurm.profile import Profile

TORCHRUN = {"GROUP_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "x"}
SRUN = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_JOB_ID": "123456", "MASTER_ADDR": "n1"}


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({"NODE_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1234"}, Place(0, "a", 1234)),
        (TORCHRUN, Place(1, "a", 29501)),
        (SRUN, Place(1, "n1", 23456)),
        ({**SRUN, "MASTER_PORT": "77"}, Place(1, "n1", 77)),
    ],
)
def test_a_node_knows_its_place(environ, place):
    assert placed(2, environ) == place


@pytest.mark.parametrize(
    ("environ", "word"),
    [
        ({}, "nothing says which node"),
        ({"NODE_RANK": "0", "MASTER_ADDR": "a"}, "MASTER_PORT"),
        ({"NODE_RANK": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "number 2"),
        ({**SRUN, "SLURM_NTASKS": "4"}, "4 processes were started"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(environ, word):
    with pytest.raises(UserError, match=word) as caught:
        placed(2, environ)
    assert "srun" in str(caught.value)


def test_profiles_follow_the_number_of_nodes():
    assert Profile().on_nodes(2).nodes == 2 and Profile(nodes=2).on_nodes(2).nodes == 2
    for profile in (Profile(nodes=3), Profile(tasks_per_node=4)):
        with pytest.raises(UserError, match="--num-nodes for 2"):
            profile.on_nodes(2)


@pytest.mark.slow
def test_two_nodes_do_what_two_devices_do(tree, tmp_path):
    command = [sys.executable, "-m", "spectral_tl_bench.cli.main", "run", "-m", "lora", "-b", "mts12-n2s",
               "--data-root", str(tree), "--allow-partial", "--steps", "6", "--batch-size", "3", "--backbone",
               "compact", "--window", "16", "--accelerator", "cpu"]  # fmt: skip
    nodes = [
        subprocess.Popen(
            [*command, "--num-nodes", "2", "--out", str(tmp_path / "two")],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "NODE_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "23973"},
        )
        for rank in (1, 0)
    ]
    outputs = [node.communicate(timeout=200)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0] and outputs[0] == ""
    subprocess.run([*command, "--devices", "2", "--out", str(tmp_path / "one")], check=True, capture_output=True)
    assert left_by(record_in(tmp_path / "two")) == left_by(record_in(tmp_path / "one"))
    assert not list((tmp_path / "two" / ".jobs").glob("*.key"))
