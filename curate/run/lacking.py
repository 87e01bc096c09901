"""What a disk that is full, or closed to this user, refuses: in words that say what to do."""

from __future__ import annotations

import errno

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


def is_full(error: OSError) -> bool:
    """Whether a disk, or what this user may have of it, is full."""
    return error.errno in _FULL


def explain_lack(error: OSError) -> str:
    """One paragraph for a disk that is full, or on which this user may not read or write; "" for anything else."""
    where = error.filename or "the output"
    if is_full(error):
        return (
            f"{where}: {error.strerror}. No file is left half written and what was complete is kept; "
            "make room there, or name a folder on another disk (run.root=FOLDER), and the same "
            "command again resumes"
        )
    if error.errno in _DENIED:
        return (
            f"{where}: {error.strerror}; let this user read it, and write where results go "
            "(ls -ld, chmod, chown), or name another folder (dataset.root=FOLDER, run.root=FOLDER)"
        )
    return ""
