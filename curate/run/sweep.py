"""A sweep (``-m``): one process for each combination of values, each with a run folder of its own."""

from __future__ import annotations

import hashlib
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from curate.run import experiment, folder
from curate.run.overrides import CONF, MULTIRUN, is_override, key_of, prepare, quoted
from curate.run.refusals import explain
from curate.run.schema import UserError, check_given

_INTERRUPTED = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_LONGEST = 150  # characters of a run's name; a file's name may have 255 bytes
_UNSAFE = re.compile(r"[^A-Za-z0-9._=+-]+")
_STRUCTURE = re.compile(r"[\[\](){}'\"]")  # in a value that is more than words between commas


@dataclass(frozen=True)
class Job:
    """One combination of a sweep.

    Attributes:
        arguments: of the command line, without ``-m``.
        swept: those of them that differ between jobs.
    """

    arguments: tuple[str, ...]
    swept: tuple[str, ...]


def run(arguments: Sequence[str], section: str) -> int:
    """Run every job, one after another, each in a process of its own; those after a failed one, too.

    All jobs are checked before the first one starts.

    Returns:
        The first exit code that is not 0, or 0.

    Raises:
        UserError: a setting of a job is wrong, or two jobs would write into the same folder.
    """
    commands = plan(arguments, section)
    codes = []
    for number, command in enumerate(commands, 1):
        print(f"job {number} of {len(commands)}: {shlex.join(command)}", flush=True)
        codes.append(_start([*_program(), *command]))
        if codes[-1] == _INTERRUPTED:
            return _INTERRUPTED
    for command, code in zip(commands, codes, strict=True):
        if code:
            print(f"exit code {code}: {shlex.join(command)}", file=sys.stderr)
    return next((code for code in codes if code), 0)


def plan(arguments: Sequence[str], section: str) -> list[list[str]]:
    """The arguments of every job, each with the name of its run.

    Where the names of the jobs' runs do not differ by themselves, each gets the swept settings behind
    it: ``mine`` and ``optim.lr=1e-4`` become ``mine_optim.lr=1e-4``. A training then still reads the
    shards of the run ``mine``.
    """
    jobs = _jobs(arguments)
    configs = [_composed(job, section) for job in jobs]
    names = [_run_name(cfg, section) for cfg in configs]
    if len(jobs) == 1 or len(set(names)) == len(jobs):
        return [list(job.arguments) for job in jobs]
    if section == "evaluate":
        raise UserError(
            "an evaluation is written into the folder of its run, so that only runs can be swept: type "
            "-m run.name=a,b"
        )
    if section == "sample":
        raise UserError(
            "one command draws every combination of lists: type checkpoints=[base,450] lora_scale=[0.5,1] "
            "seeds=[0,1] without -m; only runs can be swept: -m run.name=a,b"
        )
    commands = []
    for job, cfg, name in zip(jobs, configs, names, strict=True):
        rest = [text for text in job.arguments if key_of(text) not in ("run.name", "data.run")]
        own = [f"run.name={_in_argument(suffixed(name, job.swept))}"]
        if section == "train" and not cfg.data.runs:
            own.append(f"data.run={_in_argument(cfg.data.run or name)}")
        commands.append([*rest, *own])
    return commands


def suffixed(name: str, swept: Sequence[str]) -> str:
    """A run's name with the settings of a job behind it, fit for the name of a folder.

    Signs other than ``A-Z a-z 0-9 . _ = + -`` become ``-``; a name that was changed so, or cut, ends
    with a hash of the original, so that two jobs never share a folder.

    >>> suffixed("mine", ["optim.lr=1e-4", "method=lora"])
    'mine_optim.lr=1e-4_method=lora'
    >>> suffixed("mine", ["model.path=a/b"])
    'mine_model.path=a-b-f74dab'
    """
    settings = [text.lstrip("+") for text in swept if key_of(text) not in ("run.name", "data.run")]
    plain = "_".join([name, *settings])
    safe = "_".join([name, *(_UNSAFE.sub("-", text).strip("-") for text in settings)])
    if safe == plain and len(plain) <= _LONGEST:
        return plain
    digest = hashlib.sha256(plain.encode()).hexdigest()[:6]
    return f"{safe[:_LONGEST].rstrip('-')}-{digest}"


def _jobs(arguments: Sequence[str]) -> list[Job]:
    """Every combination; the last argument's values change fastest."""
    values = [_values(text) for text in arguments if text not in MULTIRUN]
    return [
        Job(combination, tuple(a for a, v in zip(combination, values, strict=True) if len(v) > 1))
        for combination in product(*values)
    ]


def _values(argument: str) -> list[str]:
    """The settings that an argument stands for: each as it is typed, where commas divide them."""
    if not is_override(argument):
        return [argument]
    try:
        override = OverridesParser.create().parse_override(argument)
        if not override.is_sweep_override():
            return [argument]
        found = list(override.sweep_string_iterator())
    except HydraException as error:
        if re.search(r"=\s*glob\(", argument):
            raise UserError(f"{argument}: list the choices, such as method=lora,full") from error
        return [argument]  # a text that Hydra does not read as one: the command quotes it
    key, _, value = argument.partition("=")
    typed = [] if _STRUCTURE.search(value) else [part.strip() for part in value.split(",")]
    return [f"{key}={part}" for part in (typed if len(typed) == len(found) else found)]


def _composed(job: Job, section: str) -> Any:
    """The configuration of a job, checked."""
    arguments = [text for text in job.arguments if is_override(text)]
    overrides = experiment.apply(prepare(arguments), section)
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg: Any = compose(section, overrides)
        check_given(cfg)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, overrides, section)) from error
    return cfg


def _run_name(cfg: Any, section: str) -> str:
    if cfg.run.name is not None:
        return cfg.run.name
    kind = folder.CURATED if section == "train" else folder.TRAINED
    return folder.only(Path(cfg.run.root), kind, section)


def _in_argument(name: str) -> str:
    """A name as the value of an argument; what holds an interpolation would not be quoted otherwise."""
    return quoted(name) if "${" in name else name


def _program() -> list[str]:
    """How this process was started, without its arguments."""
    options = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv[1:])]
    return [sys.executable, *options]


def _start(command: list[str]) -> int:
    """Run a job to its end. A signal that asks to stop is the job's to answer."""
    process = subprocess.Popen(command)
    asked: list[int] = []

    def pass_on(number: int, _frame: object) -> None:
        asked.append(number)
        if number != signal.SIGINT:  # a terminal sends that one to the job as well
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in _SIGNALS}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return _INTERRUPTED if asked and code else 128 - code if code < 0 else code
