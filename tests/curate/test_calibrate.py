"""The command ``python -m curate.calibrate``, on planted embeddings whose null is known."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from curate import calibrate
from curate.annotate.embeddings import Embeddings
from curate.decide.scored_pairs import scored
from curate.run import cli as command
from curate.run.schema import UserError
from tests.curate.decide import naive_shuffled_captions

REPOSITORY = Path(__file__).resolve().parents[2]
PAIRS, DIMENSIONS = 400, 64  # of write_scored


@pytest.fixture
def say(monkeypatch, capsys):
    def call(*arguments, code=None):
        monkeypatch.setattr("sys.argv", ["calibrate", *map(str, arguments)])
        if code is None:
            command.run(calibrate.main)
            return capsys.readouterr().out
        with pytest.raises(SystemExit) as leaving:
            command.run(calibrate.main)
        assert leaving.value.code == code
        return capsys.readouterr().err

    return call


def test_the_null_of_random_directions_has_its_closed_form(tmp_path, write_scored):
    here = scored(write_scored(tmp_path / "a", offset=0.2) / "curate")
    assert len(here.own) == PAIRS - 1
    null = here.null().similarities
    assert null.mean() == pytest.approx(0.2, abs=0.01)
    assert null.std() == pytest.approx(0.8 / np.sqrt(DIMENSIONS), rel=0.06)


def test_a_cut_of_a_rate_has_that_rate(tmp_path, say, write_scored):
    run_dir = write_scored(tmp_path / "a")
    cut = say(run_dir, "--false-keep-rate", 0.02).partition("a cut of ")[2][:6]
    said = say(run_dir, "--cut", cut)
    rate = said.partition(f"cut {float(cut):g}: keeps ")[2].partition("%")[0]
    assert float(rate) == pytest.approx(2, abs=0.1)  # the cut was rounded
    here = scored(run_dir / "curate")
    assert f"and {(here.own >= np.float32(cut)).mean():.1%} of the pairs" in said


def test_an_equally_strict_cut_follows_a_shift_of_all_similarities(tmp_path, say, write_scored):
    """The other CLIP's similarities are 0.8 s + 0.2: so is each of its cuts."""
    here = scored(write_scored(tmp_path / "a") / "curate")
    there = scored(write_scored(tmp_path / "b", clip="there", offset=0.2) / "curate")
    said = "\n".join(calibrate.compared(here, there, [0.48]))
    share = float((here.own >= 0.35).mean())
    assert there.kept(0.48) == pytest.approx(share, abs=1e-6)
    assert f"keeps {share:.1%} of them" in said
    by_share = float(said.partition("as does a cut of ")[2][:6])
    by_null = float(said.rpartition("as does ")[2][:6])
    assert by_share == pytest.approx(here.own[here.own >= 0.35].min(), abs=1e-4)
    rate = here.null().false_keep_rate(0.35)
    assert here.null().false_keep_rate(by_null) == pytest.approx(rate, abs=2e-3)
    assert "399 pairs that there scored" in say(tmp_path / "a", "--like", tmp_path / "b")


def test_only_laions_own_clip_has_laions_cuts(tmp_path, say, write_scored):
    other = say(write_scored(tmp_path / "a"))
    own = say(write_scored(tmp_path / "b", clip="ViT-B-32-quickgelu openai"))
    assert "0.28 and 0.30 belong to this CLIP" in own
    assert "as strict here is" in other
    assert "belong to this CLIP" not in other


def test_mistakes_end_with_2_and_say_what_to_type(tmp_path, say, write_scored):
    run_dir = write_scored(tmp_path / "a")
    assert "--cut=7 is" in say(run_dir, "--cut", 7, code=2)
    assert "--false-keep-rate=0 is" in say(run_dir, "--false-keep-rate", 0, code=2)
    assert "is no curated run" in say(tmp_path / "nowhere", code=2)
    (tmp_path / "empty" / "curate").mkdir(parents=True)
    assert "type: python -m curate run.name=empty" in say(tmp_path / "empty", code=2)
    here = scored(run_dir / "curate")
    other = scored(write_scored(tmp_path / "other", key="other") / "curate")
    with pytest.raises(UserError, match="share no pair"):
        list(calibrate.compared(here, other, []))


def test_parts_of_two_clips_are_told_apart(tmp_path, write_scored):
    curate_dir = write_scored(tmp_path / "a", clip="old") / "curate"
    new = write_scored(tmp_path / "b", clip="new", parts=1) / "curate"
    (new / "annotations" / "part-00000.parquet").rename(
        curate_dir / "annotations" / "part-00009.parquet"
    )
    with pytest.raises(UserError, match="old, new in parts"):
        scored(curate_dir)
    assert scored(curate_dir, "old").clip == "old"
    assert scored(curate_dir, "third") is None


def test_help_is_quick():
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "curate.calibrate", "--help"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert time.monotonic() - start < 10  # 2 on an idle machine
    assert "--false-keep-rate" in done.stdout


def test_a_full_disk_of_temporary_files_is_named(tmp_path, write_scored, small_disk, monkeypatch):
    curate_dir = write_scored(tmp_path / "a", parts=3) / "curate"
    (small_disk / "filled").write_bytes(bytes(250_000))
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with pytest.raises(UserError, match=rf"{small_disk}.*set TMPDIR"):
        scored(curate_dir)
    assert [path.name for path in small_disk.iterdir()] == ["filled"]


def test_a_run_without_other_captions_has_no_null(tmp_path, write_scored):
    alone = scored(write_scored(tmp_path / "a", caption="the same") / "curate")
    assert (
        "no image can be paired with a caption of another"
        in list(calibrate.lines(alone, [], 0.1, False))[-1]
    )


def test_common_pairs_are_those_of_equal_keys_and_captions(tmp_path, write_scored):
    """Two runs of 400 pairs each, of which the second has the first 250 and others; the null is of these alone."""
    here = scored(write_scored(tmp_path / "a") / "curate")
    there = scored(write_scored(tmp_path / "b", clip="there", renamed=250) / "curate")
    both = here.common(there)
    assert len(both.own) == 249  # one was not scored
    assert {*both.own} < {*here.own}
    assert 249 * 3 < len(both.null().similarities) <= 249 * 4
    folder = here.folder.path
    assert folder.is_dir()
    del here, both
    assert not folder.exists()


def test_the_null_is_that_of_all_rows_in_memory(tmp_path, write_scored):
    run_dir = write_scored(tmp_path / "a", parts=7)
    parts = sorted((run_dir / "curate/annotations").glob("*.parquet"))
    table = pd.concat(map(pd.read_parquet, parts), ignore_index=True)
    expected = naive_shuffled_captions.shuffled(table, Embeddings(parts)).similarities
    here = scored(run_dir / "curate")
    np.testing.assert_array_equal(here.null().similarities, expected)
    np.testing.assert_array_equal(here.own, np.sort(table["clip_similarity"].dropna()))
