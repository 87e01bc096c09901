"""A cut made for another CLIP is refused, and the refusal says what to type."""

import numpy as np
import pytest

from curate.clip.config import ClipConfig
from curate.decide import cut
from curate.decide.cut import is_blind, least_separation, threshold_of
from curate.decide.laion import LAION_CUTS, LAION_FALSE_KEEP
from curate.decide.scored_pairs import scored
from curate.decide.shuffled_captions import Null
from curate.filters.config import FiltersConfig
from curate.filters.similarity import ClipSimilarityConfig
from curate.pipeline import request
from curate.pipeline.config import CurateConfig
from curate.readers.folder import FolderConfig
from curate.run import database
from curate.run.config import RunConfig
from curate.run.engine.config import EngineConfig
from curate.run.schema import UserError

OPENAI = ClipConfig(name="ViT-B-32-quickgelu", pretrained="openai")
LAION_2B = ClipConfig(name="ViT-B-32", pretrained="laion2b_s34b_b79k")


def check(clip, run_dir, minimum, made_for=None):
    similarity = ClipSimilarityConfig(minimum=minimum, made_for=made_for)
    cut.check(similarity, clip, run_dir, EngineConfig().limits_in_temporary)


@pytest.mark.parametrize(
    ("clip", "minimum", "made_for"),
    [
        (OPENAI, 0.28, None),
        (OPENAI, 0.28, "ViT-B-32-quickgelu openai"),
        (LAION_2B, 0.2, None),
        (LAION_2B, 0.28, "ViT-B-32 laion2b_s34b_b79k"),
        (LAION_2B, None, "ViT-B-32-quickgelu openai"),
    ],
)
def test_a_cut_of_this_clip_passes(clip, minimum, made_for, tmp_path):
    check(clip, tmp_path / "run", minimum, made_for)


@pytest.mark.parametrize(
    ("clip", "minimum", "made_for"),
    [
        (LAION_2B, 0.28, None),
        (LAION_2B, 0.3, None),
        (LAION_2B, 0.2, "ViT-B-32-quickgelu openai"),
        (OPENAI, 0.28, "ViT-L-14-quickgelu openai"),
    ],
)
def test_a_foreign_cut_is_refused_with_what_to_type(clip, minimum, made_for, tmp_path):
    with pytest.raises(UserError) as refusal:
        check(clip, tmp_path / "run", minimum, made_for)
    said = str(refusal.value)
    assert f"minimum={minimum:g}" in said
    assert f"'filters.clip_similarity.made_for={clip.name} {clip.pretrained}'" in said
    for advice in ("filters=default", "false_keep_rate=0.1", "python -m curate.calibrate"):
        assert advice in said
    assert "\n" not in said


@pytest.mark.parametrize("folder", ["run", "run/dry_run"])
def test_what_was_measured_before_gives_the_equal_cut(folder, tmp_path, write_scored, monkeypatch):
    monkeypatch.setattr("curate.decide.cut.FEWEST_SHUFFLED", 100)
    write_scored(tmp_path / folder, clip="ViT-B-32 laion2b_s34b_b79k")
    with pytest.raises(UserError) as refusal:
        check(LAION_2B, tmp_path / "run", 0.28)
    null = scored(tmp_path / folder / "curate").null()
    strict = null.cut(LAION_FALSE_KEEP)
    assert f"type filters.clip_similarity.minimum={strict:.4f} " in str(refusal.value)
    assert f"lets {null.false_keep_rate(0.28):.2%} of shuffled" in str(refusal.value)
    check(LAION_2B, tmp_path / "run", float(f"{strict:.4f}"))


def test_the_engine_s_limits_hold_for_what_is_asked_of_it(tmp_path, write_scored, monkeypatch):
    write_scored(tmp_path / "run", clip="ViT-B-32 laion2b_s34b_b79k")
    explained, limits = database._explained, []
    monkeypatch.setattr(
        database, "_explained", lambda given, name: limits.append(given) or explained(given, name)
    )
    engine = EngineConfig(memory="150MB", threads=1, scratch=str(tmp_path / "scratch"))
    config = CurateConfig(
        run=RunConfig(root=str(tmp_path), name="run"),
        dataset=FolderConfig(name="set", reader="folder", root=str(tmp_path)),
        clip=LAION_2B,
        filters=FiltersConfig(clip_similarity=ClipSimilarityConfig(minimum=0.28)),
        engine=engine,
    )
    with pytest.raises(UserError, match="too few to find a cut"):
        request.check(config)
    assert {*limits} == {engine.limits_in_temporary(tmp_path)}
    assert "engine.scratch=FOLDER" in limits[0].more_scratch


def test_few_shuffled_captions_give_no_cut(tmp_path, write_scored):
    write_scored(tmp_path / "run", clip="ViT-B-32 laion2b_s34b_b79k")
    with pytest.raises(UserError, match="too few to find a cut") as refusal:
        check(LAION_2B, tmp_path / "run", 0.28)
    assert "type filters.clip_similarity.minimum=" not in str(refusal.value)


def test_another_clips_measurements_say_nothing(tmp_path, write_scored):
    write_scored(tmp_path / "run", clip="ViT-L-14 x")
    with pytest.raises(UserError, match="score pairs first"):
        check(LAION_2B, tmp_path / "run", 0.28)


def test_laions_bound_is_what_the_genuine_embeddings_say(shared):
    """The rule of three on the pairs, made fewer by how much they crowd on few photographs."""
    stored = np.load(shared / "clip_genuine" / "openai_vitb32_pairs.npz")
    images, texts = (
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        for vectors in (stored[n].astype(np.float64) for n in ("image_embs", "lvis_text_embs"))
    )
    similarities = images @ texts.T
    assert similarities.size == 8_421
    assert similarities.max() < min(LAION_CUTS)
    effects = []
    for at in (0.24, 0.25):
        passing = similarities >= at
        binomial = passing.mean() * (1 - passing.mean()) / passing.shape[1]
        effects.append(passing.mean(axis=1).var(ddof=1) / binomial)
    assert 2 < min(effects) < max(effects) < 4.5
    bound = 3 * max(effects) / similarities.size
    assert bound == pytest.approx(LAION_FALSE_KEEP, rel=0.15)


@pytest.mark.parametrize(("own", "cuts"), [(0.9, True), (0.55, False), (0.5, False)])
def test_a_clip_that_cannot_tell_right_from_wrong_drops_nothing(own, cuts):
    null = Null(np.linspace(0, 1, 101, dtype=np.float32))
    config = ClipSimilarityConfig(false_keep_rate=0.1)
    found = threshold_of(config, null, np.full(200, own, np.float32))
    assert (found.value is not None) == cuts
    assert ("no cut" in found.provenance) != cuts


def test_few_pairs_need_a_higher_separation():
    """Of 2,000 sets of N pairs as similar as shuffled ones, about one in twenty seems to differ from them."""
    rng = np.random.default_rng(0)
    for pairs in (5, 12):
        separations = rng.random((2000, pairs)).mean(1)  # the AUC against an endless null
        assert 0.03 < np.mean(separations >= least_separation(pairs)) < 0.07
    assert least_separation(10_000) == 0.6
    assert not is_blind(None, 0)
