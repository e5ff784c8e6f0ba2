"""A SLURM of one machine, for tests: controller, node and munge on the loopback, everything in one folder."""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "munge", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "srun")
GRACE = 4
"""Seconds that a job of the partition ``low`` has when one of ``high`` wants its place."""

CONFIGURATION = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={base}/munge.socket,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd.pid
SlurmctldLogFile={base}/slurmctld.log
SlurmdLogFile={base}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
JobRequeue=1
MaxArraySize=101
KillWait=30
OverTimeLimit=0
NodeName={host} NodeAddr=127.0.0.1 Port={node} CPUs=2 CoresPerSocket=2 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime={grace} State=UP
PartitionName=high Nodes={host} MaxTime=INFINITE PriorityTier=10 State=UP
"""


def missing_programs() -> list[str]:
    """What of SLURM is not installed."""
    return [name for name in PROGRAMS if _program(name) is None]


class Cluster:
    """A SLURM that runs from ``start`` to ``stop``.

    Args:
        base: An empty folder; its path must be short, since there is a socket in it.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.environment = {**os.environ, "SLURM_CONF": str(base / "slurm.conf")}

    def start(self) -> None:
        """Start the daemons, and wait until the node takes jobs."""
        self.base.chmod(0o755)
        for name in ("state", "spool"):
            (self.base / name).mkdir()
        key = self.base / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(1024))
        controller, node = _free_ports(2)
        (self.base / "slurm.conf").write_text(
            CONFIGURATION.format(
                base=self.base, host=socket.gethostname().split(".")[0], user=getpass.getuser(), grace=GRACE,
                controller=controller, node=node,
            )
        )  # fmt: skip
        self._daemon(
            "munged", f"--key-file={key}", f"--socket={self.base}/munge.socket", f"--pid-file={self.base}/munged.pid",
            f"--log-file={self.base}/munged.log", f"--seed-file={self.base}/munged.seed", "--force",
        )  # fmt: skip
        self._daemon("slurmctld", "-f", str(self.base / "slurm.conf"), "-i")
        self.wait("the controller answers", lambda: "UP" in self.ask("scontrol", "ping"))
        self._daemon("slurmd", "-f", str(self.base / "slurm.conf"))
        self.wait("the node is idle", lambda: self.ask("sinfo", "-h", "-N", "-o", "%T").startswith("idle"))

    def stop(self) -> None:
        """End jobs and daemons, by their process ids."""
        with contextlib.suppress(TimeoutError):
            self.clear()
        for name in ("slurmd", "slurmctld", "munged"):
            _end(self.base / f"{name}.pid")

    def clear(self) -> None:
        """End all jobs."""
        self.ask("scancel", f"--user={getpass.getuser()}")
        self.wait("jobs have ended", lambda: not self.ask("squeue", "-h"), 60.0)

    def ask(self, *command: str, check: bool = False) -> str:
        """What a command of SLURM prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise RuntimeError(f"{command}: {done.stderr}")
        return done.stdout.strip()

    def wait(self, what: str, done: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait until something is so.

        Raises:
            TimeoutError: If it is not so in time; with the state of the queue and the ends of the logs.
        """
        last = time.monotonic() + seconds
        while not done():
            if time.monotonic() > last:
                logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in self.base.glob("*.log"))
                raise TimeoutError(f"{seconds:.0f} s, and not: {what}\n{self.ask('squeue', '-t', 'all')}\n{logs}")
            time.sleep(0.1)

    def _daemon(self, name: str, *arguments: str) -> None:
        """Start a daemon, which goes to the background by itself."""
        with (self.base / f"{name}.out").open("w") as output:
            subprocess.run(
                [_program(name) or name, *arguments], env=self.environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, timeout=30, check=True,
            )  # fmt: skip


def _program(name: str) -> str | None:
    """Where a program is; daemons are often off the search path of ordinary users."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _end(pid_file: Path) -> None:
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
        for _ in range(50):
            time.sleep(0.1)
            os.kill(pid, 0)
        os.kill(pid, signal.SIGKILL)
    except (OSError, ValueError):
        return
