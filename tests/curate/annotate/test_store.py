"""Runs share what they measured: by content alone, whole, without removed pictures, and to the same bytes."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curate import readers
from curate.annotate import measurer as measure
from curate.annotate import stage, store
from curate.annotate.config import AnnotateConfig
from curate.annotate.parts import read_part
from curate.annotate.spec import AnnotationSpec
from curate.clip import models
from curate.clip import scorer as clip
from curate.clip.config import ClipConfig
from curate.clip.load import load_clip
from curate.filters.caption import CaptionFilterConfig
from curate.filters.image import ImageFilterConfig
from curate.filters.prefilter import Prefilter
from curate.measures import registry
from curate.measures.decode import decode
from curate.readers.candidate import Candidate
from curate.readers.folder import FolderConfig
from curate.readers.source import Source
from curate.run.files import sha256_of
from curate.run.locks import locked
from curate.run.removals import Removals
from curate.run.schema import Busy
from tests.curate.measures.test_consent import chunk, element

NOTHING = {"decoded": 0, "images": 0, "texts": 0}


@pytest.fixture
def counted(monkeypatch):
    """What was decoded and what CLIP encoded since the last look."""
    seen = dict(NOTHING)
    encode_pixels, encode_texts = clip.ClipScorer.encode_pixels, clip.ClipScorer.encode_texts

    def counting(name, amount, result):
        seen[name] += amount
        return result

    monkeypatch.setattr(measure, "decode", lambda *a: counting("decoded", 1, decode(*a)))
    monkeypatch.setattr(
        clip.ClipScorer,
        "encode_pixels",
        lambda self, pixels: counting("images", len(pixels), encode_pixels(self, pixels)),
    )
    monkeypatch.setattr(
        clip.ClipScorer,
        "encode_texts",
        lambda self, texts: counting("texts", len(texts), encode_texts(self, texts)),
    )

    def look():
        found = dict(seen)
        seen.update(NOTHING)
        return found

    return look


@pytest.fixture
def root(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def run(tiny_clip, root):
    """Annotate a folder or source in a run of some name; gives its parts by name, as bytes."""
    scorer = load_clip(ClipConfig(name=f"local-dir:{tiny_clip}", device="cpu", batch_size=8))

    def annotated(
        name, pictures, *, shared=True, image=None, caption=None, measures=(), removed=(), **config
    ):
        source = pictures
        if not isinstance(source, Source):
            source = readers.read(FolderConfig(name="x", reader="folder", root=str(pictures)))
        prefilter = Prefilter(image or ImageFilterConfig(), caption or CaptionFilterConfig())
        spec = AnnotationSpec("tiny 0", prefilter, registry.versions(measures))
        folder = store.folder_of(root / ".cache", spec, "cpu-8")
        removals = Removals(sha256=frozenset(removed))
        found = stage.annotate(
            source,
            stage.Measure(
                root / name / "curate/annotations",
                AnnotateConfig(**{"images_per_part": 5, **config}),
                spec,
                lambda: scorer,
                store.StorePlace(folder, removals) if shared else None,
            ),
        )
        return {path.name: path.read_bytes() for path in found.parts}

    return annotated


def parts_of(root):
    return sorted((root / ".cache/annotations").glob("*/part-*.parquet"))


def stored(root, column="sha256"):
    """The values of a column of all parts of the store, each row once."""
    return [value for path in parts_of(root) for value in read_part(path)[column].to_pylist()]


def test_a_new_run_measures_only_what_is_new(run, make_pictures, tmp_path, counted, capsys):
    run("a", make_pictures(tmp_path / "pictures", 40))
    assert counted() == {"decoded": 40, "images": 40, "texts": 40}
    more = make_pictures(tmp_path / "pictures", 42)  # the first 40 are written again as they were
    parts = run("b", more)
    assert counted() == {"decoded": 2, "images": 2, "texts": 2}
    assert "40 images and 40 captions were measured before" in capsys.readouterr().out
    assert run("alone", more, shared=False) == parts


def test_what_is_new_here_and_there_is_encoded_together(run, make_pictures, tmp_path, monkeypatch):
    """The model fills up each of its batches: a call for each three new pictures would cost as all of them."""
    monkeypatch.setattr(measure, "BATCH", 8)
    pictures = make_pictures(tmp_path / "pictures", 64)
    source = readers.read(FolderConfig(name="x", reader="folder", root=str(pictures)))
    known = [c for number, c in enumerate(source.candidates()) if number % 8]
    run("a", Source.of(known, source.load))
    real, calls = clip.ClipScorer.encode_pixels, []

    def encode(self, pixels):
        calls.append(len(pixels))
        return real(self, pixels)

    monkeypatch.setattr(clip.ClipScorer, "encode_pixels", encode)
    parts = run("b", pictures, images_per_part=64)
    assert calls == [8]
    assert run("alone", pictures, images_per_part=64, shared=False) == parts


def test_no_model_is_loaded_where_nothing_is_new(run, make_pictures, tmp_path, monkeypatch):
    pictures = make_pictures(tmp_path / "pictures", 7)
    run("a", pictures)
    for name in ("encode_pixels", "encode_texts", "image_px"):
        monkeypatch.setattr(clip.ClipScorer, name, lambda *_: pytest.fail("was used"))
    run("b", pictures, images_per_part=3)


@pytest.mark.parametrize("measures", [[], ["quality"]])
def test_the_parts_are_those_of_a_run_that_shares_nothing(
    run, make_pictures, tmp_path, counted, measures
):
    """Whatever was shared before: under looser and tighter rules, by other cuts, orders and names."""
    pictures = make_pictures(tmp_path / "pictures", 12)
    for number in (3, 7):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(pictures / f"{number:04d}.png")
    (pictures / "0005.txt").write_text("x")
    (pictures / "0006.png").write_bytes(b"no picture")
    tight = {
        "image": ImageFilterConfig(min_side_px=16),
        "caption": CaptionFilterConfig(min_words=2),
    }
    run("loose", pictures, measures=["quality"], images_per_part=4)
    shutil.copy(pictures / "0001.png", pictures / "b.png")
    (pictures / "b.txt").write_text("a copy of another caption")
    for name, rules in (("tight", tight), ("same", {})):
        counted()
        with_store = run(name, pictures, measures=measures, **rules)
        assert counted()["images"] == 0
        assert (
            run(f"{name} alone", pictures, shared=False, measures=measures, **rules) == with_store
        )


def bitmaps(folder, blue):
    """Pictures of one size in bytes, of the same names and times wherever they are."""
    folder.mkdir(parents=True)
    for number in range(3):
        path = folder / f"{number}.bmp"
        Image.new("RGB", (20, 20), (9 * number, 0, blue)).save(path)
        (folder / f"{number}.txt").write_text("a plain square")
    return folder


def test_equal_keys_locations_and_versions_of_other_bytes_are_measured(run, tmp_path, root):
    """As tars, caches of hub data sets and file systems without inodes give them."""
    for name, blue in (("a", 0), ("b", 200)):
        folder = bitmaps(tmp_path / name, blue)
        candidates = [
            Candidate(f"{n}", ("a plain square",), "x", f"{n}.bmp", "1") for n in range(3)
        ]
        source = Source.of(
            candidates, lambda location, folder=folder: (folder / location).read_bytes()
        )
        run(name, source)
        [part] = (root / name / "curate/annotations").glob("part-*.parquet")
        expected = [sha256_of(folder / f"{n}.bmp") for n in range(3)]
        assert read_part(part)["sha256"].to_pylist() == expected


def test_another_clip_device_or_batch_shares_nothing(tiny_clip, tmp_path):
    spec = AnnotationSpec("tiny 0", Prefilter(ImageFilterConfig(), CaptionFilterConfig()))
    other = AnnotationSpec("tiny 1", spec.prefilter)
    config = {"name": f"local-dir:{tiny_clip}"}
    assert models.arithmetic(ClipConfig(**config, device="cpu")) == "cpu-32"
    eight = models.arithmetic(ClipConfig(**config, device="cpu", batch_size=8))
    folders = {store.folder_of(tmp_path, each, eight) for each in (spec, other)}
    folders |= {store.folder_of(tmp_path, spec, name) for name in ("cpu-32", "cuda-8")}
    assert len(folders) == 4


def test_a_measure_that_another_run_did_not_take_is_taken_once(
    run, make_pictures, tmp_path, counted
):
    pictures = make_pictures(tmp_path / "pictures", 12)
    run("a", pictures)
    counted()
    run("b", pictures, measures=["quality"])
    assert counted() == {"decoded": 12, "images": 0, "texts": 0}
    run("c", pictures, measures=["quality"])
    run("d", pictures)
    assert counted() == NOTHING


def saved_with_xmp(path, term):
    """Let a PNG say something of its use."""
    whole = path.read_bytes()
    text = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + element(term))
    path.write_bytes(whole[:33] + text + whole[33:])
    return term


def consent_of(root, name):
    """What a run's parts say of consent, by key."""
    parts = (root / name / "curate/annotations").glob("part-*.parquet")
    return {row["key"]: row["data_mining"] for part in parts for row in read_part(part).to_pylist()}


@pytest.mark.parametrize("shared", [True, False])
def test_what_only_the_bytes_say_decodes_nothing(
    run, make_pictures, tmp_path, counted, root, shared
):
    """A default that begins to ask for consent must not decode the pictures of all earlier runs."""
    pictures = make_pictures(tmp_path / "pictures", 12)
    said = saved_with_xmp(pictures / "0003.png", "DMI-PROHIBITED")
    before = run("a", pictures, shared=shared)
    counted()
    parts = run("a", pictures, shared=shared, measures=["consent"])
    assert counted() == NOTHING
    assert consent_of(root, "a") == {f"{n:04d}": said if n == 3 else None for n in range(12)}
    assert parts == run("at once", pictures, shared=False, measures=["consent"])  # to the byte
    assert run("a", pictures, shared=shared) == parts
    assert run("without", pictures, shared=False) == before


def test_what_only_the_bytes_say_of_another_runs_pictures_decodes_nothing(
    run, make_pictures, tmp_path, counted, root, monkeypatch
):
    pictures = make_pictures(tmp_path / "pictures", 12)
    saved_with_xmp(pictures / "0003.png", "DMI-PROHIBITED")
    run("a", pictures)
    counted()
    parts = run("b", pictures, measures=["consent"])
    assert counted() == NOTHING
    assert parts == run("at once", pictures, shared=False, measures=["consent"])
    counted()
    monkeypatch.setattr("curate.measures.xmp.packets", lambda data: pytest.fail("was measured"))
    assert run("c", pictures, measures=["consent"]) == parts  # it is in the store by now
    assert counted() == NOTHING


def test_where_pixels_are_measured_as_well_they_are_decoded(
    run, make_pictures, tmp_path, counted, root
):
    pictures = make_pictures(tmp_path / "pictures", 12)
    run("a", pictures)
    counted()
    parts = run("a", pictures, measures=["consent", "quality"])
    assert counted() == {"decoded": 12, "images": 0, "texts": 0}
    assert parts == run("at once", pictures, shared=False, measures=["consent", "quality"])


def test_what_is_new_takes_room_once(run, make_pictures, tmp_path, root):
    """New parts are linked, what is new of old ones is written; what is known is not stored again."""
    pictures = make_pictures(tmp_path / "pictures", 20)
    run("a", pictures)
    own = sorted((root / "a/curate/annotations").glob("part-*.parquet"))
    assert {path.stat().st_ino for path in parts_of(root)} == {path.stat().st_ino for path in own}
    run("b", pictures, images_per_part=3)
    assert len(parts_of(root)) == len(own)
    run("c", make_pictures(tmp_path / "pictures", 22), images_per_part=11)
    new = [path for path in parts_of(root) if path.stat().st_nlink == 1]
    assert [len(read_part(path)) for path in new] == [2]
    assert len(stored(root)) == len(set(stored(root))) == 22
    shutil.rmtree(root / "a")
    assert len(set(stored(root))) == 22


def test_a_file_system_without_links_gets_copies(
    run, make_pictures, tmp_path, counted, root, monkeypatch
):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    pictures = make_pictures(tmp_path / "pictures", 7)
    run("a", pictures)
    assert {path.stat().st_nlink for path in parts_of(root)} == {1}
    counted()
    run("b", pictures)
    assert counted() == NOTHING


def test_a_new_caption_of_a_known_picture_is_shared(run, make_pictures, tmp_path, counted):
    pictures = make_pictures(tmp_path / "pictures", 5)
    run("a", pictures)
    (pictures / "0002.txt").write_text("another caption")
    counted()
    run("b", pictures)
    assert counted() == {"decoded": 0, "images": 0, "texts": 1}
    run("c", pictures, images_per_part=2)
    assert counted() == NOTHING


def damage(path, how):
    content = path.read_bytes()
    path.unlink()  # the run's own has the same content under another name
    path.write_bytes(how(content))


@pytest.mark.parametrize(
    "how",
    [
        lambda content: content[:-5],
        lambda content: b"",
        lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:],
    ],
)
def test_a_damaged_part_is_deleted_with_a_line_and_measured_again(
    run, make_pictures, tmp_path, counted, root, capsys, how
):
    pictures = make_pictures(tmp_path / "pictures", 10)
    whole = run("a", pictures)
    damaged = parts_of(root)[0]
    damage(damaged, how)
    counted()
    assert run("b", pictures) == whole
    assert counted() == {"decoded": 5, "images": 5, "texts": 5}
    assert f"{damaged} is damaged; it was deleted" in capsys.readouterr().out
    run("c", pictures)
    assert counted() == NOTHING


@pytest.mark.parametrize("lost", ["gone", "damaged"])
def test_what_gets_lost_under_a_curation_is_measured(
    run, make_pictures, tmp_path, counted, root, monkeypatch, lost
):
    """After the parts were indexed: a removal deletes some, or the disk loses them."""
    pictures = make_pictures(tmp_path / "pictures", 10)
    whole = run("a", pictures)
    real = store.SharedStore.__init__

    def losing(self, *arguments):
        real(self, *arguments)
        for path in parts_of(root):
            damage(path, lambda content: content[:-9]) if lost == "damaged" else path.unlink()

    monkeypatch.setattr(store.SharedStore, "__init__", losing)
    counted()
    assert run("b", pictures) == whole
    assert counted() == {"decoded": 10, "images": 10, "texts": 10}


def test_removed_pictures_leave_the_store_and_the_record_stays(
    run, make_pictures, tmp_path, counted, root
):
    pictures = make_pictures(tmp_path / "pictures", 12)
    (pictures / "0007.txt").write_text((pictures / "0001.txt").read_text())
    own = run("a", pictures)
    gone = {sha256_of(pictures / f"{number:04d}.png") for number in (1, 2)}
    before = {path.stat().st_mtime_ns for path in parts_of(root)}
    assert store.take_out(root / ".cache", gone) == 2
    assert store.take_out(root / ".cache", gone) == 0
    assert not gone & set(stored(root))
    assert len(stored(root)) == 10
    assert {path.stat().st_mtime_ns for path in parts_of(root)} <= before  # no use
    for path in parts_of(root):
        content = path.read_bytes()
        assert not any(digest.encode() in content for digest in gone)
    counted()
    assert run("b", pictures) == own
    # The first caption is another picture's, too.
    assert counted() == {"decoded": 2, "images": 2, "texts": 1}
    assert run("a", pictures) == own


def test_a_part_of_removed_pictures_alone_goes(run, make_pictures, tmp_path, root):
    pictures = make_pictures(tmp_path / "pictures", 5)
    run("a", pictures)
    store.take_out(root / ".cache", {sha256_of(path) for path in pictures.glob("*.png")})
    assert parts_of(root) == []


def test_what_was_removed_from_a_run_does_not_come_back_by_it(run, make_pictures, tmp_path, root):
    pictures = make_pictures(tmp_path / "pictures", 12)
    gone = sha256_of(pictures / "0001.png")
    run("a", pictures)
    store.take_out(root / ".cache", {gone})
    run("a", make_pictures(tmp_path / "pictures", 15), removed=[gone], images_per_part=15)
    assert gone not in stored(root)
    assert len(set(stored(root))) == 14


def test_curations_at_once_share_and_do_not_disturb_each_other(
    run, make_pictures, tmp_path, monkeypatch, counted
):
    """The second one measures everything while the first one is at its first part."""
    pictures = make_pictures(tmp_path / "pictures", 12)
    real, others = clip.ClipScorer.encode_texts, []

    def meanwhile(self, texts):
        if not others:
            others.append(None)
            others.append(run("other", pictures))
        return real(self, texts)

    monkeypatch.setattr(clip.ClipScorer, "encode_texts", meanwhile)
    assert run("first", pictures) == others[1]
    counted()
    run("third", pictures, images_per_part=4)
    assert counted() == NOTHING


def test_a_curation_holds_the_folder_and_says_when_it_was_used(
    run, make_pictures, tmp_path, root, monkeypatch
):
    pictures = make_pictures(tmp_path / "pictures", 10)
    run("a", pictures)
    used, other = parts_of(root)
    shutil.copy(other, saved := tmp_path / "saved")
    for path in (used, other):
        os.utime(path, ns=(5, 5))
    real = measure.Measurer.measure

    def held(self, *arguments):
        with pytest.raises(Busy), locked(used.parent):
            pass
        return real(self, *arguments)

    monkeypatch.setattr(measure.Measurer, "measure", held)
    some = readers.read(FolderConfig(name="x", reader="folder", root=str(pictures), limit=3))
    run("b", some)
    assert saved.read_bytes() == other.read_bytes()
    known = {path: set(read_part(path)["key"].to_pylist()) for path in (used, other)}
    touched = {path for path in known if time.time_ns() - path.stat().st_mtime_ns < 60e9}
    assert touched == {path for path in known if "0001" in known[path]}
    with locked(used.parent):
        pass


def test_temporary_files_of_killed_writers_go_after_an_hour(run, make_pictures, tmp_path, root):
    pictures = make_pictures(tmp_path / "pictures", 3)
    run("a", pictures)
    folder = parts_of(root)[0].parent
    old, young = folder / ".part-x.parquet.1.part", folder / ".part-y.parquet.2.part"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    run("b", pictures)
    assert not old.exists()
    assert young.exists()


def test_rows_are_new_by_picture_and_by_caption(tmp_path):
    """Against a reckoning by hand: which images of a part hold anything that the store lacks."""
    spec = AnnotationSpec("tiny 0", Prefilter(ImageFilterConfig(), CaptionFilterConfig()))
    vector = np.ones(2, np.float32).tobytes()

    def part(*rows):
        columns = ("key", "caption_index", "sha256", "caption")
        table = pa.table({name: [row[n] for row in rows] for n, name in enumerate(columns)})
        vectors = [None if row[1] or row[2] == "broken" else vector for row in rows]
        scored = [None if row[2] == "broken" else 0.5 for row in rows]
        filled = {"version": [""] * len(rows), "pixels_sha256": [row[2].strip("-") for row in rows]}
        filled |= {"image_embedding": pa.array(vectors, pa.binary())}
        filled |= {"clip_similarity": pa.array(scored, pa.float32())}
        for name, values in filled.items():
            table = table.append_column(
                name, pa.array(values) if isinstance(values, list) else values
            )
        return table

    removals = Removals(keys=frozenset(["gone"]))
    shared = store.SharedStore(store.StorePlace(tmp_path, removals), spec)
    shared.add(tmp_path / "known", part(("k", 0, "A", "a cat"), ("k", 1, "A", "a dog")))
    rows = [
        (("old", 0, "A", "a dog"), False),
        (("more", 0, "A", "a cat"), True),
        (("more", 1, "A", "a new one"), True),
        (("b", 0, "broken", "whatever"), False),
        (("u", 0, "-", "a cat"), False),  # not decoded, as the prefilter keeps it out now
        (("n", 0, "B", "a cat"), True),
        (("n", 1, "B", "a dog"), True),
        (("gone", 0, "C", "a cat"), False),
    ]
    new, whole = shared._new_rows(part(*(row for row, _ in rows)))
    assert new.tolist() == [expected for _, expected in rows]
    assert not whole


KILLED = """
import sys, os, signal, itertools
from pathlib import Path
from curate.run import files
real, left = Path.replace, int(sys.argv.pop())
steps = itertools.count()
def counted(change):
    def changed(*arguments, **options):
        if next(steps) == left:
            os.kill(os.getpid(), signal.SIGKILL)
        return change(*arguments, **options)
    return changed
Path.replace = counted(Path.replace)
os.link = counted(os.link)
from curate.__main__ import main
from curate.run import cli
cli.run(main, "curate", start_bare=False)
"""


@pytest.mark.slow
def test_killed_at_any_file_the_next_runs_are_the_same(
    tiny_clip, make_pictures, bytes_of, tmp_path
):
    """Between any two changes of names; the same command, and then another run, end with the same bytes."""
    repository = Path(__file__).resolve().parents[3]
    pictures = make_pictures(tmp_path / "pictures", 24)

    def command(root, name):
        return [
            "dataset=folder", f"dataset.root={pictures}", f"run.name={name}",
            f"run.root={tmp_path / root}", "clip=custom", f"clip.name=local-dir:{tiny_clip}",
            "clip.batch_size=8", "clip.device=cpu", "filters.clip_similarity.fraction=0.75",
            "annotate.images_per_part=8", "shards.max_samples=40",
        ]  # fmt: skip

    def curate(root, name):
        arguments = [sys.executable, "-m", "curate", *command(root, name)]
        subprocess.run(arguments, cwd=repository, check=True, capture_output=True)
        return bytes_of(tmp_path / root / name / "curate")

    whole = curate("straight", "a")
    for left in (1, 2, 3, 5):
        killed = [sys.executable, "-c", KILLED, *command(f"killed{left}", "a"), str(left)]
        done = subprocess.run(killed, cwd=repository, capture_output=True)
        assert done.returncode == -9, done.stderr.decode()
        assert curate(f"killed{left}", "a") == whole
        assert curate(f"killed{left}", "b") == whole


def test_a_hash_of_the_folder_is_no_secret_of_python(tmp_path):
    """The same in every process, or no run would find what another one stored."""
    spec = AnnotationSpec("tiny 0", Prefilter(ImageFilterConfig(), CaptionFilterConfig()))
    digest = hashlib.sha256(b"4 tiny 0").hexdigest()[:16]
    assert store.folder_of(tmp_path, spec, "cpu-8") == tmp_path / "annotations" / f"{digest}-cpu-8"
