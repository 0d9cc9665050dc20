"""A small Slurm cluster on this machine: a controller and two nodes with a pretend GPU each.

It has its own ports, keys and folders. The daemons are children of the tests' process and end
with it, however it ends. All that is outside the folder are two links in /etc/slurm, since the
inner srun of Snakemake's Slurm executor reads nothing else; made only where no other Slurm is.
"""

import ctypes
import fcntl
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from pathlib import Path

SYSTEM = Path("/etc/slurm")
FOLDER = "madan-cluster"  # in the name of every cluster's folder
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
CONFIGURATION = """\
ClusterName=madan
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.sock,cred_expire=5
CredType=cred/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
MinJobAge=300
KillWait=10
SlurmctldTimeout=30
SlurmdTimeout=30
SlurmdParameters=config_overrides
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
NodeName=DEFAULT CPUs=8 RealMemory=16000 Gres=gpu:1
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]}
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]}
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=10
PartitionName=low Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=1
"""


def missing() -> str | None:
    """Why no such cluster can be started on this machine, or None."""
    absent = [name for name in PROGRAMS if not shutil.which(name)]
    if absent:
        return f"{', '.join(absent)} not installed: apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "only root can start a cluster of its own on this machine"
    for path in (SYSTEM / "slurm.conf", SYSTEM / "gres.conf"):
        if os.path.lexists(path) and not _left_behind(path):
            return f"this machine has a Slurm of its own: {path} exists"
    return None


def until(fact, seconds: float = 150):
    """Wait until `fact()` is true and give its value."""
    deadline = time.monotonic() + seconds
    while not (value := fact()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)
    return value


class Cluster:
    """The daemons, from their start to their end."""

    def __init__(self, root: Path):
        assert FOLDER in root.name
        self.root = root
        self.env = {**os.environ, "SLURM_CONF": str(root / "slurm.conf")}
        self.daemons: dict[str, subprocess.Popen] = {}
        # One such cluster at a time: a second run of these tests waits for the first.
        self.lock = (Path(tempfile.gettempdir()) / "madan-test-cluster.lock").open("w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        host, ports = socket.gethostname().split(".")[0], _free_ports(3)
        text = CONFIGURATION.format(root=root, host=host, ports=ports)
        (root / "slurm.conf").write_text(text)
        (root / "gres.conf").write_text(f"NodeName=n[1-2] Name=gpu File={root}/gpu0\n")
        (root / "state").mkdir()
        os.mknod(root / "gpu0", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        (root / "key").write_bytes(os.urandom(1024))
        (root / "key").chmod(0o400)

    def start(self) -> None:
        SYSTEM.mkdir(exist_ok=True)
        for name in ("slurm.conf", "gres.conf"):
            if _left_behind(SYSTEM / name):
                (SYSTEM / name).unlink()
            (SYSTEM / name).symlink_to(self.root / name)
        names = {"key-file": "key", "socket": "munge.sock", "pid-file": "munged.pid",
                 "log-file": "munged.log", "seed-file": "seed"}  # fmt: skip
        options = [f"--{option}={self.root / name}" for option, name in names.items()]
        self.daemon("munged", "munged", "--foreground", "--force", *options)
        until((self.root / "munge.sock").exists)
        self.start_controller()
        for node in ("n1", "n2"):
            self.start_node(node)
        self.until_idle()

    def daemon(self, name: str, *words: str) -> None:
        # 1 is PR_SET_PDEATHSIG: the daemon gets TERM when this process is no more.
        self.daemons[name] = subprocess.Popen(
            words, env=self.env, stdout=subprocess.DEVNULL,
            preexec_fn=lambda: ctypes.CDLL(None).prctl(1, signal.SIGTERM),
        )  # fmt: skip

    def start_controller(self) -> None:
        self.daemon("controller", "slurmctld", "-D", "-i")

    def start_node(self, node: str) -> None:
        self.daemon(node, "slurmd", "-D", "-N", node)

    def lose(self, node: str, group: int) -> None:
        """End a node, and the job of that process group, as a power cut does."""
        self.stop(node)
        shepherd = Path(f"/proc/{group}/stat").read_text().rpartition(")")[2].split()[1]
        os.kill(int(shepherd), signal.SIGKILL)
        os.killpg(group, signal.SIGKILL)
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=lost")

    def stop(self, name: str) -> None:
        daemon = self.daemons.pop(name)
        daemon.terminate()
        daemon.wait()

    def until_idle(self) -> None:
        nodes = ("sinfo", "-hN", "-p", "main", "-o", "%T")
        until(lambda: self.run(*nodes, check=False).split() == ["idle", "idle"])

    def cancel_all(self) -> None:
        self.run("scancel", "--user=root")
        until(lambda: not self.run("squeue", "-h", "-o", "%A").strip())

    def close(self) -> None:
        for name in reversed(list(self.daemons)):
            self.stop(name)
        for name in ("slurm.conf", "gres.conf"):
            (SYSTEM / name).unlink()
        self.lock.close()

    def run(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(
            words, env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert not check or done.returncode == 0, done.stdout
        return done.stdout

    def state(self, job: str) -> str:
        return self.run("squeue", "-h", "--states=all", "-o", "%T", "-j", job).strip()


def _left_behind(path: Path) -> bool:
    return path.is_symlink() and FOLDER in str(path.readlink())


def _free_ports(count: int) -> list[int]:
    """Ports that nothing listens on, below those that outgoing connections take."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as each:
            port = random.randrange(20000, 30000)
            if port not in found and each.connect_ex(("127.0.0.1", port)):
                found.append(port)
    return found
