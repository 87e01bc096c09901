"""Pictures beside pictures: carried byte for byte from folders, tables and tars into shards, or refused with a reason."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import pytest
from PIL import Image

from curate import readers, verify
from curate.annotate.companions import same_aspect
from curate.annotate.config import AnnotateConfig
from curate.clip.config import ClipConfig
from curate.decide.config import SplitConfig
from curate.filters.config import FiltersConfig
from curate.filters.similarity import ClipSimilarityConfig
from curate.pack.config import ShardsConfig
from curate.pack.sample import read_shard
from curate.pipeline import full
from curate.pipeline.config import CurateConfig
from curate.readers.folder import FolderConfig
from curate.readers.shards import ShardsConfig as TarsConfig
from curate.run import ledger
from curate.run.config import RunConfig
from curate.run.manifest import read_manifest
from tests.curate.conftest import draw_pictures


def png(size, mode="L", colour=128):
    stream = io.BytesIO()
    Image.new(mode, size, colour).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def with_companions(tmp_path):
    """24 pictures of 40 x 32: 0 to 2 with a mask, 1 with a condition too, 3 to 5 with what cannot be used."""
    folder = draw_pictures(tmp_path / "pictures", 24)
    for number, size in ((0, (40, 32)), (1, (80, 64)), (2, (27, 22))):
        (folder / f"{number:04d}.mask.png").write_bytes(png(size))
    (folder / "0001.control.png").write_bytes(png((40, 32), "RGB", (1, 2, 3)))
    (folder / "0003.mask.png").write_bytes(png((32, 32)))
    (folder / "0004.control.png").write_bytes(png((40, 32))[:-30])
    (folder / "0005.mask.png").write_bytes(b"not a picture")
    return folder


@pytest.fixture
def curate_as(tiny_clip, tmp_path):
    def curate(dataset, name="small"):
        config = CurateConfig(
            run=RunConfig(root=str(tmp_path / "runs"), name=name),
            dataset=dataset,
            clip=ClipConfig(name=f"local-dir:{tiny_clip}", device="cpu", batch_size=8),
            filters=FiltersConfig(
                clip_similarity=ClipSimilarityConfig(fraction=None, false_keep_rate=None)
            ),
            split=SplitConfig(val=0.1, test=0.1, minimum=2),
            shards=ShardsConfig(max_samples=10),
            annotate=AnnotateConfig(images_per_part=4, max_reject_rate=1.0),
        )
        full.run(config, readers.read(dataset))
        return config.run.folder / "curate"

    return curate


def folder_of(path):
    return FolderConfig(name="mine", reader="folder", root=str(path))


def samples_in(curate_dir):
    shards = read_manifest(curate_dir).shards
    return {s.key: s for shard in shards for s in read_shard(curate_dir / shard.path)}


def test_they_go_into_the_shards_byte_for_byte_and_what_is_unfit_has_a_reason(
    with_companions, curate_as
):
    curate_dir = curate_as(folder_of(with_companions))
    samples = samples_in(curate_dir)
    found = {key: dict(s.companions) for key, s in samples.items() if s.companions}
    assert found == {
        key: {kind: (with_companions / f"{key}.{kind}.png").read_bytes() for kind in kinds}
        for key, kinds in {"0000": ["mask"], "0001": ["control", "mask"], "0002": ["mask"]}.items()
    }
    mask = hashlib.sha256(found["0001"]["mask"]).hexdigest()
    assert samples["0001"].meta["mask_sha256"] == mask
    assert len(samples) == 21
    rows = ledger.read(curate_dir)
    assert len(rows) == 24  # no companion is a pair
    lost = rows[~rows["kept"]].set_index("key")
    assert lost["reason"].to_dict() == {
        "0003": "companion: mask has another aspect than the picture",
        "0004": "companion: control cannot be decoded: truncated",
        "0005": "companion: mask cannot be decoded: not an image",
    }
    assert set(lost["rule"]) == {"companion"}
    assert list(verify.problems(curate_dir, images=True)) == []
    noted = " ".join(json.loads((curate_dir / "funnel.json").read_bytes())["notes"])
    assert "3 of 21 pictures have a NAME.mask.png beside them" in noted
    assert "1 of 21 pictures have a NAME.control.png beside them" in noted


def test_a_changed_companion_is_measured_and_packed_again(with_companions, curate_as):
    curate_as(folder_of(with_companions))
    (with_companions / "0003.mask.png").write_bytes(png((40, 32)))
    (with_companions / "0000.mask.png").write_bytes(new := png((40, 32), colour=9))
    samples = samples_in(curate_as(folder_of(with_companions)))
    assert "0003" in samples
    assert samples["0000"].companions["mask"] == new


def test_a_table_and_its_shards_carry_them_too(with_companions, curate_as):
    """A second curation of the first one's shards holds the same companions."""
    for text in with_companions.glob("*.txt"):
        text.unlink()
    pictures = sorted(p.name for p in with_companions.glob("????.png"))
    lines = ["file_name,text", *(f"{name},a thing {i}" for i, name in enumerate(pictures))]
    (with_companions / "metadata.csv").write_text("\n".join(lines))
    first = curate_as(folder_of(with_companions))
    again = curate_as(
        TarsConfig("mine", "shards", path=str(first / "shards"), unique_keys=True), "b"
    )
    beside = [
        {key: dict(s.companions) for key, s in samples_in(each).items()} for each in (first, again)
    ]
    assert beside[0] == beside[1]
    assert sum(map(bool, beside[0].values())) == 3


def test_a_companion_with_its_own_caption_is_a_picture(tmp_path):
    folder = draw_pictures(tmp_path / "pictures", 2)
    (folder / "0000.mask.png").write_bytes(png((40, 32)))
    (folder / "0000.mask.txt").write_text("a mask to draw")
    (folder / "lone.mask.png").write_bytes(png((40, 32)))
    source = readers.read(folder_of(folder))
    found = {c.columns["file_name"]: c.companions for c in source.candidates()}
    assert found == dict.fromkeys(("0000.png", "0001.png", "0000.mask.png", "lone.mask.png"), ())


def test_pictures_of_a_tar_without_a_plain_one_stay_pictures(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name in ("a.0.png", "a.mask.png", "b.mask.png", "b.txt"):
            data = png((4, 4)) if name.endswith("png") else b"text"
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    source = readers.read(TarsConfig("mine", "shards", path=str(tmp_path / "s.tar")))
    assert [len(c.companions) for c in source.candidates()] == [0, 0, 0]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ((512, 341), (3000, 2000), True),
        ((3000, 2000), (512, 342), True),
        ((100, 100), (101, 100), True),
        ((100, 100), (102, 100), False),
        ((64, 48), (48, 64), False),
    ],
)
def test_an_aspect_may_differ_by_a_pixel(one, other, same):
    assert same_aspect(one, other) is same_aspect(other, one) is same


def test_a_set_without_any_has_no_trace_of_them(curate_as, tmp_path):
    curate_dir = curate_as(folder_of(draw_pictures(tmp_path / "pictures", 12)))
    for sample in samples_in(curate_dir).values():
        assert not sample.companions
        assert not {"mask_sha256", "control_sha256"} & sample.meta.keys()
    assert not {name for name in ledger.columns(curate_dir) if "mask" in name or "control" in name}
