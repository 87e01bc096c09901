"""Embeddings in half precision: what is kept, how it is read, and parts of earlier releases."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.annotate import pair_numbers
from curate.annotate.cache import AnnotationCache, ImageRecord
from curate.annotate.config import KINDS
from curate.annotate.done import with_head
from curate.annotate.embeddings import Embeddings
from curate.annotate.known import Known, index
from curate.annotate.parts import METADATA, part_head, read_part
from curate.annotate.spec import AnnotationSpec
from curate.annotate.stored_embeddings import Stored, stored_in
from curate.annotate.table import part_table
from curate.clip.similarity import cosines, rounded, unit
from curate.decide import shuffled_captions
from curate.filters.caption import CaptionFilterConfig
from curate.filters.image import ImageFilterConfig
from curate.filters.prefilter import Prefilter
from curate.readers.candidate import Candidate
from curate.run import parquet
from curate.run.database import Limits
from tests.curate.decide.narrow_tables import database, narrowed

SIZE = 24
EVERYTHING = Stored()
PREFILTER = Prefilter(ImageFilterConfig(), CaptionFilterConfig())


def drawn(count=120, seed=0):
    """Candidates of one to three captions, their records and the captions' embeddings, all in half precision."""
    rng = np.random.default_rng(seed)

    def vector():
        found = rng.normal(size=SIZE).astype(np.float32)
        return found / np.linalg.norm(found)

    candidates, records, texts = [], [], {}
    for number in range(count):
        captions = tuple(f"caption {number} {n}" for n in range(rng.integers(1, 4)))
        candidates.append(Candidate(f"k{number:03d}", captions, "s", f"{number}.png", "1"))
        embedding = vector() if number % 9 else None
        pixels = f"{number:016x}" if embedding is not None else ""
        records.append(
            ImageRecord(f"{number:064x}", 7, 4, 3, "PNG", pixels, "2a", "3a", embedding=embedding)
        )
        texts |= {caption: vector() for caption in captions}
    return candidates, records, texts


def as_half(candidates, records, texts):
    halved = [
        ImageRecord(
            **{
                name: getattr(record, name)
                for name in (
                    "sha256",
                    "bytes",
                    "width",
                    "height",
                    "format",
                    "pixels_sha256",
                    "phash",
                    "phash_mirrored",
                )
            },
            embedding=None if record.embedding is None else rounded(record.embedding),
        )
        for record in records
    ]
    return candidates, halved, {caption: rounded(v) for caption, v in texts.items()}


def today(path, stored=EVERYTHING, count=120):
    spec = AnnotationSpec("tiny 0", PREFILTER, stored=stored)
    table = part_table(*as_half(*drawn(count)), "tiny 0", [], {}, stored)
    pq.write_table(with_head(table, spec), path)
    return path


def earlier(path):
    """A part as an earlier release wrote it, in single precision."""
    candidates, records, texts = drawn()
    table = part_table(candidates, records, texts, "tiny 0", [], {}, Stored())
    of_row = {c.key: r.embedding for c, r in zip(candidates, records, strict=True)}
    similarity = [
        None if of_row[key] is None else round(float(of_row[key].astype(float) @ texts[caption]), 6)
        for key, caption in zip(table["key"].to_pylist(), table["caption"].to_pylist(), strict=True)
    ]
    place = table.column_names.index("clip_similarity")
    table = table.set_column(place, "clip_similarity", pa.array(similarity, pa.float32()))
    head = {"format": 4, "clip_model": "tiny 0", "measures": {}, "to_retry": 0, "prefilter": None}
    pq.write_table(table.replace_schema_metadata({METADATA: json.dumps(head)}), path)
    return path


def test_a_part_of_an_earlier_release_reads_as_one_of_today(tmp_path):
    old, new = earlier(tmp_path / "old.parquet"), today(tmp_path / "new.parquet")
    assert not read_part(new).equals(pq.read_table(old))
    whole, expected = read_part(old), read_part(new)
    assert whole.equals(expected)
    for columns in (["clip_similarity"], ["key", "image_embedding"], ["text_embedding"], ["key"]):
        assert read_part(old, columns).equals(read_part(new, columns))
    left = ("image_embedding", "text_embedding")
    assert read_part(old, without=left).equals(read_part(new, without=left))
    moved = np.abs(
        pq.read_table(old)["clip_similarity"].to_pandas() - whole["clip_similarity"].to_pandas()
    )
    assert 0 < moved.max() < 5e-4
    rows = np.flatnonzero(whole["image_embedding"].is_valid())
    for embedded in (Embeddings([old]), Embeddings([new])):
        np.testing.assert_array_equal(embedded.images(rows), Embeddings([new]).images(rows))
        np.testing.assert_allclose(np.linalg.norm(embedded.texts(rows), axis=1), 1, atol=1e-7)


def test_what_was_read_is_not_rounded_again(tmp_path):
    part = read_part(earlier(tmp_path / "old.parquet"))
    pq.write_table(part, tmp_path / "again.parquet")
    assert read_part(tmp_path / "again.parquet").equals(part)
    assert stored_in(part_head(tmp_path / "again.parquet")) == Stored()


@pytest.mark.parametrize("written", [earlier, today])
def test_a_cached_pair_is_as_similar_as_a_measured_one(tmp_path, written):
    path = written(tmp_path / "part.parquet")
    cache = AnnotationCache({}, index([path], tmp_path / "known", Limits(tmp_path / "scratch")))
    candidates, records, texts = as_half(*drawn())
    found = [cache.of_candidate(c) for c in candidates]
    wanted = [c for c, r in zip(candidates, records, strict=True) if r.embedding is not None]
    said = cache.texts([caption for c in wanted for caption in c.captions])
    assert len(said) > 100
    expected = part_table(candidates, records, texts, "tiny 0", [], {}, Stored())
    again = part_table(candidates, found, said, "tiny 0", [], {}, Stored())
    for name in ("clip_similarity", "image_embedding", "text_embedding"):
        assert again[name].equals(expected[name])


def test_similarities_do_not_depend_on_others_and_ignore_lengths():
    rng = np.random.default_rng(0)
    images, texts = (rounded(rng.normal(size=(300, 64))) for _ in range(2))
    images[7] = 0
    together = cosines(images, texts)
    alone = [float(cosines(images[n : n + 1], texts[n : n + 1])[0]) for n in range(300)]
    assert together.tolist() == alone
    exact = [
        0 if n == 7 else np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b))
        for n, (a, b) in enumerate(zip(images.astype(float), texts.astype(float), strict=True))
    ]
    np.testing.assert_allclose(together, exact, atol=6e-7)
    assert cosines(images[:1], images[:1]) == 1
    np.testing.assert_allclose(np.linalg.norm(unit(images), axis=1)[:7], 1, atol=1e-6)
    assert not unit(images)[7].any()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_kept_of_pairs_that_may_be_drawn(tmp_path, kind):
    whole = read_part(today(tmp_path / "all.parquet")).to_pandas()
    some = read_part(today(tmp_path / "some.parquet", Stored(kind, 2))).to_pandas()
    left = ["image_embedding", "text_embedding"]
    assert some.drop(columns=left).equals(whole.drop(columns=left))
    numbers = pair_numbers.pair_numbers(whole["key"], whole["caption_index"].to_numpy())
    drawn_rows = pair_numbers.may_be_drawn(numbers, 2)
    assert 20 < drawn_rows.sum() < 100
    of_image = whole.assign(d=drawn_rows).groupby("key")["d"].transform("any").to_numpy()
    keeps = {
        "image_embedding": of_image | (kind != "none"),
        "text_embedding": drawn_rows | (kind == "both"),
    }
    for name, kept in keeps.items():
        expected = [value if keep else None for value, keep in zip(whole[name], kept, strict=True)]
        assert some[name].tolist() == expected
    assert Embeddings([tmp_path / "some.parquet"]).has_all_images == (kind != "none")


@pytest.mark.parametrize("kind", KINDS)
def test_the_null_is_the_same_whatever_is_kept(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(shuffled_captions, "MAX_PAIRS", 30)
    part = today(tmp_path / "some.parquet", Stored(kind, 2))
    whole = Embeddings([today(tmp_path / "all.parquet")])
    table = read_part(part).to_pandas()
    with database(tmp_path, **narrowed(table)) as connection:
        expected = shuffled_captions.shuffled(connection, whole).similarities
        assert len(expected) > 60
        for embedded in (Embeddings([part]), Embeddings(whole.parts, Stored(kind, 2))):
            found = shuffled_captions.shuffled(connection, embedded).similarities
            np.testing.assert_array_equal(found, expected)
    monkeypatch.setattr(shuffled_captions, "MAX_PAIRS", 10_000)
    with database(tmp_path, **narrowed(table)) as connection:  # more than are kept
        few = shuffled_captions.shuffled(connection, Embeddings([part])).similarities
        of_all = shuffled_captions.shuffled(connection, Embeddings(whole.parts, Stored(kind, 2)))
    np.testing.assert_array_equal(few, of_all.similarities)


def test_what_a_part_holds_of_what_is_asked_for():
    both, everything = Stored("both"), Stored("none", 0)
    few, fewer = Stored("image", 3), Stored("none", 5)
    for part, wanted, holds in (
        (both, few, True), (both, fewer, True), (few, both, False), (fewer, few, False),
        (few, fewer, True), (few, Stored("image", 2), False), (few, Stored("none", 4), True),
        (everything, both, True), (fewer, fewer, True), (fewer, Stored("none", 4), False),
    ):  # fmt: skip
        assert part.holds(wanted) == holds, (part, wanted)
    spec = AnnotationSpec("tiny 0", PREFILTER, stored=Stored("image"))
    assert spec.for_images(10_000).stored == Stored("image", 0)
    assert spec.for_images(240_000).stored == Stored("image", 3)
    assert AnnotationSpec("tiny 0", PREFILTER).for_images(240_000).stored == both


def test_the_setting_beats_what_earlier_parts_hold(tmp_path):
    part = today(tmp_path / "all.parquet")
    assert Embeddings([part]).has_all_images
    assert not Embeddings([part], Stored("none", 0)).has_all_images
    assert Embeddings([part], Stored("image", 3)).drawn_bits == 3
    assert Embeddings([part]).drawn_bits == 0


@pytest.mark.parametrize("has_checksum", [True, False])
@pytest.mark.parametrize("of_this_process", [True, False])
def test_what_lacks_its_embedding_hides_no_part_that_has_it(
    tmp_path, of_this_process, has_checksum
):
    parts = [
        today(tmp_path / "all.parquet"),
        today(tmp_path / "some.parquet", Stored("none", 2)),
    ]
    if has_checksum:
        for path in parts:
            parquet.write_table(path, pq.read_table(path))
    known = Known() if of_this_process else index(parts, tmp_path / "known", Limits(tmp_path / "s"))
    cache = AnnotationCache({}, known)
    for path in parts if of_this_process else ():
        cache.add(path, read_part(path))
    candidates, records, texts = as_half(*drawn())
    for candidate, record in zip(candidates, records, strict=True):
        found = cache.of_candidate(candidate)
        assert found is not None
        assert (found.embedding is None) == (record.embedding is None)
        if record.embedding is not None:
            assert cache.texts(candidate.captions).keys() == {*candidate.captions} & texts.keys()
