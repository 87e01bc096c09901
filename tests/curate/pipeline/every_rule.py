"""A curation in which most rules drop something, of pictures that are generated; and the hashes of what it writes."""

import hashlib
from pathlib import Path

from curate import readers
from curate.annotate.config import AnnotateConfig
from curate.clip.config import ClipConfig
from curate.decide import near, semantic
from curate.decide.config import SplitConfig
from curate.filters.columns import ColumnConfig
from curate.filters.config import FiltersConfig
from curate.filters.duplicates import DuplicatesConfig
from curate.filters.image import ImageFilterConfig
from curate.filters.similarity import ClipSimilarityConfig
from curate.pack.config import ShardsConfig
from curate.pipeline import full
from curate.pipeline.config import CurateConfig
from curate.readers.folder import FolderConfig
from curate.run.config import RunConfig


def config(root, pictures, clip, count, tasks, engine):
    """Of ``count`` pictures, measured in ``tasks`` tasks."""
    return CurateConfig(
        run=RunConfig(root=str(root), name="run"),
        dataset=FolderConfig(name="drawn", reader="folder", root=str(pictures)),
        clip=ClipConfig(name=f"local-dir:{clip}", device="cpu", batch_size=32),
        filters=FiltersConfig(
            image=ImageFilterConfig(max_aspect=3.0),
            clip_similarity=ClipSimilarityConfig(fraction=0.8),
            duplicates=DuplicatesConfig(hamming_distance=6, cosine=0.9999),
            columns={"score": ColumnConfig(maximum=1.5, keep_missing=True)},
        ),
        split=SplitConfig(val=0.1, test=0.1, minimum=4),
        shards=ShardsConfig(max_samples=max(8, count // 40)),
        annotate=AnnotateConfig(images_per_part=-(-count // tasks)),
        engine=engine,
    )


def curate(config) -> Path:
    """The curation's folder, when it is done."""
    full.run(config, readers.read(config.dataset))
    return Path(config.run.root, config.run.name, "curate")


def cut_searches(patch, count) -> None:
    """Have the searches for copies of ``count`` pictures done in several tasks by the engine, as for very many."""
    patch.setattr(near, "_FEW", 0)
    patch.setattr(near, "BUCKET", max(50, count // 4))
    patch.setattr(semantic, "ALONE", 50)


def hashes(curate_dir) -> dict[str, str]:
    """Of ledger, shards, manifest and funnel, by their paths."""
    files = [curate_dir / "manifest.json", curate_dir / "funnel.json"]
    files += [path for name in ("ledger", "shards") for path in (curate_dir / name).rglob("*")]
    return {
        str(path.relative_to(curate_dir)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file()
    }
