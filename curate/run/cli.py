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
from typing import Any, TypeVar

from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from curate.run.overrides import _is_multirun, add_entry, explain, quote_path

EXIT_GATE_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_UNDECIDABLE = 3
EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141  # 128 + SIGPIPE, as a shell says it of cat

Config = TypeVar("Config")

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


class UserError(ValueError):
    """The configuration or the input is wrong; the message says what to type. Ends in exit code 2."""


def check(condition: bool, key: str, value: Any, accepted: str) -> None:
    """Raise a ``UserError`` that names the dotted key, the value, and what is accepted."""
    if not condition:
        raise UserError(f"{key}={value} is out of range; accepted: {accepted}. Type {key}=...")


def run_arguments(run_dir: Path) -> str:
    """What to type for a command to find a run's folder.

    >>> run_arguments(Path("runs/demo")), run_arguments(Path("/my runs/demo"))
    ('run.name=demo', "run.name=demo 'run.root=/my runs'")
    """
    arguments = [f"run.name={run_dir.name}"]
    if run_dir.parent != Path("runs"):
        arguments.append(f"run.root={run_dir.parent}")
    return shlex.join(arguments)


def register(schema: type, name: str, group: str | None = None) -> None:
    """Make a dataclass known to Hydra, for a YAML's ``defaults`` list to name first.

    Names start with an underscore, which keeps schemas out of the choices that Hydra prints.
    """
    ConfigStore.instance().store(name=f"_{name}", node=schema, group=group)


def to_dataclass(cfg: DictConfig, schema: type[Config]) -> Config:
    """The configuration as its dataclass; below this line nobody sees a ``DictConfig``.

    Raises:
        UserError: an unknown key (``+typo=1`` passes Hydra), a missing value, or one out of range.
    """
    unknown = sorted(_unknown_keys(cfg))
    if unknown:
        raise UserError(f"unknown configuration key {unknown[0]!r}; remove it, or see --help")
    return OmegaConf.to_object(cfg)  # type: ignore[return-value]


def _unknown_keys(cfg: DictConfig, prefix: str = "") -> list[str]:
    """Keys that were added with ``+`` beside those of the dataclass that types the node."""
    fields = getattr(OmegaConf.get_type(cfg), "__dataclass_fields__", None)
    found = []
    for key in map(str, cfg):
        if fields is not None and key not in fields:
            found.append(prefix + key)
            continue
        node = None if OmegaConf.is_missing(cfg, key) else cfg._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none():
            found += _unknown_keys(node, f"{prefix}{key}.")
    return found


def run(main: Callable[[], Any]) -> None:
    """Run a ``@hydra.main`` function as a command; see ``polite`` for how it ends."""
    # Two spinning thread pools starve each other.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing and leaving with 1
    with exit_codes():
        _refuse_multirun_inside_launch()
        if not _is_multirun():
            sys.argv[1:] = map(quote_path, map(add_entry, sys.argv[1:]))
        main()


def polite(main: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """End a command's own function by the exit codes of this module, before Hydra sees the exception.

    The user's mistakes print one paragraph and exit 2. Any other exception is the program's own and
    keeps its traceback. Ctrl-C exits 130: the same command again resumes.
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
        _leave(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        _leave(explain(error))  # before OSError, which Hydra's missing choices are as well
    except OSError as error:
        if not (said := explain_refusal(error)):
            raise
        _leave(said)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command again resumes", file=sys.stderr)
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


def _leave(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(EXIT_USER_ERROR)


def _refuse_multirun_inside_launch() -> None:
    """Accelerate's state survives the first job of a sweep, and the second one dies of it."""
    if _is_multirun() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "--multirun does not work inside one launch; start one launch for each job instead"
        )
