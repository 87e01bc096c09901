"""What a new run costs when 5 % of its pictures are new: pictures scored, and seconds against scoring all of them."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflows.bench.compare import Variants, compare, say
from workflows.bench.data import Photographs
from workflows.bench.scoring import MODEL, random_scorer

if TYPE_CHECKING:
    from curate.readers.source import Source

PICTURES, NEW = 160, 8
BATCH_SIZE = 8  # each batch is filled up, and of 8 pictures a larger one would be filling


def run() -> None:
    """Print how many pictures each run scored, rates and ratios."""
    scorer = replace(random_scorer("fp32"), batch_size=BATCH_SIZE)
    drawn = Photographs(PICTURES + NEW, distinct=None).source()
    data = {c.location: drawn.load(c.location) for c in drawn.candidates()}  # drawing takes longer
    source = replace(drawn, load=data.__getitem__)
    every = (PICTURES + NEW) // NEW  # so that the new ones are among the others
    known = [c for number, c in enumerate(source.candidates()) if number % every]
    scored: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        earlier = replace(source, candidates=lambda: iter(known), total=len(known))
        scored["the run before"] = _scored(scorer, earlier, root / "before", root / "cache")

        def all_of_them() -> None:
            scored["a new run that shares nothing"] = _scored(scorer, source, root / "alone", None)

        def what_is_new() -> None:
            # As the run before left it, so that each round finds the same.
            shutil.copytree(root / "cache", root / "copy", copy_function=shutil.copy)
            name = "a new run"
            scored[name] = _scored(scorer, source, root / "new", root / "copy")
            shutil.rmtree(root / "copy")

        variants: Variants = {
            "nothing shared": all_of_them,
            f"{PICTURES} of them known": what_is_new,
        }
        title = f"scoring {PICTURES + NEW} pictures with {MODEL}, {NEW} of them new"
        compare(title, variants, PICTURES + NEW, "img")
    for name, count in scored.items():
        say(f"  {name} scored {count} pictures")


def _scored(scorer: Any, source: Source, folder: Path, cache: Path | None) -> int:
    """Annotate a source in a run of its own; how many pictures the model was given."""
    from curate.annotate.config import AnnotateConfig
    from curate.annotate.spec import AnnotationSpec
    from curate.annotate.stage import TASKS, Measure, annotate
    from curate.annotate.store import StorePlace
    from curate.filters.caption import CaptionFilterConfig
    from curate.filters.image import ImageFilterConfig
    from curate.filters.prefilter import Prefilter

    spec = AnnotationSpec("bench", Prefilter(ImageFilterConfig(), CaptionFilterConfig()))
    before = scorer.images.items
    store = StorePlace(cache) if cache else None
    annotate(source, Measure(folder, AnnotateConfig(), spec, lambda: scorer, store))
    shutil.rmtree(folder)
    shutil.rmtree(folder.with_name(TASKS))
    return scorer.images.items - before
