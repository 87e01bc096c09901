"""Pairs per second of the annotate stage, compared with a plain DataLoader and with the model alone."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from curate.readers.candidate import Candidate
from workflows.bench.compare import Variants, compare, say
from workflows.bench.data import Photographs

PICTURES = 32
MODEL = "ViT-B-32-quickgelu"


def run() -> None:
    """Print rates and ratios, and the largest difference of our similarities to the baseline's."""
    import torch

    from curate.clip.check import slowdown

    source = Photographs(PICTURES).source()
    candidates = list(source.candidates())
    scorers = {precision: random_scorer(precision) for precision in ("fp32", "bf16")}
    full = scorers["fp32"]
    pixels = [full.preprocess(_decode(source.load(c.location))) for c in candidates]
    captions = [caption for c in candidates for caption in c.captions]
    baseline = _Baseline(full, candidates, source.load)
    variants: Variants = {
        "ours, fp32": lambda: annotated(source, full),
        "ours, bf16": lambda: annotated(source, scorers["bf16"]),
        "baseline (DataLoader, padded, fp32)": baseline.similarities,
        "model alone on prepared tensors, fp32": lambda: _model_alone(full, pixels, captions),
    }
    _model_alone(full, pixels[:2], captions[:2])  # warms up
    compare(f"scoring with {MODEL}, {len(captions)} pairs", variants, len(captions), "pairs")
    ours = annotated(source, full)["clip_similarity"].to_numpy()
    say(
        f"  largest difference to the baseline, fp32: {np.abs(ours - baseline.similarities()).max():.1e}"
    )
    say(
        f"  a linear layer in bf16 takes {slowdown(torch.bfloat16):.1f} times as long as in fp32 here"
    )
    _start_up(source.load(candidates[0].location))


def annotated(source: Any, scorer: Any) -> pd.DataFrame:
    """Annotate a source into an empty folder and load the result."""
    from curate.annotate.config import AnnotateConfig
    from curate.annotate.frame import frame_of
    from curate.annotate.layout import Layout
    from curate.annotate.spec import AnnotationSpec
    from curate.annotate.stage import Measure, annotate
    from curate.filters.caption import CaptionFilterConfig
    from curate.filters.image import ImageFilterConfig
    from curate.filters.prefilter import Prefilter

    spec = AnnotationSpec("bench", Prefilter(ImageFilterConfig(), CaptionFilterConfig()))
    with tempfile.TemporaryDirectory() as folder:
        measure = Measure(Path(folder, "annotations"), AnnotateConfig(), spec, lambda: scorer)
        parts = annotate(source, measure).parts
        return frame_of(parts, Layout.of(parts), spec)


def random_scorer(precision: str) -> Any:
    """ViT-B/32 with random weights: as fast as the real one, without a download."""
    import open_clip
    import torch

    from curate.clip.scorer import ClipScorer

    torch.manual_seed(0)
    model, _, preprocess = open_clip.create_model_and_transforms(MODEL, precision=precision)
    return ClipScorer(
        name=MODEL,
        fingerprint=precision,
        model=model.eval(),
        preprocess=preprocess,
        tokenizer=open_clip.get_tokenizer(MODEL),
        device=torch.device("cpu"),
        dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
        batch_size=32,
    )


def _decode(data: bytes) -> Any:
    from curate.measures.decode import decode

    return decode(data)


class _Baseline:
    """What clip-retrieval and most scripts do: one row per caption, so a picture is decoded once for each.

    Captions are padded to the full context.
    """

    def __init__(self, scorer: Any, candidates: list[Candidate], load: Any) -> None:
        self.scorer = scorer
        self.rows = [(load(c.location), caption) for c in candidates for caption in c.captions]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        import io

        from PIL import Image

        data, caption = self.rows[row]
        image = Image.open(io.BytesIO(data)).convert("RGB")
        return self.scorer.preprocess(image), self.scorer.tokenizer([caption])[0]

    def similarities(self) -> np.ndarray:
        """Cosines (N,) of all pairs."""
        import torch
        from torch.utils.data import DataLoader

        found = []
        with torch.inference_mode():
            for images, tokens in DataLoader(self, batch_size=64, num_workers=2):  # type: ignore[arg-type]
                one = self.scorer.model.encode_image(images, normalize=True)
                other = self.scorer.model.encode_text(tokens, normalize=True)
                found.append((one * other).sum(dim=-1).numpy())
        return np.concatenate(found)


def _model_alone(scorer: Any, pixels: list[Any], captions: list[str]) -> None:
    """Run both towers on prepared pixels and captions: each picture once, captions unpadded."""
    scorer.encode_pixels(pixels)
    scorer.encode_texts(captions)


def _start_up(picture: bytes) -> None:
    """Print the seconds that a new process takes to import, load the model and score one pair."""
    import subprocess
    import sys

    started = time.perf_counter()
    code = (
        "import sys, io; from PIL import Image\n"
        "from curate.clip.config import ClipConfig; from curate.clip.load import load_clip\n"
        "scorer = load_clip(ClipConfig(name='local-dir:curate/starter_clip'))\n"
        "image = Image.open(io.BytesIO(sys.stdin.buffer.read())).convert('RGB')\n"
        "scorer.encode_images([image]) @ scorer.encode_texts(['a cat']).T"
    )
    subprocess.run([sys.executable, "-c", code], input=picture, check=True)
    taken = time.perf_counter() - started
    say(f"  start-up to the first scored pair, built-in CLIP: {taken:.1f} s")
