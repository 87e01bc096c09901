"""Speed of training: updates, cache and loader, as ratios within one run; on CUDA also true sizes with random weights.

Two models: the built-in one at its own size, and one of Stable Diffusion 1.5's shape at 512 px, all of whose widths are a
quarter, so that an update takes about a second on a processor. An update is compared with

- the bare one: forward and backward pass, clipping and AdamW on tensors that are there already, and
- what diffusers' example scripts do (train_text_to_image, train_text_to_image_lora): read, decode and crop the pictures
  and encode them and their captions with VAE and text encoder in every step. Written from their published behaviour.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from workflows.bench.compare import say

if TYPE_CHECKING:
    from workflows.bench.training_cases import Case

METHODS = ("lora", "full")
ROUNDS, FILLINGS = 5, 3


def run() -> None:
    """Print rates and ratios."""
    import torch

    from workflows.bench import million
    from workflows.bench.training_cases import reduced, starter

    if torch.cuda.is_available():
        from workflows.bench import training_gpu

        training_gpu.run()
        return
    with tempfile.TemporaryDirectory() as folder:
        cases = {"built-in": starter, "SD 1.5's shape, a quarter as wide": reduced}
        for number, (name, make) in enumerate(cases.items()):
            for method in METHODS:
                _updates(name, method, make, Path(folder) / f"{number}-{method}")
    million.run()


def _updates(name: str, method: str, make: Callable[[Path, str], Case], folder: Path) -> None:
    """Compare updates of one model; with the first method its cache and loader as well."""
    case = make(folder, method)
    variants = {
        "with caches, as training does": case.ours,
        "bare update": case.bare,
        "VAE and text encoder in each": case.without_caches,
    }
    case.warm_up(variants.values())
    seconds = case.timed(variants, ROUNDS)
    ours, bare, without = seconds.values()
    say(f"\nupdates of {case.batch} samples, {name}, method={method} (medians of {ROUNDS} rounds)")
    for title, taken in seconds.items():
        say(f"  {title:36}{case.median(taken):8.3f} s")
    say(f"  training against the bare update    {case.ratio(bare, ours):8.3f}  (aim >= 0.95)")
    say(f"  training against no caches          {case.ratio(without, ours):8.2f}  (aim >= 1.6)")
    if method == METHODS[0]:
        loaded = case.timed({"loader": case.load}, ROUNDS)["loader"]
        faster = case.median(ours) / case.median(loaded)
        say(f"  loader alone against an update      {faster:8.1f}  (aim >= 20)")
        _cache(name, case)


def _cache(name: str, case: Case) -> None:
    encoded, bare = case.encoding(FILLINGS)
    say(f"\ncache of {case.pictures} pictures with a caption each, {name}")
    say(
        f"  filling it {case.median(encoded):8.2f} s, VAE and text encoder alone {case.median(bare):8.2f} s: "
        f"{case.ratio(bare, encoded):.3f}  (aim >= 0.9)"
    )
    say(f"  bytes a pair on the disk {case.bytes_a_pair():12,.0f}")
