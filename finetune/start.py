"""What a training starts with where that is not the base model: an export (``method.init``), found, checked and kept.

The base stays ``model.path``, and everything is compared with it. The held-out loss is measured of the base, then of
what training starts with, which early stop and verdict judge the training against (``finetune.rules``).

The starting weights are copied to ``<run>/finetune/start``, a checkpoint of no update. So a run can be judged after
the export is gone. Their hash is part of a run's identity: with other weights it is not resumed.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.run import checksums
from curate.run.files import read_json, remove_folder, sha256_once
from curate.run.finished import to_mend
from curate.run.folder import TRAINED, curate_dir_of
from curate.run.schema import UserError
from finetune import trained_on
from finetune.config import TrainConfig
from finetune.methods import METHODS

if TYPE_CHECKING:
    from finetune.checkpoint import Checkpoint
    from finetune.models.interface import LatentDiffusion

FOLDER = "start"
_EXPORT = "export"
_ORIGIN = "checkpoint.json"  # in an export: which checkpoint it is of, see ``finetune.export``


def option_of(config: TrainConfig) -> str:
    """What names the export, as it is typed."""
    return f"method.init={config.method.init}"


def folder_of(config: TrainConfig) -> Path | None:
    """The folder of the export that ``method.init`` names; None where it names none.

    Raises:
        UserError: there is no export of this method, or it is this run's own; says what to type.
    """
    method, option = config.method, option_of(config)
    if method.init is None:
        return None
    given, root = Path(method.init).expanduser(), Path(config.run.root)
    tried = [given, root / method.init / "finetune" / _EXPORT, given / "finetune" / _EXPORT]
    found = next((folder for folder in tried if method.init and method.files(folder)), None)
    if found is None:
        raise UserError(_not_found(config, tried))
    if found.resolve().parent == config.folder.resolve():
        raise UserError(
            f"{option} is this run itself, whose export is replaced when it ends. To go on with it, remove "
            "method.init; to start a new training with it, type another run.name"
        )
    return found


def _not_found(config: TrainConfig, tried: list[Path]) -> str:
    """Why none of the folders is an export, and what to type."""
    option, name = option_of(config), config.method.name
    for folder in tried:
        for other, kind in METHODS.items():
            if other != name and kind().files(folder):
                return (
                    f"{option} is an export of method={other}, and this training has method={name}, which cannot "
                    f"start with it; type method={other}, or method.init= and an export of method={name}"
                )
    trained = sorted(path.parts[-3] for path in Path(config.run.root).glob(f"*/finetune/{_EXPORT}"))
    known = (
        f"{config.run.root} holds exports of {', '.join(trained)}" if trained else "there is none"
    )
    places = " or ".join(dict.fromkeys(map(str, tried[:2])))
    return (
        f"{option} is no export of method={name}: neither {places} holds one; {known}. Type "
        "method.init=RUN or method.init=FOLDER, or remove it to start with the base"
    )


def examine(config: TrainConfig) -> None:
    """Check ``method.init`` before any model is loaded.

    Raises:
        UserError: there is no such export, it is damaged, or its settings differ from those of this training.
    """
    if (folder := examined(config)) is None:
        return
    option, run_dir = option_of(config), folder.parent.parent
    again = f"delete {folder} and type the training command of {run_dir.name} again, which makes it again"
    for path in config.method.files(folder):
        if not checksums.is_intact(folder.parent, path.relative_to(folder.parent).as_posix()):
            raise UserError(
                f"{option}: {path} is damaged, not what training wrote; {to_mend(run_dir, again)}"
            )
    config.method.refuse_to_start(folder, option)


def examined(config: TrainConfig) -> Path | None:
    """The export, where this run has not started with it yet; else None."""
    return folder_of(config) if _known(config) is None else None


def digest(config: TrainConfig) -> str | None:
    """SHA-256 of the starting weights; None where training starts with the base.

    Of a run that has started with an export that is not there any more, that of its own copy.

    Raises:
        UserError: as :func:`folder_of`.
    """
    if config.method.init is None:
        return None
    known = _known(config)
    try:
        folder = folder_of(config)
    except UserError:
        if known is None:
            raise
        return known["sha256"]
    assert folder is not None
    return _digest(config, folder)


def _digest(config: TrainConfig, folder: Path) -> str:
    """Of one file its own; of several one of all of theirs."""
    digests = [sha256_once(path) for path in config.method.files(folder)]
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()
    )


def _known(config: TrainConfig) -> dict[str, Any] | None:
    """What this run noted of its start, if it started with what ``method.init`` names and has checkpoints."""
    if not (config.folder / "checkpoints" / "last").exists():
        return None
    found = origin_of(config.folder)
    return found if found and found["given"] == config.method.init else None


def origin_of(finetune_dir: Path) -> dict[str, Any] | None:
    """Where a run's starting weights are from; None where it started with the base.

    Returns:
        ``given``: as it was typed. ``folder``: of the export, absolute. ``sha256``: of its weights. ``run``: the
        folder of the run that exported it, or null. ``checkpoint``: what the export says of its checkpoint: step,
        samples_seen and weights_sha256; null where it says nothing. ``seen``: keys of the held-out pictures that
        the trainings behind it have seen, see ``finetune.seen_before``.
    """
    state = read_json(finetune_dir / FOLDER / "state.json", sealed=True)
    return None if state is None else state["init"]


def is_kept(finetune_dir: Path, wanted: str | None) -> bool:
    """Whether a run's folder holds the starting weights of a digest, see :func:`digest`, whole; or none for None."""
    place, found = finetune_dir / FOLDER, origin_of(finetune_dir)
    if wanted is None or found is None:
        return wanted is None and not place.exists()
    return found["sha256"] == wanted and not checksums.damaged(place)


def keep(
    config: TrainConfig,
    model: LatentDiffusion,
    wanted: str | None,
    seen: Sequence[str],
    *,
    writes: bool,
) -> None:
    """Copy the starting weights into the run's folder; where there are none, remove what an earlier start left.

    Args:
        config: of the training.
        model: the base, its U-Net prepared.
        wanted: their digest, see :func:`digest`; None where there are none.
        seen: keys of the held-out pictures that the trainings behind them have seen.
        writes: whether this process does it; the others only check that the weights fit.

    Raises:
        UserError: they do not fit the model, or were changed meanwhile.
    """
    from finetune import checkpoint

    place = config.folder / FOLDER
    if wanted is None:
        if writes:
            remove_folder(place)
        return
    folder = folder_of(config)
    assert folder is not None
    weights = config.method.starting_weights(model, folder, option_of(config))
    if _digest(config, folder) != wanted:
        raise UserError(f"{option_of(config)} was changed while it was read; type the same again")
    if writes:
        run_dir = _run_of(folder)
        init = {
            "given": config.method.init,
            "folder": str(folder.resolve()),
            "sha256": wanted,
            "run": run_dir and str(run_dir),
            "checkpoint": read_json(folder / _ORIGIN),
            "seen": list(seen),
        }
        checkpoint.save_start(place, weights, init)


def seen(finetune_dir: Path) -> frozenset[str]:
    """Keys of the held-out pictures that no held-out loss of a run counts; none where it started with the base."""
    return frozenset((origin_of(finetune_dir) or {}).get("seen", ()))


def stored(finetune_dir: Path) -> Checkpoint | None:
    """The starting weights of a run, as a checkpoint of step 0; None where it started with the base."""
    from finetune.checkpoint import Checkpoint

    found = origin_of(finetune_dir)
    return Checkpoint(0, 0, finetune_dir / FOLDER, heldout=None) if found else None


# The runs behind a start


def _run_of(folder: Path) -> Path | None:
    """The run that an export is in."""
    inside = folder.resolve().parent
    ready = inside.name == TRAINED.stage and (inside / "config.yaml").is_file()
    return inside.parent if ready else None


def ancestors(folder: Path) -> Iterator[Path | None]:
    """The runs that trained an export: the one that it is in, what that started with, and so on.

    None, at the end, stands for one that is not known: the export is in no run, or its run is gone.
    """
    seen: set[Path] = set()
    while True:
        run_dir = _run_of(folder)
        if run_dir is None or run_dir in seen:
            yield None
            return
        yield run_dir
        seen.add(run_dir)
        before = origin_of(run_dir / TRAINED.stage)
        if before is None:
            return
        folder = Path(before["folder"])


def identity_of(run_dir: Path) -> dict[str, Any]:
    """What decided the losses of a run, from its last checkpoint; {} where there is none."""
    state = read_json(run_dir / TRAINED.stage / "checkpoints" / "last" / "state.json")
    return state["identity"] if state else {}


def warn_of_another_base(config: TrainConfig, base: str) -> None:
    """Say that an export was trained on another base model than this one, of the digest ``base``."""
    folder = folder_of(config)
    assert folder is not None
    run_dir = _run_of(folder)
    theirs = identity_of(run_dir).get("weights") if run_dir else None
    if theirs not in (None, base):
        say(
            f"warning: {option_of(config)} was trained on another base model than model.path={config.model.path} "
            f"(digest {theirs:.12}, not {base:.12}), so that here it computes something else than there"
        )


def curation_of(run_dir: Path) -> Path | None:
    """The curation that a run was trained on; None if it is not there any more, or another by now.

    What was removed since is missing from it.
    """
    from curate.run.manifest import digest_now, old_manifest

    found, shards = curate_dir_of(run_dir), str(identity_of(run_dir).get("shards"))
    manifest = old_manifest(found)
    if manifest is None:
        return None
    same = digest_now(found, manifest) == shards
    is_left = same or trained_on.removed_since(run_dir / TRAINED.stage, found, shards) is not None
    return found if is_left else None


def say(line: str) -> None:
    """Print a line, once for all processes of a launch."""
    if int(os.environ.get("RANK", "0")) == 0:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
