"""Commands that start at once: forked from a server that has the libraries imported, not madan.

`bin/madan`, `bin/snakemake` and `bin/dvc` below the server's folder do what those of the virtual
environment do, with the package that PYTHONPATH names, and hand signals and exit code on.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from importlib.metadata import entry_points
from pathlib import Path

COMMANDS = ("madan", "snakemake", "dvc")
LIBRARIES = (
    "torch._dynamo", "torch.utils.checkpoint", "safetensors.torch", "cv2", "PIL.Image", "pandas",
    "pydantic", "ruamel.yaml", "typer", "rich.console", "rich.table", "matplotlib.pyplot",
    "snakemake.cli", "snakemake.report", "snakemake_executor_plugin_slurm", "boto3", "jinja2",
    "dvc.cli", "dvc.cli.parser", "dvc.data_cloud", "dvc.cachemgr", "dvc.repo.reproduce",
    "dvc.repo.experiments.queue.celery", "dvc_render", "networkx", "requests",
)  # fmt: skip
HANDED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
MESSAGE = 1 << 20
GROUP = "QUICK_GROUP"  # In the environment of a command: it is in the group of its caller.


class Server:
    """The server's process and the folder whose `bin` has its commands."""

    def __init__(self, folder: Path):
        self.bin, self.socket = folder / "bin", folder / "socket"
        self.bin.mkdir(parents=True)
        for name in COMMANDS:
            self.script(self.bin / name, name)
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        env["OMP_NUM_THREADS"] = "1"  # No threads are there to be lost in a fork.
        words = [sys.executable, __file__, "serve", self.socket]
        process = subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL)
        atexit.register(process.terminate)

    @property
    def python(self) -> str:
        """What a shell script may say in place of python, before the name of a file."""
        return f"{sys.executable} -IS '{__file__}' call '{self.socket}'"

    def script(
        self, path: Path, program: str | Path, before: str = "", python: str | None = None
    ) -> None:
        """Write a shell script that runs a command, or a Python file, by the server or a python."""
        start = python or self.python
        path.write_text(f"#!/bin/sh\n{before}\nexec {start} '{program}' \"$@\"\n")
        path.chmod(0o755)


@functools.cache
def server() -> Server:
    """This process's server, started when first asked for."""
    folder = tempfile.mkdtemp(prefix="madan-quick-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Server(Path(folder))


def call(address: str, *words: str) -> None:
    """Have the server run a command with this folder, environment and these streams."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE)
        deadline = time.monotonic() + 300
        while server.connect_ex(address):  # It is still importing.
            if time.monotonic() > deadline:
                sys.exit("the server of commands does not answer: what did it say when it started?")
            time.sleep(0.05)
        request = json.dumps([words, os.getcwd(), dict(os.environ)])
        socket.send_fds(server, [request.encode()], [0, 1, 2])
        pid = int(server.recv(MESSAGE))
        for number in HANDED_ON:
            signal.signal(number, lambda number, _: os.kill(pid, number))
        status = int(server.recv(MESSAGE))
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


def serve(address: str) -> tuple[list[str], str, dict[str, str]]:
    """Fork for every call; return, in the new process, what it is to run."""
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        waiting = selectors.DefaultSelector()
        listener.bind(f"{address}.new")
        listener.listen(64)
        os.rename(f"{address}.new", address)
        waiting.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in waiting.select():
                if key.fileobj is listener:
                    client, _ = listener.accept()
                    request, streams, *_ = socket.recv_fds(client, MESSAGE, 3)
                    if (pid := os.fork()) == 0:
                        _join(client, json.loads(request)[2])
                        for number, stream in enumerate(streams):
                            os.dup2(stream, number)
                            os.close(stream)
                        client.close()
                        waiting.close()
                        return json.loads(request)
                    for stream in streams:
                        os.close(stream)
                    with contextlib.suppress(OSError):  # It was killed; what it called is below.
                        client.send(str(pid).encode())
                    ended = os.pidfd_open(pid)
                    waiting.register(ended, selectors.EVENT_READ, (pid, client))
                    waiting.register(client, selectors.EVENT_READ, pid)
                elif isinstance(key.data, tuple):
                    pid, client = key.data
                    waiting.unregister(key.fileobj)
                    os.close(key.fileobj)
                    _, status = os.waitpid(pid, 0)
                    with contextlib.suppress(KeyError):
                        waiting.unregister(client)
                    with contextlib.suppress(OSError):
                        client.send(str(os.waitstatus_to_exitcode(status)).encode())
                    client.close()
                else:  # The caller was killed, and so is what it called.
                    os.kill(key.data, signal.SIGKILL)
                    waiting.unregister(key.fileobj)


def _join(client: socket.socket, environment: dict[str, str]) -> None:
    """Enter the process group of the caller where its environment asks for it (kills.py)."""
    if GROUP in environment:
        pid, *_ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        try:
            os.setpgid(0, os.getpgid(pid))
        except OSError:  # The caller was killed meanwhile.
            os._exit(1)


def run(words: list[str], folder: str, environment: dict[str, str]) -> None:
    """Be the command."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    program, *_ = sys.argv = words
    paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    if program.endswith(".py"):
        sys.path[:] = [str(Path(program).parent), *paths, *sys.path[1:]]
        runpy.run_path(program, run_name="__main__")
    else:
        sys.path[:] = [*paths, *sys.path[1:]]
        [command] = entry_points(group="console_scripts", name=program)
        sys.exit(command.load()())


def end(error: BaseException | None) -> None:
    """Leave as Python does, but for taking every library apart, which takes seconds."""
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    elif error:
        traceback.print_exception(error)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    if sys.argv[1] == "call":
        call(*sys.argv[2:])
    request = serve(sys.argv[2])
    try:
        run(*request)
    except BaseException as error:
        end(error)
    end(None)
