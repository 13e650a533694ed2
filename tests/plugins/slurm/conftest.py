"""A SLURM cluster of one node, this machine, for the time of the tests: its own configuration, ports and munge key."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
CONFIGURATION = """\
ClusterName=influence
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=1000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="session")
def slurm(tmp_path_factory) -> Iterator[Path]:
    """Start munged, slurmctld and slurmd; yield the folder of the cluster. Skips, with the reason, where it cannot."""
    patch = pytest.MonkeyPatch()
    patch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"SLURM is not installed: no {', '.join(missing)} (Debian: slurm-wlm, munge)")
    if os.geteuid() != 0:
        pytest.skip("slurmd starts jobs only as root")
    folder = Path(tmp_path_factory.mktemp("slurm"))
    for part in ("state", "spool"):
        (folder / part).mkdir()
    facts = {"host": socket.gethostname().split(".")[0], "folder": folder, "control": free_port(), "node": free_port()}
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**facts))
    patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_")) and name != "SLURM_CONF"]:
        patch.delenv(name)
    started: list[subprocess.Popen] = []
    try:
        start_daemons(folder, started)
        yield folder
    finally:
        for process in reversed(started):
            process.terminate()
        for process in reversed(started):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        patch.undo()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_daemons(folder: Path, started: list[subprocess.Popen]) -> None:
    """Start the three, in the foreground so that they end with their process; wait for the node."""
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    files = {"socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log", "seed-file": "munge.seed"}
    munged = ["munged", "--foreground", "--force", f"--key-file={key}"]
    munged += [f"--{option}={folder / name}" for option, name in files.items()]
    for command in (munged, ["slurmctld", "-D"], ["slurmd", "-D"]):
        with (folder / f"{command[0]}.out").open("wb") as output:
            started.append(subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True))
        if command is munged:
            wait_for(folder, started, (folder / "munge.socket").exists)
    ask = ["scontrol", "--oneliner", "show", "node"]
    wait_for(
        folder, started, lambda: "State=IDLE" in subprocess.run(ask, capture_output=True, text=True, check=False).stdout
    )


def wait_for(folder: Path, started: list[subprocess.Popen], ready) -> None:
    """Wait until ``ready``; skip with what the daemons said if one ends, or nothing comes of it."""
    until = time.monotonic() + 60
    while not ready():
        ended = [process.args[0] for process in started if process.poll() is not None]
        if ended or time.monotonic() > until:
            names = ended or ["slurmctld", "slurmd"]
            texts = [
                path.read_text(errors="replace")
                for name in names
                for path in folder.glob(f"{name}.*")
                if path.suffix in (".out", ".log")
            ]
            told = " / ".join(" / ".join(text.strip().splitlines()[-3:]) for text in texts if text.strip())
            pytest.skip(f"SLURM cannot be started here: {', '.join(ended) or 'the node does not answer'}: {told}")
        time.sleep(0.2)
