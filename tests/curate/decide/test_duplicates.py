"""Groups and copies on planted duplicates; nobody moves, nothing goes without a near one that stays."""

import hashlib
import io
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw, ImageOps

from curate.annotate.embeddings import Embeddings
from curate.decide.config import SplitConfig
from curate.filters.duplicates import DuplicatesConfig
from curate.measures.decode import UnreadableImage, decode
from curate.measures.phash import phashes, pixels_sha256
from curate.measures.thumbnail import BYTES, thumbnail
from curate.run.schema import UserError
from tests.curate.decide import searched
from tests.curate.decide.judging import assign

NEAR = DuplicatesConfig(hamming_distance=4)
EXACT = DuplicatesConfig()
RAMP = np.arange(BYTES, dtype=np.uint8).tobytes()  # of pictures that differ in their hashes alone
WIDE, NARROW = SplitConfig(), SplitConfig(hamming_distance=None)


def row(key, pixels, phash=None, similarity=0.3, width=64, **more):
    """One pair; pictures of other pixels have hashes that are far apart unless said."""
    digits = f"{pixels:016x}"
    far = f"{pixels * 0x9E3779B97F4A7C15 % 2**64:016x}"
    known = {"key": key, "pixels_sha256": digits + "0" * 48, "phash": phash or far}
    known |= {"phash_mirrored": known["phash"], "thumbnail": RAMP}
    return known | {"clip_similarity": similarity, "width": width, "height": 64} | more


def table(*rows):
    return pd.DataFrame(rows)


def bits(*numbers):
    return f"{sum(1 << int(number) for number in numbers):016x}"


def test_equal_pixels_are_a_group_named_by_them():
    found = searched.groups(table(row("a", 7), row("b", 7), row("c", 9)), NARROW, EXACT)
    assert found.tolist() == ["0" * 15 + "7", "0" * 15 + "7", "0" * 15 + "9"]


def test_the_least_name_of_a_chain_and_all_its_captions():
    chain = [row("a", 5, bits()), row("b", 9, bits(*range(4))), row("c", 3, bits(*range(8)))]
    found = searched.groups(table(*chain, chain[0]), WIDE, EXACT)
    assert set(found) == {"0" * 15 + "3"}
    apart = searched.groups(table(*chain), SplitConfig(hamming_distance=3), EXACT)
    assert apart.nunique() == 3
    assert searched.groups(table(*chain), NARROW, NEAR).nunique() == 1


def test_what_was_not_decoded_is_alone():
    bare = {"pixels_sha256": "", "phash": "", "phash_mirrored": "", "thumbnail": b""}
    rows = table(row("a", 1) | bare, row("b", 2), row("c", 1) | bare, row("d", 2) | {"key": "d"})
    assert searched.groups(rows, WIDE, NEAR).tolist() == ["", "0" * 15 + "2"] * 2
    assert searched.groups(rows.iloc[:1], WIDE, NEAR).tolist() == [""]


def test_the_source_joins_pictures_that_are_no_duplicates():
    rows = table(row("a", 1, group="g"), row("b", 2, group="g"), row("c", 3, group=""))
    rows = pd.concat([rows, table(row("d", 4))], ignore_index=True)  # its group is missing
    of_g = hashlib.blake2b(b"g", digest_size=8).hexdigest()
    found = searched.groups(rows, WIDE, EXACT).tolist()
    assert found == [of_g, of_g, "0" * 15 + "3", "0" * 15 + "4"]
    assert searched.copies(rows, NEAR).tolist() == ["", "", "", ""]


def test_a_photo_of_two_data_sets_is_on_one_side():
    """As COCO's photos are in Visual Genome, in files of their own."""
    sides = []
    for seed in (1, 2):
        pixels = np.random.default_rng(seed).integers(2**62, size=2000)
        rows = [row(f"k{n}", int(p), group=f"coco-{n}") for n, p in enumerate(pixels)]
        rows += [row("near", 0, rows[5]["phash"], group="")]  # joins one that has a group
        sides.append(assign(searched.groups(table(*rows), WIDE, EXACT), SplitConfig()))
        assert sides[-1].iloc[-1] == sides[-1].iloc[5]
    assert (sides[0] == sides[1]).all()
    assert sides[0].nunique() == 3


def test_adding_data_moves_nobody_but_the_joined():
    rng = np.random.default_rng(0)
    rows = [row(f"k{i}", i, f"{h:016x}") for i, h in enumerate(rng.integers(0, 2**62, 300))]
    before = searched.groups(table(*rows[:200]), WIDE, NEAR)
    after = searched.groups(table(*reversed(rows)), WIDE, NEAR)[::-1]
    assert before.tolist() == after.tolist()[:200]


def test_which_of_a_group_stays():
    small = row("a", 1, similarity=0.4, width=32)
    found = searched.copies(table(row("c", 1), small, row("b", 1)), EXACT)
    assert found.tolist() == ["a", "", "a"]
    equal = table(row("a", 1, bits()), row("b", 2, bits(1), width=99), row("b", 2, bits(1)))
    assert searched.copies(equal, NEAR).tolist() == ["b", "", ""]
    assert searched.copies(table(row("b", 1), row("a", 1)), EXACT).tolist() == ["a", ""]
    off = DuplicatesConfig(exact=False)
    assert searched.copies(table(row("b", 1), row("a", 1)), off).tolist() == ["", ""]


def test_the_most_similar_caption_counts_not_the_first():
    rows = table(row("a", 1), row("b", 1, similarity=0.1), row("b", 1, similarity=0.5))
    assert searched.copies(rows, EXACT).tolist() == ["b", "", ""]


def test_a_chain_drops_only_what_is_near_to_one_that_stays():
    chain = [row(f"k{i}", i + 1, bits(*range(3 * i)), similarity=0.9 - 0.1 * i) for i in range(5)]
    found = searched.copies(table(*chain), DuplicatesConfig(hamming_distance=3))
    assert found.tolist() == ["", "k0", "", "k2", ""]


def test_no_picture_goes_without_a_near_one_that_stays_and_no_two_near_ones_stay():
    rng = np.random.default_rng(0)
    hashes = [int(bits(*rng.choice(64, rng.integers(2, 6), replace=False)), 16) for _ in range(200)]
    rows = [
        row(f"k{i}", i, f"{h:016x}", rng.random(), rng.integers(1, 9)) for i, h in enumerate(hashes)
    ]
    found = searched.copies(table(*rows), DuplicatesConfig(exact=False, hamming_distance=4))
    by_key = dict(zip([r["key"] for r in rows], hashes, strict=True))
    stay = [key for key, keeper in zip(by_key, found, strict=True) if not keeper]
    assert 1 < len(stay) < 150
    for key, keeper in zip(by_key, found, strict=True):
        if keeper:
            assert (by_key[key] ^ by_key[keeper]).bit_count() <= 4
            assert keeper in stay
    apart = [(by_key[a] ^ by_key[b]).bit_count() for a in stay for b in stay if a < b]
    assert min(apart) > 4


def embedded(folder, *parts):
    """The embeddings of rows, a part for each list; None where a row has none."""
    paths = []
    for number, vectors in enumerate(parts):
        stored = [v if v is None else np.array(v, np.float32).tobytes() for v in vectors]
        paths.append(folder / f"{number}.parquet")
        pq.write_table(pa.table({"image_embedding": pa.array(stored, pa.binary())}), paths[-1])
    return Embeddings(paths)


def test_semantic_copies_are_near_in_their_embeddings(tmp_path):
    vectors = embedded(tmp_path, [[1, 0], None, [0.96, 0.28]], [[0.6, 0.8], None])
    rows = table(row("a", 1), row("a", 1), row("b", 2), row("c", 3), row("d", 4))
    rows["caption_index"] = [0, 1, 0, 0, 0]
    config = DuplicatesConfig(cosine=0.95)
    assert searched.copies(rows, config, vectors).tolist() == ["", "", "a", "", ""]
    names = searched.groups(rows, NARROW, config, vectors).str[-1].tolist()
    assert names == ["1", "1", "1", "3", "4"]


def test_one_pass_after_another_ends_at_one_that_stays(tmp_path):
    vectors = embedded(tmp_path, [[0, 1], [1, 0], [1, 0]])
    rows = table(
        row("a", 1, bits(), similarity=0.1),  # near b by its hash
        row("b", 2, bits(1), similarity=0.2),  # near c by its embedding
        row("c", 3, similarity=0.3),
    ).assign(caption_index=0)
    config = DuplicatesConfig(hamming_distance=1, cosine=0.9)
    assert searched.copies(rows, config, vectors).tolist() == ["c", "c", ""]


@pytest.mark.parametrize("key", ["filters.duplicates", "split"])
@pytest.mark.parametrize("bits", [-1, 17])
def test_distances_out_of_range(key, bits):
    config = SplitConfig if key == "split" else DuplicatesConfig
    with pytest.raises(UserError, match=rf"{key}\.hamming_distance={bits} .*0 \.\.\. 16"):
        config(hamming_distance=bits)


def saved(image, quality=95):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return decode(stream.getvalue())


def variants(image):
    """The picture and what a web crawl holds of it: recompressed, shrunk, cut at the edges."""
    width, height = image.size
    edge = (width // 100, height // 100, width - width // 100, height - height // 100)
    yield "as_is", image
    yield "recompressed", saved(image, 40)
    yield "half", saved(image.resize((width // 2, height // 2), Image.Resampling.BICUBIC), 80)
    yield "cropped", saved(image.crop(edge))


def measured(images):
    return table(
        *(
            {"key": key, "pixels_sha256": pixels_sha256(image)}
            | dict(zip(("phash", "phash_mirrored"), phashes(image), strict=True))
            | {"thumbnail": thumbnail(image)}
            | {"clip_similarity": 0.3, "width": image.width, "height": image.height}
            for key, image in images
        )
    )


def drawing(seed):
    """Smooth random colours, as a photograph out of focus."""
    colours = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(colours).resize((320, 240), Image.Resampling.BICUBIC)


def test_precision_and_recall_on_planted_copies():
    images = [(f"{i:03d}-{name}", v) for i in range(60) for name, v in variants(drawing(i))]
    pairs = measured(images)
    picture = pairs["key"].str[:3]
    found = searched.copies(pairs, NEAR)
    dropped = found != ""
    assert (found[dropped].str[:3] == picture[dropped]).all()  # precision 1
    assert dropped.sum() >= 0.98 * (len(pairs) - 60)  # recall
    groups = searched.groups(pairs, WIDE, EXACT)
    assert groups.groupby(picture).nunique().mean() <= 1.03
    assert picture.groupby(groups).nunique().max() == 1
    assert (searched.copies(pairs, EXACT) == "").all()


def test_mirrored_copies_are_on_the_same_side_and_stay():
    images = [(f"{i:02d}", drawing(i)) for i in range(40)]
    pairs = measured(images + [(f"{key}m", ImageOps.mirror(image)) for key, image in images])
    groups = searched.groups(pairs, WIDE, EXACT)
    picture = pairs["key"].str[:2]
    assert (groups.groupby(picture).nunique() == 1).all()
    assert picture.groupby(groups).nunique().max() == 1
    assert (searched.copies(pairs, NEAR) == "").all()


def test_plain_pictures_of_other_colours_are_no_copies():
    colours = ("red", "blue", "green", "black", "white", "orange", "#030303")
    squares = [(colour, Image.new("RGB", (96, 96), colour)) for colour in colours]
    small = [(f"small {colour}", image.resize((50, 40))) for colour, image in squares]
    hashes = np.array([int(phashes(image)[0], 16) for _, image in squares], np.uint64)
    assert np.bitwise_count(hashes[:, None] ^ hashes[None]).max() <= 4
    pairs = measured(squares + small)
    for found in (searched.copies(pairs, NEAR), searched.groups(pairs, WIDE, EXACT)):
        names = dict(zip(pairs["key"], found, strict=True))
        assert len(set(names.values())) == len(colours) + (found[0] == "")
    assert searched.copies(pairs, NEAR)[len(squares) :].tolist() == list(colours)


def flag(*stripes):
    image = Image.new("RGB", (90, 60))
    for number, colour in enumerate(stripes):
        image.paste(colour, (30 * number, 0, 30 * number + 30, 60))
    return image


def heart(colour):
    image = Image.new("RGB", (64, 64), "white")
    outline = [(32, 58), (6, 30), (8, 14), (22, 8), (32, 18), (42, 8), (56, 14), (58, 30)]
    ImageDraw.Draw(image).polygon(outline, fill=colour, outline="black")
    return image


def page(seed):
    """An almost blank page, with one line of words."""
    rng, image = np.random.default_rng(seed), Image.new("RGB", (400, 500), "white")
    start = 40
    while start < 330:
        end = start + int(rng.integers(8, 60))
        ImageDraw.Draw(image).rectangle((start, 60, end, 66), fill="grey")
        start = end + 8
    return image


RECOLOURED = {
    "flags": [flag("blue", "white", "red"), flag("green", "white", "orange")],
    "hearts": [heart("red"), heart("purple"), heart("gold")],
    "pages": [page(seed) for seed in range(12)],
}


@pytest.mark.parametrize("kind", RECOLOURED)
def test_near_copies_need_more_evidence_than_the_hash(kind):
    own = [(f"{n:02d}-own", image) for n, image in enumerate(RECOLOURED[kind])]
    both = own + [(f"{n:02d}-jpeg", saved(image, 75)) for n, image in enumerate(RECOLOURED[kind])]
    pairs = measured(both)
    picture = pairs["key"].str[:2]
    hashes = np.array([int(phash, 16) for phash in pairs["phash"]], np.uint64)
    near = np.bitwise_count(hashes[:, None] ^ hashes[None]) <= 4
    assert (near & (picture.to_numpy()[:, None] != picture.to_numpy())).any()
    found = searched.copies(pairs, NEAR)
    assert (found[found != ""].str[:2] == picture[found != ""]).all()
    groups = searched.groups(pairs, WIDE, EXACT)
    assert picture.groupby(groups).nunique().max() == 1
    if kind != "pages":  # so plain that only equal thumbnails make copies of them
        assert (found != "").sum() == len(own)
        assert (groups.groupby(picture).nunique() == 1).all()


def test_a_group_reaches_further_than_a_copy():
    """What is cut at the edges may stay beside the whole, but not on another side."""
    image = drawing(3)
    width, height = image.size
    cut = image.crop((width // 50, height // 50, width - width // 50, height - height // 50))
    pairs = measured([("whole", image), ("cut", cut)])
    bits = int(pairs["phash"][0], 16) ^ int(pairs["phash"][1], 16)
    wide = SplitConfig(hamming_distance=bits.bit_count())
    assert searched.copies(pairs, DuplicatesConfig(hamming_distance=16)).tolist() == ["", ""]
    assert searched.groups(pairs, wide, EXACT).nunique() == 1


def test_many_plain_pictures_are_not_compared_with_each_other():
    """Of 60,000 with one hash, two thirds of them equal, all pairs would take minutes."""
    rng = np.random.default_rng(0)
    shades = rng.integers(120, 124, (20_000, BYTES), dtype=np.uint8)
    rows = [row(f"k{n:05d}", n, bits(0)) | {"thumbnail": t.tobytes()} for n, t in enumerate(shades)]
    pairs = table(*rows)
    pairs = pd.concat([pairs] + [pairs.assign(key=pairs["key"] + x) for x in "ab"])
    start = time.process_time()
    found = searched.copies(pairs.reset_index(drop=True), NEAR)
    assert time.process_time() - start < 10
    assert (found == "").sum() == 20_000


def readable(folder):
    for path in sorted(folder.rglob("*.jpg")):
        try:
            yield path.stem, decode(path.read_bytes())
        except UnreadableImage:
            continue


def test_real_copies_among_photographs(shared):
    pairs = measured(readable(shared / "dedup_ukbench"))
    groups = searched.groups(pairs, WIDE, EXACT)
    of_120 = groups[pairs["key"].isin([f"ukbench00120{s}" for s in ("", "_resize", "_hflip")])]
    assert of_120.nunique() == 1
    assert groups.nunique() == len(pairs) - 2  # and nothing else is joined
    found = searched.copies(pairs, NEAR)
    assert dict(zip(pairs["key"], found, strict=True))["ukbench00120_resize"] == "ukbench00120"
    assert (found != "").sum() == 1


def test_photographs_and_their_recompressed_copies(shared):
    photos = list(readable(shared / "coco_mini"))
    copies = [(f"{key}-{name}", v) for key, image in photos for name, v in variants(image)]
    pairs = measured(copies)
    pairs[["photo", "variant"]] = pairs["key"].str.split("-", expand=True)
    groups = searched.groups(pairs, WIDE, EXACT)
    assert pairs["photo"].groupby(groups).nunique().max() == 1
    own = pairs["photo"].map(groups[pairs["variant"] == "as_is"].set_axis(pairs["photo"].unique()))
    found = (groups == own).groupby(pairs["variant"]).mean()
    assert found["recompressed"] == found["half"] == 1
    assert found["cropped"] > 0.9


def test_semantic_copies_of_nothing_are_none(tmp_path):
    vectors = embedded(tmp_path, [[1, 0]])
    rows = table(row("a", 1)).assign(caption_index=0)[:0]
    assert searched.copies(rows, DuplicatesConfig(cosine=0.95), vectors).tolist() == []
