"""What the commands share around Hydra: checked configuration, errors in one paragraph, exit codes."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, NoReturn

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from curate.run import experiment, mistakes
from curate.run.engine.tasks import TasksFailed
from curate.run.help import help_of
from curate.run.lacking import explain_lack
from curate.run.overrides import is_multirun, prepare, remember, without_rivals
from curate.run.printable import printable, printable_output
from curate.run.refusals import explain
from curate.run.remote import Unreachable
from curate.run.schema import Busy, UserError
from curate.run.signals import EXIT_INTERRUPTED, interruptible

EXIT_GATE_FAILED = 1
EXIT_USER_ERROR = UserError.exit_code
EXIT_UNDECIDABLE = 3
EXIT_FAILED = 70  # EX_SOFTWARE: the program itself, or a step that it started, failed
EXIT_BUSY = Busy.exit_code
EXIT_PIPE_CLOSED = 141  # 128 + SIGPIPE, as a shell says it of cat


def run(
    main: Callable[[], Any],
    section: str = "",
    start_bare: bool = True,
    flags: Sequence[str] = (),
) -> None:
    """Run a ``@hydra.main`` function as a command; see ``polite`` for how it ends.

    Args:
        main: the function, decorated.
        section: its part of an experiment's file, named as its YAML in ``conf``; "" for a function
            without experiments and help.
        start_bare: whether the command does something without arguments; if not, it prints its help
            as an error.
        flags: that it has beside Hydra's options; they are taken out of the command line before.
    """
    arguments = sys.argv[1:]
    # Two spinning thread pools starve each other.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing and leaving with 1
    with printable_output(), exit_codes(), interruptible():
        if section and {"-h", "--help"} & {*arguments}:
            print(help_of(section))
            return
        if not arguments and not start_bare:
            print(help_of(section), file=sys.stderr)
            sys.exit(EXIT_USER_ERROR)
        if section:
            mistakes.refuse(arguments, section, flags)
        if section and is_multirun(arguments):
            _sweep(arguments, section)
        remember(arguments, section)
        sys.argv[1:] = without_rivals(experiment.apply(prepare(arguments), section))
        main()


def _sweep(arguments: list[str], section: str) -> NoReturn:
    """Start the jobs and leave. A launch of several processes would start each of them several times."""
    from curate.run import sweep

    if section == "retrain":
        raise UserError(
            "-m does not work with a retraining, since a series promotes one run at a time; type one command for each"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "-m does not work inside a launch of several processes; start one launch for each job "
            "instead, such as: accelerate launch finetune/train.py optim.lr=1e-4 run.name=JOB data.run=RUN"
        )
    sys.exit(sweep.run(arguments, section))


def polite(main: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """End a command's own function by the exit codes of this module, before Hydra sees the exception.

    The user's mistakes print one paragraph and exit 2, another process at work in the same folder 75.
    Any other exception is the program's own: it prints its traceback and exits 70, not Python's 1, which is the
    gate's. Ctrl-C, SIGTERM and SIGUSR1 exit 130: the same command again resumes.
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
    except Unreachable as error:
        _leave(str(error), EXIT_FAILED)
    except OSError as error:
        if not (said := explain_refusal(error)):
            _fail()
        _leave(said)
    except KeyboardInterrupt as interrupted:
        said = ": ".join(["interrupted", *map(str, interrupted.args)])
        print(f"\n{said}; the same command again resumes", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except TasksFailed as error:
        _leave(str(error), EXIT_FAILED)
    except Exception:
        _fail()


def explain_refusal(error: OSError) -> str:
    """One paragraph for what the file system refused and the user can mend; "" for anything else."""
    if lacking := explain_lack(error):
        return lacking
    if isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
        return str(error)  # raised here with what to type, or by the system with the path
    return ""


def _fail() -> NoReturn:
    """End with the traceback of the exception that is being handled."""
    traceback.print_exc()
    sys.exit(EXIT_FAILED)


def _leave(message: str, code: int = EXIT_USER_ERROR) -> NoReturn:
    print(f"error: {printable(message)}", file=sys.stderr)
    sys.exit(code)
