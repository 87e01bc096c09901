"""What retention is measured on: neutral prompts, and a run that holds data of the base's own.

Neutral prompts are short, everyday and not about the pictures that were trained on. Captions of those
pictures would ask how well the new subject was learnt, which held-out loss and prompt following answer.
Neutral prompts ask what became of everything else. The built-in ones name, in a few words, things that
nearly every text-to-image model can draw, so that the base's pictures of them show what it could do.
Animals, food, people, objects, buildings, vehicles and landscapes alternate, so that the first few of the
list already have some of each. A base with a domain of its own, such as faces or X-rays, needs a list of
its own: ``retention.prompts=FILE``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from curate.decide.config import HELD_OUT, SMALLEST_JUDGED
from curate.run import folder
from curate.run.folder import curate_dir_of
from curate.run.joined import curations_of
from curate.run.manifest import Manifest, read_manifest
from curate.run.next_command import run_arguments
from curate.run.schema import UserError
from evaluate.measure_config import MeasureConfig, RetentionConfig
from finetune.retention.prompts import lines, of_file

BUILT_IN = Path(__file__).with_name("neutral_prompts.txt")


def neutral_prompts(config: RetentionConfig) -> list[str]:
    """The first ``retention.items`` prompts of the list, or all where it has fewer; empty lines are skipped.

    Raises:
        UserError: the file is missing, is no text, has no prompts, or the same one twice; or more of the
            built-in prompts are asked for than there are.
    """
    if not config.items:
        return []
    if config.prompts is None:
        found = lines(BUILT_IN)
        if config.items > len(found):
            raise UserError(
                f"retention.items={config.items}: the built-in list has {len(found)} prompts. Type "
                f"retention.items={len(found)}, or give a longer list with retention.prompts=FILE"
            )
    else:
        found = of_file(config.prompts, "retention.prompts")
    return found[: config.items]


def run_of_base(config: MeasureConfig) -> Path | None:
    """The folder ``curate`` of ``retention.run``, whatever it holds; None where no run is given.

    Raises:
        UserError: there is no such curated run.
        FileNotFoundError: its curation has not finished.
    """
    if config.retention.run is None:
        return None
    run_dir = Path(config.run.root, config.retention.run)
    folder.refuse_unknown(run_dir, folder.CURATED, "retention.run")
    read_manifest(run_dir / folder.CURATED.stage)
    return run_dir / folder.CURATED.stage


def curation_of_base(config: MeasureConfig) -> Path | None:
    """The folder ``curate`` of ``retention.run``; None where no run is given.

    Raises:
        UserError: there is no such curated run, or its shards are those that were trained on.
        FileNotFoundError: its curation has not finished.
    """
    name, curate_dir = config.retention.run, run_of_base(config)
    if curate_dir is None:
        return None
    manifest, trained = read_manifest(curate_dir), read_manifest(curate_dir_of(config.run.folder))
    ours = curations_of(curate_dir_of(config.run.folder))
    if manifest.digest() == trained.digest() or curate_dir in ours:
        raise UserError(
            f"retention.run={name} holds the pictures that {config.run.name} was trained on, which cannot show "
            "what it lost; give a run that was curated from the base's own data: "
            f"python -m curate dataset=... {run_arguments(config.run.folder.with_name('of-the-base'))}"
        )
    if not manifest.shards:
        raise UserError(f"retention.run={name} holds no pictures; give a run that has some")
    return curate_dir


def side_of(manifest: Manifest) -> str:
    """Which split of that run is measured: the first of val, test and train with enough pictures for an interval.

    Where a part of the base's data was trained on again, pictures of ``val`` are the least likely to be
    among it: the split is decided by hash. If none has enough it is the largest.
    """
    samples = {side: _samples(manifest, side) for side in (*HELD_OUT, "train")}
    enough = [side for side, count in samples.items() if count >= SMALLEST_JUDGED]
    return enough[0] if enough else max(samples, key=samples.__getitem__)


def _samples(manifest: Manifest, side: str) -> int:
    return sum(shard.samples for shard in manifest.shards_of(side))


def settle(config: MeasureConfig) -> Sequence[Path]:
    """Check the settings before anything heavy loads; returns the folders that must not change meanwhile.

    Raises:
        UserError, FileNotFoundError: see :func:`neutral_prompts` and :func:`curation_of_base`.
    """
    neutral_prompts(config.retention)
    found = curation_of_base(config)
    return [] if found is None else [found]
