"""What the commands share around Hydra: checked configuration, errors in one paragraph, exit codes."""

from __future__ import annotations

import errno
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

EXIT_GATE_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_UNDECIDABLE = 3
EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141  # 128 + SIGPIPE, as a shell says it of cat

Config = TypeVar("Config")

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)

_PATHS = re.compile(
    r"(\+{0,2}(?:(?:dataset|run)\.root|run\.name|model\.path|clip\.name"
    r"|dataset\.(?:path|images_dir|index|spool)|heads\.\w+\.path"
    r"|filters\.caption\.blocklist|filters\.clip_similarity\.made_for))=(.+)",
    re.DOTALL,
)
_LISTS = re.compile(r"\+{0,2}(?:dataset\.path|filters\.caption\.blocklist)=\[.*\]", re.DOTALL)
_ENTRIES = re.compile(r"(?:filters\.columns|heads)\.\w+[.=]")
_QUOTED = re.compile(  # by the user, who knows the grammar
    r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|.*\$\{.+\}.*""", re.DOTALL
)
_GROUPS = ("dataset", "clip", "filters", "model", "method", "optim", "sampler", "gate")
_NOISE = re.compile(
    r"(full_key|object_type|reference_type)\s*[:=]|To append to your config|See https"
)


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


def add_entry(argument: str) -> str:
    """Spare the user Hydra's ``++`` where a key is an entry of a mapping, which is named as one likes.

    >>> add_entry("filters.columns.punsafe.maximum=0.5")
    '++filters.columns.punsafe.maximum=0.5'
    """
    return f"++{argument}" if _ENTRIES.match(argument) else argument


def quote_path(argument: str) -> str:
    """Spare the user Hydra's grammar where a value is a path or a name: ``~`` is home, any sign may occur.

    What the user quoted, and what holds an interpolation, stays as it is.

    >>> quote_path("dataset.root=/a, (1)/b=c")
    "dataset.root='/a, (1)/b=c'"
    >>> quote_path("optim.lr=1e-4")
    'optim.lr=1e-4'
    """
    found = _PATHS.fullmatch(argument)
    if not found or found[2] == "null" or _LISTS.fullmatch(argument):
        return argument
    key, value = found[1], os.path.expanduser(found[2])  # noqa: PTH111 (Path's raises for ~nobody)
    if _QUOTED.fullmatch(value):
        return f"{key}={value}"
    # Backslashes count only before a quote and at the end.
    escaped = re.sub(r"(\\*)('|$)", lambda end: end[1] * 2 + ("\\'" if end[2] else ""), value)
    return f"{key}='{escaped}'"


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


def _is_multirun() -> bool:
    return bool({"-m", "--multirun"} & set(sys.argv[1:]))


def explain(error: BaseException) -> str:
    """One paragraph for an error of Hydra's or OmegaConf's: the key, what is wrong, what to type."""
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    key = getattr(cause, "full_key", None) or ""
    if isinstance(cause, MissingConfigException) and cause.options:
        group, _, choice = str(cause.missing_cfg_file).rpartition("/")
        group = group.rstrip("/")  # the choice itself was a path: model=/my/folder
        choices = [option for option in cause.options if not option.startswith("_")]
        near = get_close_matches(choice, choices, n=1)
        text = f"{group}={choice} is no choice; accepted: {', '.join(choices)}"
        text += f". Type {group}={near[0] if near else choices[0]}"
    elif isinstance(cause, MissingMandatoryValue):
        text = f"{key} needs a value; type {key}=..."
    elif unread := next(filter(_needs_quotes, sys.argv[1:]), None):
        name, _, value = unread.partition("=")
        text = f"{unread!r} cannot be read; quote a value that holds , = ( or the like for the shell and "
        text += f"again inside: '{name}=\"{value}\"'"
    else:
        text = f"{_first_line(cause, key)}{_origin(str(error))}"
    return f"{text}. See --help for the keys and choices."


def _first_line(cause: BaseException, key: str) -> str:
    """What the error says, without the lines that speak of Hydra's own workings."""
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    text = " ".join(line for line in lines if not _NOISE.match(line)).rstrip(".?")
    return f"{key}: {text}" if key and key not in text else text


def _needs_quotes(argument: str) -> bool:
    """Whether Hydra cannot read an override, or takes a comma in it for a sweep."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if "=" not in argument or argument.startswith("-"):
        return False
    try:
        sweep = OverridesParser.create().parse_override(argument).is_sweep_override()
    except HydraException:
        return True
    return sweep and not _is_multirun()


def _origin(text: str) -> str:
    """The override of this command line that the error speaks of, and what it may have meant."""
    words = set(re.findall(r"[\w.]+", text))
    named = [a for a in sys.argv[1:] if "=" in a and a.lstrip("+~").split("=")[0] in words]
    if not named:
        return ""
    argument = max(named, key=lambda a: len(a.split("=")[0]))
    group, dot, rest = argument.lstrip("+~").split("=")[0].partition(".")
    meant = ""
    if group not in _GROUPS:
        # A dotted name may also be one of a section that is no group, such as samples beside sampler.
        near = get_close_matches(group, _GROUPS, n=1, cutoff=0.9 if dot else 0.6)
        meant = f"; did you mean {near[0] + dot + rest!r}" if near else ""
    elif dot and not any(a.startswith(f"{group}=") for a in sys.argv[1:]):
        meant = f"; if it belongs to another choice of {group}, type {group}=... as well"
    return f" (from {argument!r}){meant}"
