"""What pictures say of their use, through a whole curation: columns of the ledger, and rules on them."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from curate import readers
from curate.annotate.config import AnnotateConfig
from curate.clip.config import ClipConfig
from curate.filters.config import FiltersConfig
from curate.filters.consent import ConsentConfig
from curate.filters.similarity import ClipSimilarityConfig
from curate.measures import consent
from curate.pack.config import ShardsConfig
from curate.pipeline import full as pipeline
from curate.pipeline.config import CurateConfig
from curate.readers.folder import FolderConfig
from curate.run import ledger
from curate.run.config import RunConfig

SAID = {"0000": "DMI-PROHIBITED-AIMLTRAINING", "0003": "DMI-ALLOWED"}


def packet(term):
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        'xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/" '
        f'plus:DataMining="http://ns.useplus.org/ldf/vocab/{term}"/></rdf:RDF></x:xmpmeta>'
    ).encode()


@pytest.fixture
def config(tiny_clip, make_pictures, tmp_path):
    root = make_pictures(tmp_path / "pictures", 24)
    for name, term in SAID.items():
        stream = io.BytesIO()
        path = root / f"{name}.png"
        Image.open(path).save(stream, "WEBP", lossless=True, xmp=packet(term))
        path.write_bytes(stream.getvalue())
    return CurateConfig(
        run=RunConfig(root=str(tmp_path / "runs"), name="small"),
        dataset=FolderConfig(name="small", reader="folder", root=str(root)),
        clip=ClipConfig(name=f"local-dir:{tiny_clip}", device="cpu", batch_size=8),
        filters=FiltersConfig(clip_similarity=ClipSimilarityConfig(minimum=-1.0)),
        shards=ShardsConfig(max_samples=10),
        annotate=AnnotateConfig(images_per_part=10),
    )


def curated(config, **settings):
    filters = replace(config.filters, consent=ConsentConfig(**settings))
    config = replace(config, filters=filters)
    pipeline.run(config, readers.read(config.dataset))
    curate_dir = Path(config.run.root, "small", "curate")
    table = ledger.read(curate_dir).set_index("key")
    return table, json.loads((curate_dir / "manifest.json").read_text())


def test_a_picture_that_says_no_is_dropped_with_the_reason(config):
    table, _ = curated(config, reserved="drop")
    dropped = table[table["status"] == "dropped"]
    assert list(dropped.index) == ["0000"]
    assert dropped["reason"].tolist() == ["reserved: data_mining prohibits training"]
    assert table["data_mining"].dropna().to_dict() == SAID


def test_to_ask_later_neither_decodes_nor_encodes(config, capsys, monkeypatch):
    before, plain = curated(config)
    assert "data_mining" not in before
    assert "images/s" in capsys.readouterr().out
    monkeypatch.setattr("curate.annotate.measurer.decode", lambda *_: pytest.fail("was decoded"))
    after, _ = curated(config, reserved="drop")
    assert "images/s" not in capsys.readouterr().out
    assert set(before.index[before["kept"]]) - set(after.index[after["kept"]]) == {"0000"}
    again, back = curated(config)
    assert "data_mining" not in again
    assert back["fingerprint"] == plain["fingerprint"]


def test_another_run_finds_it_in_the_cache(config, monkeypatch):
    curated(config, reserved="drop")
    calls = []
    kept = consent.MEASURE.measure
    monkeypatch.setattr(
        "curate.measures.registry.file_measures",
        lambda names: [replace(consent.MEASURE, measure=lambda d: calls.append(d) or kept(d))],
    )
    other = replace(config, run=replace(config.run, name="other"))
    filters = replace(other.filters, consent=ConsentConfig(reserved="drop"))
    pipeline.run(replace(other, filters=filters), readers.read(other.dataset))
    table = ledger.read(Path(config.run.root, "other", "curate")).set_index("key")
    assert table["data_mining"].dropna().to_dict() == SAID
    assert calls == []


def test_credentials_decide_and_those_that_cannot_be_read_are_noted(config, capsys):
    pytest.importorskip("c2pa")
    from tests.curate.measures.content_credentials import created, signed, training

    root = Path(config.dataset.root)
    data = signed(training("notAllowed"), created("digitalCapture"), kind="PNG")
    place = data.index(b"cawg.training-mining")
    (root / "0005.png").write_bytes(data)
    (root / "0006.png").write_bytes(data[:place] + b"\xff" * 40 + data[place + 40 :])
    table, _ = curated(config, reserved="drop", c2pa=True)
    assert list(table.index[table["status"] == "dropped"]) == ["0000", "0005"]
    assert table.loc["0006", "c2pa_training"] == "unreadable"
    assert "1 kept pictures have Content Credentials" in capsys.readouterr().out
