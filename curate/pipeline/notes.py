"""Notes that warn of problems with a curation: a CLIP that cannot judge it, few held-out images."""

from __future__ import annotations

from curate.annotate.config import NONE
from curate.clip.config import ClipConfig
from curate.clip.models import label
from curate.decide.config import NOTICEABLE, REMEDY
from curate.decide.cut import is_called_blind, least_separation
from curate.decide.enough import too_few
from curate.decide.frozen import GONE, REPLACED
from curate.decide.laion import LAION_CLIP
from curate.decide.leaks import Leaks
from curate.decide.near import Crowds
from curate.decide.runs import COMPARED, LONGEST
from curate.decide.split import LARGEST_HELD_OUT
from curate.decide.stage import Verdicts
from curate.measures import credentials
from curate.measures.heif import NEEDS_PLUGIN
from curate.pack.config import SOURCE, ShardsConfig
from curate.pipeline import own_part
from curate.pipeline.config import CurateConfig
from curate.run.companions import KINDS, sha256_column
from curate.run.ledger import UNREADABLE
from curate.run.ledger_table import LedgerTable
from curate.run.removals import REASON

_EXAMPLES = 2
_MUCH = 0.75  # of the pairs that reach a rule

_LAION = {  # what LAION recommends for each of its sets
    "laion400m": "filters.columns.source_nsfw.reject=[NSFW,UNSURE]",
    "laion5b": "filters=laion_clean",
    "relaion": "filters=laion_clean",
}
_LEFT = {  # what became of pictures that were held out; else a rule drops them
    GONE: "not in these data",
    REPLACED: "replaced by another picture under the same key",
    REASON: "removed",
    UNREADABLE: "unreadable",
}
_SAFETY = {
    "punsafe",
    "source_nsfw",
    "nsfw",
    "head_nsfw",
    "nsfw_score_opennsfw2",
    "nsfw_score_gantman",
}


def of(config: CurateConfig, verdicts: Verdicts) -> list[str]:
    """All notes on a run."""
    ledger = verdicts.ledger
    groups, of_val = ledger.tuples(
        "SELECT count(DISTINCT duplicate_group), count(DISTINCT duplicate_group) FILTER (split = 'val') "
        "FROM ledger WHERE kept"
    )[0]
    return [
        *unread_heic(verdicts),
        *unread_credentials(config, verdicts),
        *own_part.note(config.dataset),
        *source_order(config.shards),
        *blind_clip(verdicts, config.clip),
        *unsafe(config),
        *(few_held_out(of_val, groups) if groups else ()),
        *much_dropped(verdicts),
        *siblings_across(verdicts.leaks),
        *not_measured(config),
        *crowds(verdicts.crowds),
        *held_out_again(verdicts),
        *beside_some(ledger),
    ]


def source_order(shards: ShardsConfig) -> list[str]:
    """A note on what the order of the input gives up."""
    if shards.order != SOURCE:
        return []
    return [
        "shards.order=source packs in the order of the input: pictures that are added later move all that come "
        "after them to other shards, which are then written again, and neighbours in a shard are those of the "
        "input, which readers mix only as far as they shuffle"
    ]


def unread_heic(verdicts: Verdicts) -> list[str]:
    """A note if pictures are left out only because a package is not installed."""
    images = verdicts.ledger.images("reason = ?", f"{UNREADABLE}: {NEEDS_PLUGIN}")
    if not images:
        return []
    return [f"{images} .heic: pip install pillow-heif, then type the same command again"]


def unread_credentials(config: CurateConfig, verdicts: Verdicts) -> list[str]:
    """A note if pictures are kept whose Content Credentials say something that nobody could read."""
    if credentials.TRAINING not in config.filters.consent.columns:
        return []
    ledger, rule = verdicts.ledger, f"filters.columns.{credentials.TRAINING}"
    said = ledger.column(credentials.TRAINING)
    images = ledger.images(f"kept AND {said} = ?", credentials.UNREADABLE)
    if not images:
        return []
    return [
        f"{images} kept pictures have Content Credentials that are damaged or of an unknown kind, so nobody knows "
        f"whether they reserve their use ({credentials.TRAINING} is {credentials.UNREADABLE} in the ledger); to leave "
        f"them out, type {rule}.reject=[{credentials.UNREADABLE}] {rule}.keep_missing=true"
    ]


def blind_clip(verdicts: Verdicts, clip: ClipConfig) -> list[str]:
    """A note if CLIP scores the pairs hardly above shuffled captions: then similarity means nothing."""
    separation, pairs = verdicts.separation(), verdicts.ledger.count("clip_similarity IS NOT NULL")
    if not is_called_blind(separation, pairs):
        return []
    other = "" if label(clip) == LAION_CLIP else ", such as clip=vit_b32_openai"
    return [
        f"the CLIP {label(clip)} scores a pair above a shuffled one in {separation:.0%} of cases (guessing: 50%; below "
        f"{least_separation(pairs):.0%} it tells nothing), so similarity is no reason to keep or drop a pair, and "
        f"{_what_the_cut_did(verdicts)}. Either this CLIP does not know such images (choose another{other}), or "
        "the captions hardly differ, or they do not belong to the images: look at some pairs"
    ]


def _what_the_cut_did(verdicts: Verdicts) -> str:
    if verdicts.cut is None:
        return "none was dropped for it"
    return "yet your cut drops by it (filters=default drops none in such a case)"


def unsafe(config: CurateConfig) -> list[str]:
    """A note if pairs of LAION are taken without a rule on what they show."""
    said = _LAION.get(config.dataset.name)
    if said is None or not _SAFETY.isdisjoint(config.filters.columns):
        return []
    return [
        f"dataset={config.dataset.name} holds pornography and worse, and no rule keeps it out; type {said}"
    ]


def few_held_out(groups: int, kept: int) -> list[str]:
    """A note if fewer groups are held out than an evaluation needs for a verdict, see ``decide.enough``."""
    return [note] if (note := too_few(groups, kept)) else []


def much_dropped(verdicts: Verdicts) -> list[str]:
    """A note for each rule that dropped most of the pairs that reached it."""
    left, found = verdicts.ledger.pairs, []
    for rule, dropped in verdicts.steps:
        if left and dropped >= _MUCH * left:
            found.append(
                f"the rule {rule} dropped {dropped / left:.0%} of the {left:,} pairs that reached it; look at some of "
                "them in the report before you train on the rest"
            )
        left -= dropped
    return found


def siblings_across(found: Leaks) -> list[str]:
    """A note if a noticeable share of the pictures in ``val`` has a sibling in ``train``."""
    share = found.share("val")
    if share is None or share < NOTICEABLE:
        return []
    examples = ", ".join(
        f"{own} and {other}"
        for own, other in found.pairs.loc[found.pairs["split"] == "val", ["key", "other_key"]]
        .head(_EXAMPLES)
        .itertuples(index=False)
    )
    return [
        f"{share:.0%} of the images in val have a sibling in train, near in caption and picture ({examples}), so a "
        f"held-out loss shows less overfitting than there is. {REMEDY}"
    ]


def not_measured(config: CurateConfig) -> list[str]:
    """A note if siblings across the sides were not looked for, as no embeddings are kept."""
    if config.annotate.embeddings != NONE:
        return []
    return [
        "annotate.embeddings=none: whether pictures in val have a sibling in train was not measured; "
        "type annotate.embeddings=image to have it measured"
    ]


def crowds(found: Crowds) -> list[str]:
    """A note if more pictures are almost equal than can all be compared with one another, see ``decide.runs``."""
    if not found.runs:
        return []
    return [
        f"{found.runs:,} runs of more than {LONGEST:,} pictures with equal parts of their hashes were compared with the "
        f"first {COMPARED:,} of each only"
    ]


def held_out_again(verdicts: Verdicts) -> list[str]:
    """Notes on pictures of ``split.held_out`` that left, changed sides, or brought many others along."""
    found, notes = verdicts.held_out_again, []
    if found is None:
        return notes
    if found.left:
        said = [
            f"{count} {_LEFT.get(why, f'dropped by {why}')}" for why, count in found.left.items()
        ]
        notes.append(
            f"{sum(found.left.values())} of {found.listed} pictures of split.held_out are not held out here: "
            f"{', '.join(said)}. What is in their groups is held out all the same"
        )
    if found.of_both:
        notes.append(
            f"{found.of_both} groups hold pictures of split.held_out that were in val and in test, since new ones "
            f"joined them: all are in test now, {found.moved} of them from val"
        )
    if found.large:
        notes.append(
            f"{found.large} groups of more than {LARGEST_HELD_OUT} pictures ({found.in_large} in all) are held out, "
            "since each holds a picture of split.held_out; by its hash such a group would be in train"
        )
    return notes


def beside_some(ledger: LedgerTable) -> list[str]:
    """A note for each kind of companion that some of the kept pictures have and others have not."""
    found, kept = [], ledger.images("kept")
    for kind in KINDS:
        column = sha256_column(kind)
        count = ledger.images(f"kept AND {ledger.column(column)} != ''") if column in ledger else 0
        if 0 < count < kept:
            found.append(
                f"{count:,} of {kept:,} pictures have a NAME.{kind}.png beside them. Hugging Face's "
                'load_dataset("webdataset") refuses shards whose first samples differ in that; the package webdataset '
                "reads them"
            )
    return found
