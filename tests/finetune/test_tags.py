"""Tags in another order, and some left out: kohya's rules, what a training sees, and what it is measured on."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from curate.run.manifest import read_manifest
from curate.run.schema import UserError
from curate.run.tag_variants import encoded_of, tags_of
from finetune import doctor
from finetune.cache import encode_shards, load_split
from finetune.config import TrainingConfig
from finetune.data import Batches
from finetune.models import load_model
from finetune.opened_run import load_run
from finetune.tags import TagVariants
from tests.finetune.conftest import curate

CAPTION = "ohwx,  a b , c,d,e,"
VARIED = {"train.shuffle_caption": True, "train.keep_tokens": 1, "train.tag_variants": 3}


def test_the_first_tags_stay_and_the_others_are_all_there():
    found = TagVariants(shuffle=True, keep=2, dropout=0.0, count=50).variants(CAPTION)
    for text in found:
        tags = text.split(", ")
        assert tags[:2] == ["ohwx", "a b"]
        assert sorted(tags[2:]) == ["c", "d", "e"]
    assert len(set(found)) == 6
    kept = TagVariants(shuffle=True, keep=9, dropout=0.0, count=2).variants(CAPTION)
    assert set(kept) == {"ohwx, a b, c, d, e"}


def test_every_order_is_as_likely_as_any_other():
    """6,000 draws of 6 orders: each count is normal around 1,000 with a deviation of 28.9."""
    found = Counter(TagVariants(True, 0, 0.0, 6000).variants("a, b, c"))
    assert len(found) == 6
    assert all(abs(count - 1000) < 4 * 28.9 for count in found.values())


@pytest.mark.parametrize("shuffle", [True, False])
def test_each_tag_but_the_first_is_left_out_at_the_rate(shuffle):
    found = [tags_of(text) for text in TagVariants(shuffle, 1, 0.25, 4000).variants("w, a, b, c")]
    assert all(tags[0] == "w" for tags in found)
    counts = Counter(tag for tags in found for tag in tags[1:])
    for count in counts.values():  # binomial, a deviation of 27.4
        assert abs(count - 3000) < 4 * 27.4
    together = sum("a" in tags and "b" in tags for tags in found)  # each for itself
    assert abs(together - 4000 * 0.75**2) < 4 * 31.4
    ordered = all(tags == sorted(tags, key="wabc".index) for tags in found)
    assert ordered != shuffle
    assert "" in TagVariants(shuffle, 0, 0.9, 50).variants("alone")  # as with kohya's trainers


def test_more_variants_begin_with_the_same_and_captions_have_their_own():
    few, many = (TagVariants(True, 1, 0.2, count).variants(CAPTION) for count in (4, 9))
    assert many[:4] == few
    orders = [
        [text.translate(str.maketrans("wxyz", "abcd")) for text in TagVariants(True, 0, 0.0, 8).variants(c)]
        for c in ("a,b,c,d", "w,x,y,z")
    ]  # fmt: skip
    assert orders[0] != orders[1]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"keep_tokens": 1}, r"train\.keep_tokens=1 has no effect without"),
        ({"tag_variants": 4}, r"train\.tag_variants=4 has no effect without"),
        ({"shuffle_caption": True, "tag_variants": 0}, r"train\.tag_variants=0 is out of range"),
        ({"caption_tag_dropout": 1.0}, r"train\.caption_tag_dropout=1 is out of range"),
        ({"shuffle_caption": True, "keep_tokens": -1}, r"train\.keep_tokens=-1 is out of range"),
    ],
)
def test_settings_that_mean_nothing(settings, says):
    with pytest.raises(UserError, match=says):
        TrainingConfig(**settings)


@pytest.fixture
def tagged(make_config):
    """A factory of trainings on pictures with one or two captions of tags."""

    def make(**changes):
        folder = make_config("tagged-model", train=1, val=1).run.folder.parent / "tagged"
        if not folder.exists():
            curate(
                folder / "curate",
                {"train": 6, "val": 4},
                captions=lambda seed: [f"w, a, b, c{'abcdefghij'[seed]}", f"w, x, y{seed}"][
                    : 1 + seed % 2
                ],
            )
        return make_config("tagged", **{"train.samples": 8, "heldout.items": 4}, **changes)

    return make


def test_captions_without_tags_enough_are_refused(tagged, make_config):
    def examine(config):
        doctor.examine(config, read_manifest(config.curate_dir))

    examine(tagged(**{"train.shuffle_caption": True, "train.keep_tokens": 2}))
    with pytest.raises(
        UserError,
        match=r"train\.shuffle_caption has no effect: no caption in .* has 5 tags or more, .*keep_tokens=3",
    ):
        examine(tagged(**{"train.shuffle_caption": True, "train.keep_tokens": 3}))
    examine(tagged(**{"train.caption_tag_dropout": 0.5, "train.keep_tokens": 3}))
    with pytest.raises(UserError, match=r"train\.caption_tag_dropout has no effect: .* 5 tags"):
        examine(tagged(**{"train.caption_tag_dropout": 0.5, "train.keep_tokens": 4}))
    with pytest.raises(UserError, match=r"has 2 tags or more, .*keep_tokens=0"):
        examine(make_config(**{"train.shuffle_caption": True}))


def test_training_sees_variants_and_is_measured_on_captions_as_written(
    tagged, run_training, capsys
):
    run_training(config := tagged(**VARIED))
    said = capsys.readouterr().out
    assert (
        "tags    3 variants of each caption: the first 1 kept, the others in another order" in said
    )
    run = load_run(config.run.folder)
    for split in ("val", "train"):
        model, items = run.model(), run.items(split, 4)
        hidden = model.encode_captions(run.captions(split, 4))["hidden"].half().float()
        assert torch.equal(items.conditioning["hidden"], hidden)


def test_the_share_of_captions_that_are_varied_is_said_by_curation(tagged, run_training, capsys):
    """Six of nine have a tag to spare; of the sentences of the other curation two of eight."""
    config = tagged(**VARIED | {"train.keep_tokens": 2})
    run_training(config)
    said = "; 66.7% of the captions have enough between commas to be varied\n"
    assert said in capsys.readouterr().out
    root = config.run.folder.parent
    curate(
        root / "photos" / "curate",
        {"train": 8, "val": 4},
        prefix="p-",
        seed=100,
        captions=lambda seed: ["a cat, red, on a mat, at night" if seed % 4 == 0 else "a dog, wet"],
    )
    config.run.name = "both"
    config.data.run, config.data.runs = None, {"tagged": 1, "photos": 1}
    run_training(config)
    # in the order of the names
    assert (
        "; 25.0% of the captions of photos, 66.7% of the captions of tagged have enough between commas"
        in capsys.readouterr().out
    )


def test_each_visit_takes_one_of_the_variants_of_one_of_the_captions(tagged):
    config = tagged(**VARIED)
    model, manifest = load_model(config.model), read_manifest(config.curate_dir)
    tags, shards = TagVariants.of(config), manifest.shards_of("train")
    assert tags
    cache = config.run.folder / "cache"
    encode_shards(model, config.curate_dir, shards, cache, progress=False, tags=tags)
    split = load_split(model, shards, cache, tags=tags)
    plain = load_split(model, shards, cache)
    assert split.captions == plain.captions
    every = torch.arange(len(split))
    assert torch.equal(
        split.conditioning_of(every)["hidden"], plain.conditioning_of(every)["hidden"]
    )
    own = {
        key: [f"w, a, b, c{'abcdefghij'[n]}", f"w, x, y{n}"][: 1 + n % 2]
        for n, key in enumerate(f"train-{number:03d}" for number in range(6))
    }
    wanted = {
        key: model.encode_captions([t for c in captions for t in tags.variants(c)])["hidden"].half().float()
        for key, captions in own.items()
    }  # fmt: skip
    batches = Batches(split, batch_size=6, caption_dropout=0.0, timesteps=1000, seed=0)
    seen: dict[str, Counter[int]] = {key: Counter() for key in own}
    for number in range(60):
        batch = batches(number)
        for key, hidden in zip(batch.keys, batch.conditioning["hidden"], strict=True):
            near = (wanted[key] - hidden).abs().amax(dim=(1, 2))
            assert near.min() < 2e-3
            seen[key][int(near.argmin())] += 1
    for key, captions in own.items():
        texts = [t for c in captions for t in tags.variants(c)]
        assert len(seen[key]) == len(set(texts))  # of equal texts the first is counted
        first = sum(count for place, count in seen[key].items() if place < 3)
        assert abs(first - 60 / len(captions)) <= (0 if len(captions) == 1 else 4 * 3.9)


def test_variants_are_encoded_once_and_only_of_the_training_split(tagged, monkeypatch):
    config = tagged(**VARIED)
    model, manifest = load_model(config.model), read_manifest(config.curate_dir)
    encoded: list[str] = []
    real = model.encode_captions

    def noting(captions):
        encoded.extend(captions)
        return real(captions)

    monkeypatch.setattr(model, "encode_captions", noting)
    shards, cache = manifest.shards, config.run.folder / "cache"
    tags = TagVariants.of(config)
    assert tags
    for again in (False, True):
        encoded.clear()
        encode_shards(model, config.curate_dir, shards, cache, progress=False, tags=tags)
        assert bool(encoded) != again
        found = {*encoded_of(cache, [f"w, a, b, c{letter}" for letter in "abcdefghij"])}
        assert {
            text for text in encoded if "a" in tags_of(text)
        } <= found  # what a removal looks for
        if not again:
            held_out = {f"w, a, b, c{'abcdefghij'[n]}" for n in range(6, 10)}
            variants = {text for caption in held_out for text in tags.variants(caption)}
            assert held_out <= set(encoded)
            assert not (variants - held_out) & set(encoded)
            assert set(tags.variants("w, a, b, ca")) <= set(encoded)
