"""Kill curation, training and evaluation at random moments: ``python -m tests.kills FOLDER COUNT [SEED]``.

Everything is imported once; each stage then runs in a forked process, which can be killed after a few
milliseconds. After each round of kills, in which every stage is resumed to its end, all bytes have to be
those of an undisturbed run.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from curate import readers
from curate.annotate.config import AnnotateConfig
from curate.clip.config import ClipConfig
from curate.decide.config import SplitConfig
from curate.pack.config import ShardsConfig
from curate.pipeline import full
from curate.pipeline.config import CurateConfig
from curate.readers.folder import FolderConfig
from curate.run import provenance
from curate.run.config import RunConfig
from evaluate.__main__ import start as judge
from evaluate.config import EvaluateConfig, GateConfig
from evaluate.measure_config import GridConfig, SamplesConfig
from finetune.config import (
    CheckpointConfig,
    EmaConfig,
    HeldoutConfig,
    LogConfig,
    OptimConfig,
    TrainConfig,
    TrainingConfig,
)
from finetune.config import RunConfig as TrainedRun
from finetune.drawing.config import SamplerConfig
from finetune.methods import METHODS
from finetune.models.config import ModelConfig
from finetune.train import start as train
from tests.curate.conftest import draw_pictures, save_clip
from tests.finetune.conftest import save_pipeline

IMAGES = 40
MOST_KILLS = 4  # of one stage, before it is left to end
# Checksums list metrics.jsonl, in which seconds are; trackers note the time.
VOLATILE = {".lock", "finetune/checksums.json", "tracking"}


def curate() -> None:
    """40 pictures into ten shards, a third of them held out."""
    config = CurateConfig(
        run=RunConfig(name="killed"),
        dataset=FolderConfig(name="pictures", reader="folder", root="../pictures"),
        clip=ClipConfig(name="local-dir:../clip", device="cpu", batch_size=8),
        split=SplitConfig(val=0.3, test=0.1, minimum=4),
        shards=ShardsConfig(max_samples=4),
        annotate=AnnotateConfig(images_per_part=8),
    )
    full.run(config, readers.read(config.dataset))


def finetune() -> None:
    """Ten updates, five evaluations, three checkpoints of which two keep the optimizer, an export."""
    train(
        TrainConfig(
            run=TrainedRun(name="killed"),
            model=ModelConfig(path="../pipeline", resolution=16),
            method=METHODS["lora"](),
            optim=OptimConfig(lr=1e-3, batch_size=4),
            train=TrainingConfig(samples=40),
            ema=EmaConfig(decay=0.9),
            heldout=HeldoutConfig(every=8, items=4, bins=3, draws=2, batch_size=8),
            checkpoint=CheckpointConfig(every=12, keep=2),
            log=LogConfig(every=4),
        )
    )


def evaluate() -> None:
    """Losses of all checkpoints, pictures, reports."""
    judge(
        EvaluateConfig(
            run=TrainedRun(name="killed"),
            clip=ClipConfig(name="local-dir:../clip", device="cpu"),
            sampler=SamplerConfig("ddim", steps=2),
            gate=GateConfig({}),
            grid=GridConfig(items=8, bins=3, draws=1),
            samples=SamplesConfig(rows=3, clip_captions=6, batch_size=2),
        )
    )


STAGES = (curate, finetune, evaluate)


def forked(work: Callable[[], object], folder: Path, kill_after_s: float | None = None) -> bool:
    """Run ``work`` in a process of its own, in ``folder``; returns whether it came to its end.

    Raises:
        RuntimeError: it failed by itself; ``folder/said`` has what it printed.
    """
    child = os.fork()
    if child == 0:
        _be(work, folder)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return False
    if os.waitstatus_to_exitcode(status):
        raise RuntimeError(f"{work.__name__} failed:\n{(folder / 'said').read_text()[-4000:]}")
    return True


def _be(work: Callable[[], object], folder: Path) -> None:
    """The child's part; never returns."""
    code = 1
    try:
        os.chdir(folder)
        said = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(said, stream)
        work()
        Path("modules").write_text("\n".join(sys.modules))
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def import_as_in(folder: Path) -> None:
    """Import what a finished stage did, so that no later process has to."""
    for name in (folder / "modules").read_text().splitlines():
        with suppress(ImportError):
            importlib.import_module(name)


def contents(run: Path) -> dict[str, str]:
    """A hash of each file, and where each link leads; of the metrics, what does not depend on the clock."""
    found = {}
    for path in sorted(run.rglob("*")):
        inside = path.relative_to(run)
        name = inside.as_posix()
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file() and VOLATILE.isdisjoint((name, *inside.parts)):
            found[name] = hashlib.sha256(_bytes(path)).hexdigest()
    return found


def _bytes(path: Path) -> bytes:
    if path.name != "metrics.jsonl":
        return path.read_bytes()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        record.pop("samples_per_s", None)
    return json.dumps(records).encode()


def make_inputs(folder: Path) -> None:
    """Pictures with captions, a CLIP and a diffusion pipeline of a few thousand weights."""
    draw_pictures(folder / "pictures", IMAGES)
    save_clip(folder / "clip")
    save_pipeline(folder / "pipeline")


def main(folder: Path, count: int, seed: int) -> dict[str, int]:
    """Kill ``count`` times; returns how often each stage was killed.

    Raises:
        RuntimeError: a stage failed, or bytes differ.
    """
    draw, kills, rounds = random.Random(seed), Counter(), 0
    forked(lambda: make_inputs(folder), folder)
    provenance._revision = lambda: "unchanged"  # somebody may edit the checkout meanwhile
    took = {}
    for name in ("imports", "straight"):
        (folder / name).mkdir()
        for stage in STAGES:
            began = time.monotonic()
            forked(stage, folder / name)
            took[stage] = time.monotonic() - began
            import_as_in(folder / name)
    expected = contents(folder / "straight" / "runs" / "killed")
    print({stage.__name__: round(seconds, 2) for stage, seconds in took.items()}, file=sys.stderr)
    while kills.total() < count:
        rounds += 1
        here = folder / f"round-{rounds}"
        here.mkdir()
        for stage in STAGES:
            for _ in range(draw.randint(1, MOST_KILLS)):
                kills[stage.__name__] += not forked(stage, here, draw.uniform(0, 1.1 * took[stage]))
            forked(stage, here)
        found = contents(here / "runs" / "killed")
        if found != expected:
            odd = sorted(n for n in found.keys() | expected if found.get(n) != expected.get(n))
            raise RuntimeError(f"round {rounds}, seed {seed}: {', '.join(odd[:20])} differ")
    return dict(kills)


if __name__ == "__main__":
    os.environ["TQDM_MININTERVAL"] = "1"
    arguments = sys.argv[3:] or [str(random.randrange(2**32))]
    print(json.dumps(main(Path(sys.argv[1]).resolve(), int(sys.argv[2]), int(arguments[0]))))
