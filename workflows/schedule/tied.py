"""``python tied.py PARENT COMMAND…``: become the command, which gets SIGTERM when the process PARENT dies.

Only Linux can do it; elsewhere a command whose parent is killed goes on to its end. A program of its own, because
Python's ``preexec_fn``, which would do without, crashes beside the threads of gRPC.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # of prctl(2); it survives exec
_NOT_STARTED = 127  # as shells have it


def main() -> None:
    """Ask the system for the signal, then become the command."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):  # it died before it could be asked for
            sys.exit(128 + signal.SIGTERM)
    try:
        os.execvp(command[0], command)
    except OSError as error:  # Python's own code for it, 1, would say that a run was rejected
        print(f"error: {command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(_NOT_STARTED)


if __name__ == "__main__":
    main()
