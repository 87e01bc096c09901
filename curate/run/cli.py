"""What the commands share around Hydra: checked configuration, errors in one paragraph, exit codes."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from curate.run import experiment
from curate.run.help import help_of
from curate.run.overrides import explain, is_multirun, key_of, prepare, remember, typed
from curate.run.schema import Busy, UserError
from curate.run.signals import EXIT_INTERRUPTED, interruptible

EXIT_GATE_FAILED = 1
EXIT_USER_ERROR = UserError.exit_code
EXIT_UNDECIDABLE = 3
EXIT_BUSY = Busy.exit_code
EXIT_PIPE_CLOSED = 141  # 128 + SIGPIPE, as a shell says it of cat

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


def run_arguments(run_dir: Path) -> str:
    """What to type for a command to find a run's folder.

    >>> run_arguments(Path("runs/demo")), run_arguments(Path("/my runs/demo"))
    ('run.name=demo', "run.name=demo 'run.root=/my runs'")
    """
    arguments = [f"run.name={run_dir.name}"]
    if run_dir.parent != Path("runs"):
        arguments.append(f"run.root={run_dir.parent}")
    return shlex.join(arguments)


def next_arguments(run_dir: Path) -> str:
    """What to type for the next command: this one's experiment, which holds its settings, and the run."""
    named = [text for text in typed() or [] if key_of(text) == "experiment"]
    return " ".join([*map(shlex.quote, named), run_arguments(run_dir)])


def run(main: Callable[[], Any], section: str = "") -> None:
    """Run a ``@hydra.main`` function as a command; see ``polite`` for how it ends.

    Args:
        main: the function, decorated.
        section: its part of an experiment's file, named as its YAML in ``conf``; "" for a function
            without experiments and help.
    """
    # Two spinning thread pools starve each other.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing and leaving with 1
    with exit_codes(), interruptible():
        if section and {"-h", "--help"} & {*sys.argv[1:]}:
            print(help_of(section))
            return
        _refuse_multirun_inside_launch()
        remember(sys.argv[1:])
        sys.argv[1:] = experiment.apply(prepare(sys.argv[1:]), section)
        main()


def polite(main: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """End a command's own function by the exit codes of this module, before Hydra sees the exception.

    The user's mistakes print one paragraph and exit 2, another process at work in the same folder 75.
    Any other exception is the program's own and keeps its traceback. Ctrl-C, SIGTERM and SIGUSR1 exit
    130: the same command again resumes.
    """

    @wraps(main)
    def wrapped(cfg: DictConfig) -> None:
        with exit_codes():
            main(cfg)

    return wrapped


@contextmanager
def exit_codes() -> Iterator[None]:
    """End a command as ``polite`` says."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read along (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_PIPE_CLOSED)
    except UserError as error:
        _leave(str(error), error.exit_code)
    except (HydraException, OmegaConfBaseException) as error:
        _leave(explain(error))  # before OSError, which Hydra's missing choices are as well
    except OSError as error:
        if not (said := explain_refusal(error)):
            raise
        _leave(said)
    except KeyboardInterrupt as interrupted:
        said = ": ".join(["interrupted", *map(str, interrupted.args)])
        print(f"\n{said}; the same command again resumes", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def explain_refusal(error: OSError) -> str:
    """One paragraph for what the file system refused and the user can mend; "" for anything else."""
    where = error.filename or "the output"
    if error.errno in _FULL:
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
    if isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
        return str(error)  # raised here with what to type, or by the system with the path
    return ""


def _leave(message: str, code: int = EXIT_USER_ERROR) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def _refuse_multirun_inside_launch() -> None:
    """Accelerate's state survives the first job of a sweep, and the second one dies of it."""
    if is_multirun(sys.argv[1:]) and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "--multirun does not work inside one launch; start one launch for each job instead"
        )
