"""Two curations of a series, whole: the table between them, the manifest, notes, report and the story of a picture."""

import html
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from curate import readers
from curate.annotate.config import AnnotateConfig
from curate.clip.config import ClipConfig
from curate.decide.config import HELD_OUT, SplitConfig
from curate.decide.frozen import HeldOutAgain
from curate.decide.held_out import held_out_table, merged, read, write
from curate.explain import explain
from curate.filters.config import FiltersConfig
from curate.pack.config import ShardsConfig
from curate.pack.sample import read_shard
from curate.pipeline import fingerprints, trial
from curate.pipeline import full as pipeline
from curate.pipeline.config import CurateConfig
from curate.readers.folder import FolderConfig
from curate.run import ledger
from curate.run.config import RunConfig
from curate.run.manifest import read_funnel, read_manifest
from curate.run.provenance import read_config
from curate.run.schema import UserError

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def config(tiny_clip, make_pictures, tmp_path):
    return CurateConfig(
        run=RunConfig(root=str(tmp_path / "runs"), name="s-0001"),
        dataset=FolderConfig(
            name="small", reader="folder", root=str(make_pictures(tmp_path / "pictures", 60))
        ),
        clip=ClipConfig(name=f"local-dir:{tiny_clip}", device="cpu", batch_size=16),
        filters=FiltersConfig(),
        split=SplitConfig(val=0.1, test=0.1, minimum=6, siblings=False),
        shards=ShardsConfig(max_samples=100),
        annotate=AnnotateConfig(images_per_part=40),
    )


def run(config, name, table=None):
    config.run.name = name
    config.split.held_out = None if table is None else str(table)
    pipeline.run(config, readers.read(config.dataset))
    return config.run.folder / "curate"


def sides(curate_dir):
    rows = ledger.read(curate_dir).query("kept").drop_duplicates("key")
    return dict(zip(rows["key"], rows["split"], strict=True))


def save_again(folder, key, name, brighter=0):
    """The picture ``key`` in a file of other bytes, as ``name``; its caption beside it."""
    image = Image.open(folder / f"{key}.png").point(lambda value: min(255, value + brighter))
    image.save(folder / f"{name}.png", compress_level=1)
    shutil.copy(folder / f"{key}.txt", folder / f"{name}.txt")


@pytest.mark.slow
def test_a_series_of_two(config, tmp_path, capsys):
    folder, table = Path(config.dataset.root), tmp_path / "s-series" / "heldout_keys.parquet"
    first = run(config, "s-0001")
    before = sides(first)
    write(table, held_out_table(first))
    listed = read(table)
    assert set(listed["key"]) == {key for key, side in before.items() if side in HELD_OUT}
    assert (listed["pixels_sha256"].str.len() >= 16).all()
    ours = sorted(listed["key"])

    save_again(folder, ours[0], "renamed")  # the same pixels, and the first file is gone
    (folder / f"{ours[0]}.png").unlink()
    (folder / f"{ours[0]}.txt").unlink()
    save_again(folder, ours[1], "copy", brighter=3)  # beside the first file, whose group it joins
    picture = Image.open(folder / f"{ours[2]}.png").transpose(Image.Transpose.ROTATE_180)
    picture.save(folder / f"{ours[2]}.png")  # another picture under the key
    (folder / f"{ours[3]}.txt").write_text("")  # dropped by a filter now

    config.filters.duplicates.exact = False
    second = run(config, "s-0002", table)
    after = sides(second)
    by = ledger.read(second).set_index("key")["held_out_by"]
    assert after["renamed"] == before[ours[0]]
    assert by["renamed"] == "renamed"
    assert after["copy"] == after[ours[1]] == before[ours[1]]
    assert by["copy"] == ours[1]
    assert by[ours[2]] == ""
    assert all(after[key] == before[key] for key in ours[4:])

    count = len(listed)
    note = f"2 of {count} pictures of split.held_out are not held out here: 1 dropped by empty_caption, 1 replaced by"
    assert note in capsys.readouterr().out
    funnel = read_funnel(second)
    assert any(note in said for said in funnel["notes"])
    again = funnel["split"]["held_out_again"]
    assert (again["listed"], again["joined"], sum(again["sides"].values())) == (count, 1, count - 2)
    page = html.unescape((second / "report.html").read_text())
    assert note in page
    assert f"Held out again, by split.held_out: {count - 2} of {count} pictures" in page
    assert read_config(second / "config.yaml")["split"]["held_out"] == str(table)

    itself, joined, plain = explain(second, [ours[4], "copy", next(k for k in after if not by[k])])
    assert f"split        {before[ours[4]]}, as an earlier curation held it out (split" in itself
    assert f"{after['copy']}, as {ours[1]} is in its group, which an earlier curation" in joined
    assert "earlier curation" not in plain
    assert "held_out_by" not in itself + joined + plain
    for shard in read_manifest(second).shards:
        assert "held_out_by" not in pd.read_parquet(second / shard.path.replace(".tar", ".parquet"))
        assert all("held_out_by" not in s.meta for s in read_shard(second / shard.path))

    grown = merged(listed, held_out_table(second))
    assert {"renamed", "copy", *ours} <= set(grown["key"])
    splits = [read_manifest(folder).fingerprint["split"] for folder in (first, second)]
    assert splits[0] != splits[1]
    listed.drop(columns="sha256").to_parquet(table)
    with pytest.raises(UserError, match="lacks sha256"):
        trial.run(config, readers.read(config.dataset))


def test_the_manifest_follows_the_rows_of_the_table_and_not_its_name():
    digests = {
        fingerprints._digest_of_split(SplitConfig(held_out=name), again)
        for name, again in [
            ("a.parquet", HeldOutAgain("1" * 64, 5, {"val": 5})),
            (
                "b.parquet",
                HeldOutAgain("1" * 64, 5, {"val": 4}, {"gone": 1}),
            ),  # less of it is there
            ("a.parquet", HeldOutAgain("2" * 64, 5, {"val": 5})),
            (None, None),
        ]
    }
    assert len(digests) == 3


def test_without_a_table_the_fingerprint_is_that_of_earlier_versions():
    known = {"val": 0.05, "test": 0.05, "minimum": 128, "seed": 0}
    known |= {"hamming_distance": 4, "siblings": True}
    assert fingerprints._digest_of_split(SplitConfig(), None) == fingerprints._digest(known)


def test_a_wrong_table_is_refused_before_anything_is_made(tmp_path, make_pictures):
    root = make_pictures(tmp_path / "pictures", 3)
    wrong = tmp_path / "my table.parquet"
    pd.DataFrame({"key": ["a"]}).to_parquet(wrong)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "curate", "dataset=folder", f"dataset.root={root}",
         f"run.root={tmp_path / 'runs'}", f"split.held_out={wrong}"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert f"split.held_out={wrong} is no table of held-out pictures: it lacks sha256" in said[0]
    assert not any(line.endswith((" torch", " open_clip")) for line in done.stderr.splitlines())
    assert not (tmp_path / "runs").exists()
