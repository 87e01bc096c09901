"""Which pictures beside pictures a training uses, and whether its data has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from curate.decide.config import HELD_OUT
from curate.run.companions import CONTROL, MASK, extension_of, sha256_column
from curate.run.manifest import Manifest, ShardInfo
from curate.run.schema import UserError
from finetune.condition_kinds import CANNY, FILE
from finetune.config import TrainConfig
from finetune.sidecars import read_columns

if TYPE_CHECKING:
    from finetune.cache import EncodedSplit, Recipe
    from finetune.cache.framing import Framing
    from finetune.models.interface import LatentDiffusion

_CALLED = {MASK: "masks", CONTROL: "conditions"}


def recipes(config: TrainConfig, model: LatentDiffusion) -> list[Recipe]:
    """What is made of the pictures beside a training's, see ``finetune.cache.companions``."""
    from finetune import conditions, masks

    found = []
    if config.objective.mask:
        least = config.objective.unmasked_weight
        found.append(masks.recipe(model.resolution, model.pixels_per_latent, least))
    if condition := config.method.follows():
        found.append(conditions.recipe(condition, model.resolution))
    return found


def used(config: TrainConfig) -> str:
    """What of them a training's losses depend on; "" for nothing."""
    chosen = config.objective
    said = f" mask {chosen.unmasked_weight}" if chosen.mask else ""
    if condition := config.method.follows():
        said += f" {CONTROL} {condition}"
    return said


def encode(
    config: TrainConfig,
    model: LatentDiffusion,
    curate_dir: Path,
    shards: Sequence[ShardInfo],
    cache_dir: Path,
    framing: Framing,
    *,
    progress: bool = True,
) -> None:
    """Make what the training uses and the cache lacks of some shards, whose pictures are encoded."""
    from finetune.cache import encode_companions

    wanted = recipes(config, model)
    encode_companions(model, curate_dir, shards, cache_dir, wanted, framing, progress=progress)


def attach(
    split: EncodedSplit,
    config: TrainConfig,
    model: LatentDiffusion,
    curate_dir: Path,
    shards: Sequence[ShardInfo],
    cache_dir: Path,
    framing: Framing,
) -> EncodedSplit:
    """``split`` with what :func:`encode` made of the same."""
    from finetune.cache import load_companions

    wanted = recipes(config, model)
    return load_companions(model, split, curate_dir, shards, cache_dir, wanted, framing)


def cached_bytes(
    config: TrainConfig, model: LatentDiffusion, manifest: Manifest, splits: Sequence[str]
) -> dict[str, int]:
    """What :func:`encode` makes of some splits takes at most, by what it is: ``masks``, ``conditions``."""
    from finetune.cache import views_of
    from finetune.cache.framing import Framing

    found = {}
    for recipe in recipes(config, model):
        entries = 0
        for split in splits:
            held = _held(config, manifest.shards_of(split), recipe.kind)[0]
            framing = Framing.of(config, split, all_views=True)
            entries += held * len(views_of(framing, model.resolution))
        found[_CALLED[recipe.name]] = entries * recipe.nbytes
    return found


def examine(config: TrainConfig, manifest: Manifest) -> list[str]:
    """Check that the data has what the settings use, and say what it has that they do not use.

    Returns:
        The lines to print.

    Raises:
        UserError: pictures lack what is used; says what to type.
    """
    return [line for look in (_masks, _controls) if (line := look(config, manifest))]


def examine_settings(config: TrainConfig) -> None:
    """Check what needs no data.

    Raises:
        UserError: a package is not installed, or pictures are cut out in a way that those beside them are not.
    """
    from finetune import canny

    used = "objective.mask=true" if config.objective.mask else f"method={config.method.name}"
    if config.objective.mask or config.method.follows():
        ways = {"buckets.enabled=true": config.buckets.enabled}
        ways[f"data.crops={config.data.crops}"] = config.data.crops > 1
        for way, chosen in ways.items():
            if chosen:
                raise UserError(
                    f"{used} takes pictures as squares from the centre, and {way} cuts them out otherwise; remove "
                    f"{way}"
                )
    if config.method.follows() == CANNY:
        canny.refuse_absent(f"method={config.method.name} with method.condition={CANNY}")


def _masks(config: TrainConfig, manifest: Manifest) -> str:
    held, total = _held(config, manifest.shards_of("train"), MASK)
    counted = f"{held:,} of {total:,} training pictures have a mask"
    if not config.objective.mask:
        unused = f"note: {counted}, which is not used; to use it, type objective.mask=true"
        return unused if held else ""
    if not held:
        raise UserError(
            f"objective.mask=true has no effect: none of the {total} training pictures has a mask. Put NAME."
            f"{extension_of(MASK)} beside NAME.jpg and curate again, or remove objective.mask"
        )
    return f"masks   {counted}; the others count whole"


def _controls(config: TrainConfig, manifest: Manifest) -> str:
    condition = config.method.follows()
    if condition is None:
        return ""
    sides = {
        side: _held(config, shards, CONTROL)
        for side in ("train", *HELD_OUT)
        if (shards := manifest.shards_of(side))
    }
    held, total = sides["train"]
    if condition != FILE:
        return (
            f"note: {held:,} of {total:,} training pictures have a condition of their own (NAME."
            f"{extension_of(CONTROL)}), which is not used; to use it, type method.condition={FILE}"
            if held
            else ""
        )
    for side, (there, all_of_it) in sides.items():
        if there < all_of_it:
            raise UserError(
                f"method.condition={FILE}: {all_of_it - there:,} of the {all_of_it:,} pictures of {side} have no "
                f"condition. Put NAME.{extension_of(CONTROL)} beside each NAME.jpg and curate again, or type "
                f"method.condition={CANNY}"
            )
    return ""


def _held(config: TrainConfig, shards: Sequence[ShardInfo], kind: str | None) -> tuple[int, int]:
    """How many samples of some shards have a companion, and how many there are; None: the picture itself."""
    total = sum(info.samples for info in shards)
    if kind is None:
        return total, total
    return sum(_count(config.curate_dir, info, kind) for info in shards), total


def _count(curate_dir: Path, info: ShardInfo, kind: str) -> int:
    """How many samples of a shard have a companion."""
    name = sha256_column(kind)
    table = read_columns(curate_dir, info, ("key", name))
    if name not in table.column_names:
        return 0
    return len(table) - table[name].null_count
