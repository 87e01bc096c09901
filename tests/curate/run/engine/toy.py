"""Workers for tests of engines: they note each attempt in a file, and fail or die as their tasks say."""

import os
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from curate.run.schema import UserError

_ODD = {"exits": lambda: sys.exit("enough"), "gives a function": lambda: lambda: None}


def die(last):
    """Once the task that writes the file ``last`` is done."""
    while not last.exists():
        time.sleep(0.01)
    time.sleep(0.2 if last.is_file() else 0)
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def worker(folder, refuse=False):
    if refuse:
        raise UserError("not like this")
    folder = Path(folder)

    def work(task, progress):
        name, how = task
        with (folder / name).open("a") as stream:
            stream.write(f"{os.getpid()}\n")
        attempt = len((folder / name).read_text().splitlines())
        progress(1)
        if how == "raises" or (how == "raises once" and attempt == 1):
            raise ValueError(f"{name} is poison")
        if how == "refuses":
            raise UserError(f"mend {name}")
        if how.startswith("dies") and (attempt == 1 or not how.endswith("once")):
            die(folder / "quick" if "late" in how else folder)
        if how == "prints":
            print(f"a line of {name}")
        if how == "slow":
            time.sleep(60)
        if how == "environment":
            return {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")}
        if how in _ODD:
            return _ODD[how]()
        progress(2)
        return name * 2

    yield work


@contextmanager
def dies_unbuilt():
    os.kill(os.getpid(), signal.SIGKILL)
    yield
