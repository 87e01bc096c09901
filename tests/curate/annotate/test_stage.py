"""Measuring: nothing twice, nothing that a cheap rule makes useless, and parts that say what they hold."""

import errno
import json
import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate import readers
from curate.annotate import known, rejects, store
from curate.annotate import measurer as measure
from curate.annotate import stage as annotate
from curate.annotate.config import AnnotateConfig
from curate.annotate.embeddings import Embeddings
from curate.annotate.frame import frame_of
from curate.annotate.layout import Layout
from curate.annotate.parts import METADATA, current_parts, part_head, read_part
from curate.annotate.spec import AnnotationSpec
from curate.clip import scorer as clip
from curate.clip.config import ClipConfig
from curate.clip.load import load_clip
from curate.filters.caption import CaptionFilterConfig
from curate.filters.image import ImageFilterConfig
from curate.filters.prefilter import Prefilter
from curate.measures.decode import decode
from curate.measures.not_fetched import error_of, location_of
from curate.measures.unreadable import CANNOT_BE_READ, UnreadableImage
from curate.readers.candidate import Candidate
from curate.readers.folder import FolderConfig
from curate.readers.source import Source
from curate.run import parquet
from curate.run.files import sha256_of
from curate.run.schema import UserError


@pytest.fixture
def counted(monkeypatch):
    """What was decoded and what CLIP encoded since the last look."""
    seen = {"decoded": 0, "images": 0, "texts": 0}
    encode_pixels, encode_texts = clip.ClipScorer.encode_pixels, clip.ClipScorer.encode_texts

    def count(name, amount, result):
        seen[name] += amount
        return result

    monkeypatch.setattr(measure, "decode", lambda *a: count("decoded", 1, decode(*a)))
    monkeypatch.setattr(
        clip.ClipScorer,
        "encode_pixels",
        lambda self, pixels: count("images", len(pixels), encode_pixels(self, pixels)),
    )
    monkeypatch.setattr(
        clip.ClipScorer,
        "encode_texts",
        lambda self, texts: count("texts", len(texts), encode_texts(self, texts)),
    )

    def look():
        found = dict(seen)
        seen.update(dict.fromkeys(seen, 0))
        return found

    return look


@pytest.fixture
def run(tiny_clip, tmp_path):
    """Annotate a folder and return its rows."""
    scorer = load_clip(ClipConfig(name=f"local-dir:{tiny_clip}", device="cpu"))

    def annotated(root, image=None, caption=None, **config):
        source = root
        if not isinstance(root, Source):
            source = readers.read(FolderConfig(name="x", reader="folder", root=str(root)))
        prefilter = Prefilter(image or ImageFilterConfig(), caption or CaptionFilterConfig())
        found = annotate.annotate(
            source,
            annotate.Measure(
                tmp_path / "annotations",
                AnnotateConfig(**{"images_per_part": 5, **config}),
                AnnotationSpec(
                    f"tiny {config.get('draft', 0)}", prefilter, {}, config.get("draft", False)
                ),
                lambda: scorer,
            ),
        )
        assert current_parts(tmp_path / "annotations") == found.parts
        rows = [row for path in found.parts for row in pq.read_table(path).to_pylist()]
        assert len(rows) == found.pairs
        return rows

    return annotated


def flip(part, column):
    """Turn every bit of a part's column."""
    names = pq.read_schema(part).names
    chunk = pq.read_metadata(part).row_group(0).column(names.index(column))
    data = bytearray(part.read_bytes())
    start = min(chunk.dictionary_page_offset or chunk.data_page_offset, chunk.data_page_offset)
    for place in range(start, start + chunk.total_compressed_size):
        data[place] ^= 0xFF
    part.write_bytes(data)


SPEC = AnnotationSpec("tiny 0", Prefilter(ImageFilterConfig(), CaptionFilterConfig()))
NOTHING = {"decoded": 0, "images": 0, "texts": 0}


def test_what_fails_a_cheap_rule_is_neither_decoded_nor_scored(
    run, make_pictures, tmp_path, counted
):
    root = make_pictures(tmp_path / "mixed", 12)  # 40 x 32
    for number in (3, 7):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(root / f"{number:04d}.png")
    (root / "0005.txt").write_text("x")
    rows = run(root, ImageFilterConfig(min_side_px=16), CaptionFilterConfig(min_characters=2))
    assert counted() == {"decoded": 9, "images": 9, "texts": 9}
    unmeasured = {row["key"] for row in rows if row["clip_similarity"] is None}
    assert unmeasured == {"0003", "0005", "0007"}
    assert {(row["width"], row["height"]) for row in rows if row["key"] == "0003"} == {(8, 8)}
    assert all(row["sha256"] and not row["error"] for row in rows)


def test_a_looser_prefilter_measures_what_passes_now_and_a_tighter_one_nothing(
    run, make_pictures, tmp_path, counted
):
    root = make_pictures(tmp_path / "mixed", 12)
    Image.new("RGB", (8, 8)).save(root / "0003.png")
    tight, loose = ImageFilterConfig(min_side_px=16), ImageFilterConfig(min_side_px=8)
    run(root, tight)
    counted()
    run(root, ImageFilterConfig(min_side_px=20))
    assert counted() == NOTHING
    rows = run(root, loose)
    assert counted() == {"decoded": 1, "images": 1, "texts": 1}
    assert all(row["clip_similarity"] is not None for row in rows)
    run(root, tight)
    assert counted() == NOTHING


def test_another_order_and_other_names_measure_nothing(run, make_pictures, tmp_path, counted):
    root = make_pictures(tmp_path / "pictures", 12)
    before = {row["sha256"]: row for row in run(root)}
    counted()
    for number in range(12):
        for suffix in ("png", "txt"):
            (root / f"{number:04d}.{suffix}").rename(root / f"b{99 - number}.{suffix}")
    after = run(root)
    assert counted() == NOTHING
    for row in after:
        assert row["clip_similarity"] == before[row["sha256"]]["clip_similarity"]


def bitmaps(folder, count, blue):
    """Pictures of one size in bytes, from one moment."""
    folder.mkdir(parents=True)
    for number in range(count):
        path = folder / f"{number}.bmp"
        Image.new("RGB", (20, 20), (9 * number, 0, blue)).save(path)
        (folder / f"{number}.txt").write_text("a plain square")
        os.utime(path, ns=(0, 0))
    return folder


def sha256_below(root):
    return {path.stem: sha256_of(path) for path in root.glob("*.bmp")}


def test_another_folder_with_equal_names_sizes_and_times_is_measured(run, tmp_path, counted):
    one, two = bitmaps(tmp_path / "one", 3, 0), bitmaps(tmp_path / "two", 3, 200)
    run(one)
    counted()
    assert {row["key"]: row["sha256"] for row in run(two)} == sha256_below(two)
    assert counted()["images"] == 3


def test_a_picture_that_was_replaced_by_one_of_equal_size_and_time_is_measured(
    run, tmp_path, counted
):
    root, other = bitmaps(tmp_path / "one", 3, 0), bitmaps(tmp_path / "two", 3, 200)
    run(root)
    counted()
    (root / "0.bmp").write_bytes((other / "0.bmp").read_bytes())  # written in place
    os.utime(root / "0.bmp", ns=(0, 0))
    (other / "2.bmp").rename(root / "2.bmp")
    assert {row["key"]: row["sha256"] for row in run(root)} == sha256_below(root)
    assert counted()["images"] == 2


def test_a_data_set_that_was_moved_is_read_and_not_measured(run, make_pictures, tmp_path, counted):
    before = run(make_pictures(tmp_path / "here", 7))
    counted()
    moved = (tmp_path / "here").rename(tmp_path / "there")
    unchanged = [row | {"version": ""} for row in run(moved)]
    assert counted() == NOTHING
    assert unchanged == [row | {"version": ""} for row in before]


@pytest.mark.parametrize("batch", [1, 64])
def test_pictures_of_equal_bytes_and_equal_captions_cost_one(
    run, tmp_path, counted, batch, monkeypatch
):
    monkeypatch.setattr(measure, "BATCH", batch)
    root = tmp_path / "copies"
    root.mkdir()
    for number in range(12):
        Image.new("RGB", (40, 32), (10 * (number % 2), 0, 0)).save(root / f"{number:02d}.png")
        (root / f"{number:02d}.txt").write_text("the same caption")
    rows = run(root, images_per_part=4)
    assert counted() == {"decoded": 2, "images": 2, "texts": 1}
    assert len({row["clip_similarity"] for row in rows}) == 2


def test_a_file_that_could_not_be_read_is_tried_again(run, tmp_path):
    answers = iter([None, b"still not an image"])

    def load(location):
        data = next(answers)
        if data is None:
            raise UnreadableImage(f"{CANNOT_BE_READ} (Permission denied)")
        return data

    source = Source.of([Candidate("k", ("x",), "s", "here", "1")], load)
    [row] = run(source, max_reject_rate=1.0)
    assert row["error"].startswith(CANNOT_BE_READ)
    [row] = run(source, max_reject_rate=1.0)
    assert row["error"] == "not an image"


def test_a_key_that_comes_twice_stops_the_run_wherever_it_is(run, pictures):
    source = readers.read(FolderConfig(name="x", reader="folder", root=str(pictures)))
    twice = [*source.candidates(), next(source.candidates())]
    with pytest.raises(UserError, match="share the key '0000'"):
        run(Source.of(twice, source.load))


def test_missing_files_are_no_reason_to_stop(run, pictures):
    source = readers.read(FolderConfig(name="x", reader="folder", root=str(pictures)))
    gone = [
        Candidate(f"gone{number}", ("a cat",), "x", f"gone{number}.png", "") for number in range(20)
    ]

    def load(location):
        if location == location_of("timeout"):
            raise UnreadableImage(error_of("timeout"))
        return source.load(location)

    gone += [
        Candidate(f"late{number}", ("a cat",), "x", location_of("timeout"), "1")
        for number in range(20)
    ]
    rows = run(Source.of([*gone, *source.candidates()], load))
    assert sum(row["error"] == "missing file" for row in rows) == 20
    assert sum(row["error"] == error_of("timeout") for row in rows) == 20
    assert sum(row["clip_similarity"] is not None for row in rows) == 48


def test_embeddings_are_read_by_row(run, pictures, tmp_path):
    rows = run(pictures)
    embedded = Embeddings(current_parts(tmp_path / "annotations"))
    chosen = np.array([40, 3, 3, 17])
    images, texts = embedded.images(chosen), embedded.texts(chosen)
    np.testing.assert_allclose(
        (images * texts).sum(axis=1), [rows[row]["clip_similarity"] for row in chosen], atol=2e-6
    )
    blocks = list(embedded.image_blocks())
    assert np.concatenate([found for found, _ in blocks]).tolist() == list(range(48))
    np.testing.assert_array_equal(np.concatenate([v for _, v in blocks])[chosen], images)


def test_drafted_pictures_keep_their_size_and_nearly_their_score(run, tmp_path, make_pictures):
    root = tmp_path / "large"
    root.mkdir()
    noise = Image.effect_noise((40, 30), 90).convert("RGB").resize((800, 600))
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by a quarter
    noise.save(root / "a.jpg", quality=95)
    noise.save(root / "b.jpg", quality=95, exif=turned)
    for name in "ab":
        (root / f"{name}.txt").write_text("noise")
    whole = run(root)
    drafted = run(root, draft=True)
    for one, other in zip(whole, drafted, strict=True):
        assert (one["width"], one["height"]) == (other["width"], other["height"])
        assert one["pixels_sha256"] != other["pixels_sha256"]
        assert one["clip_similarity"] == pytest.approx(other["clip_similarity"], abs=0.05)
    assert [(row["width"], row["height"]) for row in drafted] == [(800, 600), (600, 800)]


def test_a_looser_caption_rule_scores_the_captions_that_it_lets_in(run, pictures):
    loaded = readers.read(FolderConfig(name="x", reader="folder", root=str(pictures)))
    both = [replace(c, captions=("cat", "a big red cat")) for c in loaded.candidates()]
    source = Source.of(both, loaded.load)
    tight = run(source, caption=CaptionFilterConfig(min_words=2))
    assert {row["caption"] for row in tight if row["clip_similarity"] is None} == {"cat"}
    # "cat" is in every part: what the first of them measures is found by the others.
    assert all(row["clip_similarity"] is not None for row in run(source))


def test_a_trial_keeps_what_was_measured_of_the_others(run, make_pictures, tmp_path, counted):
    root = make_pictures(tmp_path / "pictures", 12)
    run(root)
    counted()
    source = readers.read(FolderConfig(name="x", reader="folder", root=str(root), limit=3))
    run(source)
    run(root)
    assert counted() == NOTHING


def test_one_column_of_two_types_becomes_text(run, pictures, tmp_path):
    loaded = readers.read(FolderConfig(name="x", reader="folder", root=str(pictures)))
    odd = [
        replace(c, columns={"id_": number if number < 20 else f"n{number}"})
        for number, c in enumerate(loaded.candidates())
    ]
    run(Source.of(odd, loaded.load))
    frame = load_annotations(current_parts(tmp_path / "annotations"), SPEC)
    assert frame["id_"].tolist() == [str(n) for n in range(20)] + [f"n{n}" for n in range(20, 48)]


@pytest.mark.parametrize("damage", [lambda whole: whole[:-5], lambda whole: b"", bytes.upper])
def test_a_part_whose_footer_is_damaged_is_measured_again(
    run, make_pictures, tmp_path, counted, damage
):
    root = make_pictures(tmp_path / "pictures", 12)
    rows = run(root)
    second = current_parts(tmp_path / "annotations")[1]
    whole = second.read_bytes()
    left_over = second.with_name("part-00009-of-another-pass.parquet")
    for path in (second, left_over):
        path.write_bytes(damage(whole))
    counted()
    assert run(root) == rows
    assert counted() == {"decoded": 5, "images": 5, "texts": 5}
    assert second.read_bytes() == whole
    assert left_over.is_file()


def test_a_footer_that_may_not_be_read_is_no_damage(run, make_pictures, tmp_path, monkeypatch):
    root = make_pictures(tmp_path / "pictures", 2)
    run(root)

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(pq, "read_schema", refuse)
    with pytest.raises(PermissionError):
        run(root)


def load_annotations(parts, spec):
    return frame_of(parts, Layout.of(parts), spec)


def all_images(parts, _):
    return list(Embeddings(parts).image_blocks())


def test_without_a_list_of_parts_all_are_read(run, make_pictures, tmp_path):
    run(make_pictures(tmp_path / "pictures", 7))
    parts = current_parts(tmp_path / "annotations")
    listed = tmp_path / "annotations/parts.json"
    listed.write_text(json.dumps([path.name for path in parts[:1]]))  # as an earlier release did
    assert current_parts(tmp_path / "annotations") == parts[:1]
    listed.unlink()
    assert current_parts(tmp_path / "annotations") == parts


@pytest.mark.parametrize("change", [lambda _: "5", lambda _: "[5]", lambda text: text.upper()])
def test_a_damaged_list_of_parts_is_named(run, make_pictures, tmp_path, change):
    run(make_pictures(tmp_path / "pictures", 7))
    listed = tmp_path / "annotations/parts.json"
    listed.write_text(change(listed.read_text()))
    with pytest.raises(UserError, match=r"parts\.json is damaged; delete it"):
        current_parts(tmp_path / "annotations")


@pytest.mark.parametrize(
    ("column", "reads_it"),
    [
        *((name, load_annotations) for name in ("key", "caption", "pixels_sha256")),
        ("image_embedding", all_images),
    ],
)
def test_a_part_with_a_damaged_page_is_named_and_measured_again(
    run, make_pictures, tmp_path, capsys, column, reads_it
):
    root = make_pictures(tmp_path / "pictures", 7)
    rows = run(root)
    parts = current_parts(tmp_path / "annotations")
    whole = parts[0].read_bytes()
    flip(parts[0], column)
    with pytest.raises(UserError, match=rf"{parts[0]} is damaged .* delete it, and the same"):
        reads_it(parts, SPEC)
    assert run(root) == rows
    assert (
        f"annotations/{parts[0].name} is damaged; it is measured again" in capsys.readouterr().out
    )
    assert parts[0].read_bytes() == whole
    flip(parts[0], column)
    run(root, images_per_part=4)  # other parts, out of what is known of the rest


def test_a_part_that_was_just_written_is_not_read_again(run, make_pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("curate.annotate.cache.read_part", lambda *_: pytest.fail("was read"))
    assert len(run(make_pictures(tmp_path / "pictures", 12))) == 12


def as_of_an_earlier_release(part):
    """With the names that a column and a key of the footer had."""
    table = pq.read_table(part)
    head = json.loads(table.schema.metadata[METADATA])
    head["gate"] = head.pop("prefilter")
    names = ["pixels" if name == "pixels_sha256" else name for name in table.column_names]
    renamed = table.rename_columns(names)
    pq.write_table(renamed.replace_schema_metadata({METADATA: json.dumps(head)}), part)


def test_parts_of_an_earlier_release_are_used(run, make_pictures, tmp_path, counted):
    root = make_pictures(tmp_path / "pictures", 12)
    Image.new("RGB", (8, 8)).save(root / "0003.png")
    tight = ImageFilterConfig(min_side_px=16)
    run(root, tight)
    parts = current_parts(tmp_path / "annotations")
    spec = replace(SPEC, prefilter=Prefilter(tight, CaptionFilterConfig()))
    before = load_annotations(parts, spec)
    for part in parts:
        as_of_an_earlier_release(part)
    pd.testing.assert_frame_equal(load_annotations(parts, spec), before)
    scored = read_part(parts[0], ["pixels_sha256"])["pixels_sha256"].to_pylist()
    assert [len(digits) for digits in scored] == [64, 64, 64, 0, 64]
    counted()
    run(root, tight)
    assert [part_head(part)["prefilter"] is None for part in parts] == [False, True, True]
    assert counted() == NOTHING
    run(root)  # a looser prefilter, which the first part alone knows of
    assert counted() == {"decoded": 1, "images": 1, "texts": 1}
    run(root, images_per_part=4)  # other parts, out of the cache
    assert counted() == NOTHING


def test_text_that_is_no_utf_8_is_damage(run, make_pictures, tmp_path):
    run(make_pictures(tmp_path / "pictures", 3))
    [part] = current_parts(tmp_path / "annotations")
    pq.write_table(pq.read_table(part), part, compression="none")
    part.write_bytes(part.read_bytes().replace(b"0001.png", b"0001.\xffng"))
    with pytest.raises(UserError, match="is damaged"):
        load_annotations([part], SPEC)


@pytest.fixture
def lenient(tiny_clip, tmp_path):
    """How parts of five pictures are measured, however many are unreadable."""
    scorer = load_clip(ClipConfig(name=f"local-dir:{tiny_clip}", device="cpu", batch_size=8))
    config = AnnotateConfig(images_per_part=5, max_reject_rate=1.0)
    return annotate.Measure(tmp_path / "run/annotations", config, SPEC, lambda: scorer)


@pytest.fixture
def read(monkeypatch):
    """The parts that were indexed, and those that were read as a whole, by a process that has read none before."""
    seen = {"indexed": [], "whole": []}
    monkeypatch.setattr(parquet, "_intact", set())

    def index(parts, *more, real=known.index):
        seen["indexed"] += parts
        return real(parts, *more)

    def digest_of(path, real=parquet.digest_of):
        seen["whole"].append(path)
        return real(path)

    monkeypatch.setattr(known, "index", index)
    monkeypatch.setattr(parquet, "digest_of", digest_of)
    return seen


def test_a_share_opens_no_part_of_another_and_all_of_an_earlier_listing(
    lenient, make_pictures, tmp_path, counted, read
):
    root = make_pictures(tmp_path / "pictures", 20)
    (root / "0015.png").write_bytes((root / "0001.png").read_bytes())  # equal, in the other share
    source = readers.read(FolderConfig(name="x", reader="folder", root=str(root)))
    shared = store.StorePlace(tmp_path / "store")
    lenient = replace(lenient, store=shared)
    alone = replace(lenient, folder=tmp_path / "alone/annotations", store=None)
    expected = [path.read_bytes() for path in annotate.annotate(source, alone).parts]

    def share(plan, number, most=None):
        tasks = plan.tasks[number::2]
        others = {task.part for task in plan.tasks[1 - number :: 2]}
        folder = f"known-{number}"
        for seen in read.values():
            seen.clear()
        annotate.measure_tasks(
            tasks[:most], source.load, lenient, folder, is_whole=False, others=others
        )

    plan = annotate.list_tasks(source, lenient)
    parts = [lenient.folder / task.part for task in plan.tasks]
    share(plan, 0)
    share(plan, 1, most=1)
    assert read == {"indexed": [], "whole": []}
    parquet._intact.clear()
    share(plan, 1)
    [link] = [path for path in shared.folder.glob("part-*") if path.samefile(parts[1])]
    assert read == {"indexed": [link, parts[1]], "whole": [parts[1]]}
    assert [path.read_bytes() for path in annotate.settle(plan, lenient).parts] == expected
    counted()
    other = replace(lenient, config=replace(lenient.config, images_per_part=4), store=None)
    lenient, plan = other, annotate.list_tasks(source, other)
    share(plan, 0)
    assert {*read["indexed"]} == {*parts}
    share(plan, 1)
    assert {*read["indexed"]} == {*parts}
    assert counted() == NOTHING


@pytest.mark.parametrize("when", ["index", "_create_rows", "_kind", "Known"])
def test_a_part_that_vanishes_is_unknown(run, make_pictures, tmp_path, counted, monkeypatch, when):
    """Another process deletes it: when all are listed, while they are indexed, or afterwards."""
    root = make_pictures(tmp_path / "pictures", 12)
    rows = run(root)
    gone, real = current_parts(tmp_path / "annotations")[1], getattr(known, when)

    def deleting(*given):
        gone.unlink(missing_ok=True)
        return real(*given)

    monkeypatch.setattr(known, when, deleting)
    counted()
    assert run(root, images_per_part=4) == rows
    assert counted() == {"decoded": 5, "images": 5, "texts": 5}


def test_a_part_that_is_deleted_before_it_is_counted_is_named(
    run, make_pictures, tmp_path, monkeypatch
):
    root = make_pictures(tmp_path / "pictures", 12)
    run(root)
    gone = current_parts(tmp_path / "annotations")[1]

    def deleting(*given, real=annotate.unfinished):
        done = real(*given)
        gone.unlink()
        return done

    monkeypatch.setattr(annotate, "unfinished", deleting)
    with pytest.raises(UserError, match=f"another process has deleted .*{gone.name}.* type the"):
        run(root)


def test_behind_a_stop_what_was_not_fetched_stays(lenient, make_pictures, tmp_path, monkeypatch):
    """Its address says why there is no picture, so that another try would give the same."""
    monkeypatch.setattr(rejects, "WINDOW", 5)
    root = make_pictures(tmp_path / "pictures", 20)
    loaded = readers.read(FolderConfig(name="x", reader="folder", root=str(root)))
    places = dict.fromkeys((0, 1, 2, 11), "nowhere.png") | {7: location_of("timeout")}

    def load(location):
        if location == location_of("timeout"):
            raise UnreadableImage(error_of("timeout"))
        return loaded.load(location) if location != "nowhere.png" else b"no picture"

    moved = [
        replace(c, location=places.get(number, c.location))
        for number, c in enumerate(loaded.candidates())
    ]
    source = Source.of(moved, load)
    parts = annotate.annotate(source, lenient).parts
    strict = replace(lenient, config=AnnotateConfig(images_per_part=5))
    with pytest.raises(UserError, match="3 of 5 images in a row"):
        annotate.check_rejects(annotate.list_tasks(source, strict), strict)
    assert [path.is_file() for path in parts] == [False, True, False, True]
