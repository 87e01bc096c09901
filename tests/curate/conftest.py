"""A CLIP of a few thousand weights at random, and a folder of pictures with captions."""

import hashlib
import io
import json
import os
import random
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
VISION = {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16}


@pytest.fixture(scope="session")
def shared():
    """The folder of real test data beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not there")
    return SHARED


def save_clip(folder: Path, **text) -> Path:
    """Write a random CLIP as a ``local-dir:`` folder; ``text`` overrides keys of the text tower."""
    import torch
    from open_clip.factory import create_model
    from safetensors.torch import save_file

    config = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": {**TEXT, **text}}
    folder.mkdir(parents=True)
    content = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    torch.manual_seed(0)
    model = create_model(f"local-dir:{folder}", load_weights=False)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="session")
def make_clip():
    return save_clip


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("clip") / "tiny")


def draw_pictures(folder: Path, count: int, seed: int = 0) -> Path:
    """PNG pictures of random blocks, each with a caption of random words beside it."""
    draw = random.Random(seed)
    words = ["red", "green", "small", "large", "cat", "dog", "bird", "tree", "house", "sun"]
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = [tuple(draw.randrange(256) for _ in range(3)) for _ in range(16)]
        image = Image.new("RGB", (4, 4))
        image.putdata(pixels)
        image.resize((40, 32), Image.Resampling.NEAREST).save(folder / f"{number:04d}.png")
        caption = " ".join(draw.choices(words, k=draw.randint(1, 6)))
        (folder / f"{number:04d}.txt").write_text(f"{caption} {number}\n")
    return folder


@pytest.fixture(scope="session")
def make_pictures():
    return draw_pictures


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    return draw_pictures(tmp_path_factory.mktemp("data") / "pictures", 48)


def hash_files(curate_dir):
    """Hash of every file of a run but its configuration, which names the run's own place."""
    return {
        str(path.relative_to(curate_dir)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(curate_dir.rglob("*"))
        if path.is_file()
        and "tracking" not in path.relative_to(curate_dir).parts
        and path.name not in ("config.yaml", "report.html", "checksums.json", ".lock")
    }


@pytest.fixture(scope="session")
def bytes_of():
    return hash_files


def finished_rows():
    """A ledger of 24 pictures, the first with two captions; 2 are dropped, 1 is unreadable."""
    rows = []
    for i in range(24):
        row = {"key": f"k{i:02d}", "caption_index": 0, "source": "drawn", "caption": f"a cat {i}"}
        row |= {"width": 8, "height": 6, "format": "PNG", "phash": f"{i:016x}", "bytes": 0}
        row["phash_mirrored"] = row["phash"]
        row |= {"clip_similarity": np.float32(0.25 + i / 100), "clip_model": "tiny 0"}
        row |= {
            "kept": True,
            "rule": "",
            "reason": "",
            "status": "kept",
            "duplicate_group": f"{i:016x}",
        }
        row |= {"duplicate_of": "", "url": f"https://x.org/{i}", "licence": ["CC0", ""][i % 2]}
        row |= {"split": "val" if i < 2 else "train", "sharpness": 1.5}
        row["shard"] = f"shards/{row['split']}/{i // 10 if i > 1 else 0:06d}.tar"
        rows.append(row)
    gone = {"kept": False, "status": "dropped", "split": "", "shard": ""}
    rows[3] |= gone | {"rule": "clip_similarity", "reason": "clip_similarity < 0.29"}
    rows[4] |= gone | {"rule": "duplicate", "reason": "duplicate"}
    rows[4] |= {"duplicate_of": "k05", "duplicate_group": f"{5:016x}"}
    rows[6] |= gone | {"status": "unreadable", "width": 0}
    rows[6] |= {"rule": "unreadable", "reason": "unreadable: truncated"}
    rows[6] |= {
        "clip_similarity": np.float32("nan"),
        "duplicate_group": "",
        "phash": "",
        "phash_mirrored": "",
    }
    return [rows[0], rows[0] | {"caption_index": 1, "caption": "meow"}, *rows[1:]]


@pytest.fixture
def finished(tmp_path):
    """The run ``tmp_path/runs/done``, put together by tarfile and pandas: 4 shards, 21 samples."""
    curate_dir = tmp_path / "runs" / "done" / "curate"
    rows, shards = finished_rows(), []
    for row in rows:
        stream = io.BytesIO()
        Image.new("RGB", (8, 6), (int(row["key"][1:]), 0, 0)).save(stream, "PNG")
        row |= {"image": stream.getvalue(), "sha256": hashlib.sha256(stream.getvalue()).hexdigest()}
    for path in sorted({row["shard"] for row in rows} - {""}):
        inside = {row["key"]: row for row in rows if row["shard"] == path}
        shards.append(write_finished_shard(curate_dir, path, inside))
    ledger = pd.DataFrame(rows).drop(columns="image")
    (curate_dir / "ledger").mkdir()
    for number, part in enumerate((ledger[:10], ledger[10:])):
        part.to_parquet(curate_dir / f"ledger/part-{number:05d}.parquet", index=False)
    totals = {"pairs_in": 25, "kept": 22, "dropped": 2, "unreadable": 1}
    totals["samples"] = {"train": 19, "val": 2, "test": 0}
    manifest = {"version": 1, "shards": shards, "totals": totals, "fingerprint": {}}
    funnel = {"rules": [{"rule": "duplicate", "dropped": 1, "left": 22}], "reasons": {}, **totals}
    funnel["cut"] = {"similarity": 0.29, "by": "minimum=0.29"}
    for name, content in (("manifest", manifest | {"image_format": "png"}), ("funnel", funnel)):
        (curate_dir / f"{name}.json").write_text(json.dumps(content))
    (curate_dir / "report.html").write_text("<html>")
    return curate_dir


def write_finished_shard(curate_dir, path, rows):
    """One tar with its table and statistics; its entry in the manifest."""
    file = curate_dir / path
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, row in rows.items():
            meta = {"key": key, "captions": [row["caption"]], "split": row["split"]}
            meta |= {"format": "PNG", "sha256": row["sha256"]}
            contents = {"png": row["image"], "json": json.dumps(meta).encode(), "txt": b"a cat"}
            for extension, content in contents.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    table = pd.DataFrame({"key": [*rows], "captions": [[row["caption"]] for row in rows.values()]})
    table.to_parquet(file.with_suffix(".parquet"), index=False)
    found = {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    stats = {"count": len(rows), "successes": len(rows), "plan": "a plan", **found}
    file.with_name(f"{file.stem}_stats.json").write_text(json.dumps(stats))
    split = path.split("/")[1]
    return {"path": path, "split": split, "samples": len(rows), **found}


def write_annotations(
    run_dir, clip="here", noise=1.0, offset=0.0, parts=4, seed=0, key="k", caption=None, renamed=400
):
    """Annotations of pairs in random directions; ``offset`` raises all similarities alike.

    From number ``renamed`` on keys are others; ``caption`` is that of all.
    """
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    from curate.annotate.parts import METADATA

    def unit(vectors):
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    count, dimensions = 400, 64
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(count, dimensions))
    texts = unit(images + noise * rng.normal(size=images.shape))
    common = np.full((count, 1), np.sqrt(offset), np.float32)
    scale = np.float32(np.sqrt(1 - offset))
    images, texts = (np.hstack([scale * unit(v), common]) for v in (images, texts))
    table = pd.DataFrame(
        {
            "key": [f"{key}{n + 500 * (n >= renamed):04d}" for n in range(count)],
            "caption_index": 0,
            "caption": [caption or f"caption {n}" for n in range(count)],
            "pixels_sha256": [f"{n:016x}" for n in range(count)],
            "clip_similarity": (images * texts).sum(axis=1).astype(np.float32),
            "image_embedding": [row.astype(np.float32).tobytes() for row in images],
            "text_embedding": [row.astype(np.float32).tobytes() for row in texts],
        }
    )
    table.loc[5, "clip_similarity"] = np.nan  # one that the prefilter kept out
    table.loc[5, ["image_embedding", "text_embedding"]] = None
    folder = run_dir / "curate" / "annotations"
    folder.mkdir(parents=True)
    head = {METADATA: json.dumps({"clip_model": f"{clip} 0123456789abcdef"})}
    for number, rows in enumerate(np.array_split(np.arange(count), parts)):
        part = pa.Table.from_pandas(table.iloc[rows], preserve_index=False)
        pq.write_table(part.replace_schema_metadata(head), folder / f"part-{number:05d}.parquet")
    return run_dir


@pytest.fixture(scope="session")
def write_scored():
    return write_annotations


@pytest.fixture
def s3(monkeypatch):
    """A server of S3 on loopback, to which the environment leads."""
    from curate.run import remote
    from tests.curate import s3_server

    with s3_server.running() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        remote._s3.cache_clear()
        yield server
        remote._s3.cache_clear()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a file system")
    yield folder
    # Lazily: the frames of an error that the test has caught may have a file mapped.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
