"""Speed as ratios inside one run: ours, the usual way and the bare model take turns (`make bench`).

Machines are shared and drift, so a rate alone says little: each round times every way once, and what
is printed are medians over rounds of the ratios within a round.
"""

from __future__ import annotations

import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROUNDS = 3
PICTURES, CAPTIONS_EACH, SIDE_PX = 192, 5, 256
WORDS = [
    *("a", "red", "blue", "small", "large", "cat", "dog", "house"),
    *("tree", "on", "under", "beside", "the", "table", "street"),
]

Ways = dict[str, Callable[[], object]]


def compare(title: str, ways: Ways, samples: int, unit: str) -> None:
    """Time every way in turn and print rate and ratio to the last one, which is the yardstick."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(ROUNDS + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if round_number:  # the first round warms caches up
                seconds[name].append(time.perf_counter() - started)
    yardstick = list(ways)[-1]
    _say(f"\n{title} (median of {ROUNDS} rounds; ratio within each round)")
    for name, taken in seconds.items():
        ratios = [base / own for own, base in zip(taken, seconds[yardstick], strict=True)]
        rate = samples / statistics.median(taken)
        _say(f"  {name:44} {rate:8.1f} {unit}/s   {statistics.median(ratios):5.2f} x {yardstick}")


def curation() -> None:
    """Pairs per second of the annotate stage against the usual way and the bare model."""
    from curate import clip
    from curate.annotate import annotate
    from curate.config import AnnotateConfig, ClipConfig
    from curate.images import decode

    scorer = clip.load_clip(ClipConfig(name="local-dir:curate/starter_clip"))
    candidates = _candidates()
    captions = [caption for candidate in candidates for caption in candidate.captions]
    prepared = [scorer.preprocess(decode(candidate.load())) for candidate in candidates]

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            annotate(candidates, Path(folder), AnnotateConfig(), "bench", lambda: scorer)

    def usual() -> None:
        for candidate in candidates:
            pixels = [scorer.preprocess(decode(candidate.load())) for _ in candidate.captions]
            _encode(scorer, pixels, list(candidate.captions))

    ways: Ways = {
        "ours": ours,
        "a picture for each caption, captions padded": usual,
        "bare model on ready tensors": lambda: _encode(scorer, prepared, captions),
    }
    compare("curation, fp32, 5 captions a picture", ways, len(captions), "pairs")


def _encode(scorer: Any, pixels: list[Any], captions: list[str]) -> None:
    """Both towers as open_clip runs them, captions padded to the context."""
    import torch

    with torch.inference_mode():
        for part in torch.stack(pixels).split(scorer.batch_size):
            scorer.model.encode_image(part)
        for part in scorer.tokenizer(captions).split(scorer.batch_size):
            scorer.model.encode_text(part)


def _candidates() -> list[Any]:
    from PIL import Image

    from curate.sample import Candidate

    rng = np.random.default_rng(0)
    found = []
    for number in range(PICTURES):
        coarse = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(coarse).resize((SIDE_PX, SIDE_PX)).save(stream, "JPEG", quality=90)
        captions = tuple(
            " ".join(rng.choice(WORDS, rng.integers(4, 14))) for _ in range(CAPTIONS_EACH)
        )
        data = stream.getvalue()
        found.append(Candidate(f"{number:06d}", captions, "bench", "0", lambda data=data: data))
    return found


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    curation()
