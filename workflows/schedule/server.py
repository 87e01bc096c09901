"""Dagster's processes in the background: started, waited for and ended."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from curate.run.schema import UserError

HOST = "127.0.0.1"  # whoever reaches the page can start runs
SETTINGS = Path(__file__).with_name("dagster.yaml")
CHECKOUT = SETTINGS.parents[2]
START_S = 120.0
STOP_S = 300.0  # a training stores a checkpoint meanwhile
_PAUSE_S = 0.2


def start(home: Path, port: int) -> str:
    """Start Dagster, if it is not at work in ``home`` yet, and wait until its page answers; returns what to say.

    Raises:
        UserError: the port is taken, or Dagster ended; its last lines say why.
    """
    home, url = home.resolve(), f"http://{HOST}:{port}"
    home.mkdir(parents=True, exist_ok=True)
    if not (home / SETTINGS.name).exists():
        shutil.copyfile(SETTINGS, home / SETTINGS.name)
    with (home / "server.pid").open("a+") as pid_file:
        if not _lock(pid_file.fileno()):
            pid_file.seek(0)
            url = pid_file.read().split()[-1]
            return f"{url} (Dagster is at work already in {home}; end it with: make schedule-stop)"
        _refuse_taken(port)
        process = _launch(home, port, pid_file.fileno())
        pid_file.truncate(0)
        print(process.pid, url, file=pid_file, flush=True)
    if not _answers(url, process):
        stop(home)
        lines = (home / "server.log").read_text("utf-8", errors="replace").splitlines()[-5:]
        raise UserError(
            f"Dagster did not start; {home / 'server.log'} ends with: " + " ".join(lines)
        )
    return f"{url} (Dagster, process {process.pid}; log: {home / 'server.log'}; end it with: make schedule-stop)"


def stop(home: Path) -> str:
    """End Dagster and what it started, after a training has stored a checkpoint; returns what to say."""
    path = home.resolve() / "server.pid"
    if not path.exists():
        return f"Dagster is not at work in {home}"
    with path.open() as pid_file:
        if _lock(pid_file.fileno()):
            return f"Dagster is not at work in {home}"
        group = int(pid_file.read().split()[0])
        os.kill(group, signal.SIGTERM)
        _until(lambda: _lock(pid_file.fileno()), STOP_S)
    # Dagster does not end the processes of its runs. At SIGINT they end the command and wait for it; they put off SIGTERM.
    _signal(group, signal.SIGINT)
    if _until(lambda: not _is_alive(group), STOP_S):
        return f"Dagster (process {group}) ended"
    _signal(group, signal.SIGKILL)
    return f"Dagster (process {group}) did not end within {STOP_S:.0f} s and was killed"


def _launch(home: Path, port: int, lock: int) -> subprocess.Popen[bytes]:
    """Start Dagster in a session of its own; it holds the lock as long as it lives."""
    # A shell without job control starts commands in the background with SIGINT ignored; Dagster handles SIGTERM
    # as SIGINT and would then ignore both.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    environment = os.environ | {
        "DAGSTER_HOME": str(home),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "PYTHONUNBUFFERED": "1",
        # To see what is new takes long where all files are hashed (fingerprint=content).
        "DAGSTER_SCHEDULE_GRPC_TIMEOUT_SECONDS": "3600",
        "DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS": "3600",
    }
    module = ("-m", "workflows.schedule.definitions")
    with (home / "server.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "dagster", "dev", *module, "-h", HOST, "-p", str(port)],
            cwd=CHECKOUT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=(lock,),
        )


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    def answered() -> bool:
        try:
            with urlopen(f"{url}/server_info", timeout=5) as reply:
                return reply.status == 200
        except (URLError, OSError):
            return process.poll() is not None

    return _until(answered, START_S) and process.poll() is None


def _refuse_taken(port: int) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"port {port} is taken by another program; type another one, such as: make schedule PORT={port + 1}"
            ) from error


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _signal(group: int, number: int) -> bool:
    """Send a signal to a group of processes; returns whether there is one left."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def _is_alive(group: int) -> bool:
    with suppress(ChildProcessError):
        os.waitpid(group, os.WNOHANG)  # a child of this process, if it did not start
    return _signal(group, 0)


def _until(true: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(_PAUSE_S)
    return True
