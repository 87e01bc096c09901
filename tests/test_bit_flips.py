"""A flipped bit in any file of a run is found by verify, and refused or mended by whoever reads the file.

``FLIPS=500 SEED=1 python -m pytest tests/test_bit_flips.py -s`` flips more, and prints what came of them.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from curate import readers
from curate.annotate.config import AnnotateConfig
from curate.clip.config import ClipConfig
from curate.decide.config import SplitConfig
from curate.explain import explain
from curate.filters.config import FiltersConfig
from curate.filters.similarity import ClipSimilarityConfig
from curate.pack.config import ShardsConfig
from curate.pipeline import full
from curate.pipeline.config import CurateConfig
from curate.readers.folder import FolderConfig
from curate.remove import remove
from curate.run import checksums, provenance
from curate.run.config import RunConfig
from curate.run.schema import UserError
from curate.verify import STAGES, problems, stage_problems
from evaluate.run import evaluate_run
from tests.curate.conftest import draw_pictures, save_clip
from tests.evaluate.test_run import config as evaluation_of
from tests.finetune.conftest import make_config, pipeline_dir, run_training

__all__ = ["make_config", "pipeline_dir", "run_training"]

FLIPS = int(os.environ.get("FLIPS", "150"))
READ = int(os.environ.get("READ", str(FLIPS // 5)))  # after so many of them, commands run
SEED = int(os.environ.get("SEED", "0"))

# Files that say when or where, or how fast it went: they differ from run to run.
_OWN = ("config.yaml", "metrics.jsonl", "report.html", "checksums.json", "summary.md", "junit.xml")


class Run:
    """A finished run and the commands that made it."""

    def __init__(self, folder: Path, commands: dict[str, Callable[[], object]]) -> None:
        self.folder, self.commands = folder, commands
        self.whole = {path: path.read_bytes() for path in self.files()}
        self.links = {path: path.readlink() for path in folder.rglob("*") if path.is_symlink()}
        self.digests = self.results()
        self.keys = sorted(path.stem for path in folder.glob("evaluate/samples/base/*.png"))[:1]
        self.story = self.told()
        commands["explain"] = self.explain

    def files(self) -> list[Path]:
        """All but the locks, the latent caches, which training makes again, and what only people look at."""
        found = sorted(path for path in self.folder.rglob("*") if path.is_file())
        inside = [path for path in found if not path.is_symlink() and path.name != ".lock"]
        return [path for path in inside if {"last", "cache", "tracking"}.isdisjoint(path.parts)]

    def results(self) -> dict[Path, str]:
        """The hashes of all files that repeat to the byte."""
        files = [path for path in self.files() if path.name not in _OWN]
        files += self.folder.glob("finetune/checkpoints/*/checksums.json")
        return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def told(self) -> list[str]:
        """What explain says."""
        return list(explain(self.folder / "curate", self.keys))

    def explain(self) -> None:
        """Fail if it says something else."""
        assert self.told() == self.story

    @contextmanager
    def flipped(self, path: Path, bit: int) -> Iterator[None]:
        """One bit of a file is another, until the block ends; then all files are as they were."""
        content = bytearray(self.whole[path])
        content[bit // 8] ^= 1 << bit % 8
        _replace(path, content)
        try:
            yield
        finally:
            _replace(path, self.whole[path])
            self.restore()

    def restore(self) -> None:
        """Undo what commands did."""
        now = set(self.files())
        for path in now - self.whole.keys():
            path.unlink()
        for path, content in self.whole.items():
            if path not in now or path.read_bytes() != content:
                _replace(path, content)
        for link, target in self.links.items():
            link.unlink(missing_ok=True)
            link.symlink_to(target)


def _replace(path: Path, content: bytes | bytearray) -> None:
    """As another file, so that no process takes it for one that it has checked already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.new")
    part.write_bytes(content)
    part.replace(path)


@pytest.fixture
def run(make_config, run_training, tmp_path, monkeypatch):
    """Curated (with a removal), trained and judged, each by its own code."""
    monkeypatch.setattr(provenance, "_revision", lambda: None)  # somebody may commit meanwhile
    root = make_config("unused").run.root
    clip = save_clip(tmp_path / "clip")
    curation = CurateConfig(
        run=RunConfig(root=root, name="flips"),
        dataset=FolderConfig(
            name="small",
            reader="folder",
            root=str(draw_pictures(tmp_path / "pictures", 72)),
        ),
        clip=ClipConfig(name=f"local-dir:{clip}", device="cpu", batch_size=8),
        filters=FiltersConfig(clip_similarity=ClipSimilarityConfig(fraction=0.9)),
        split=SplitConfig(val=0.25, test=0.1, minimum=4),
        shards=ShardsConfig(max_samples=16),
        annotate=AnnotateConfig(images_per_part=24),
    )

    def curate() -> None:
        full.run(curation, readers.read(curation.dataset))

    curate()
    folder = curation.run.folder
    [key] = [path.stem for path in sorted((tmp_path / "pictures").glob("0001.png"))]
    remove(folder / "curate", "keys", {key}, "0" * 64)
    curate()
    training = make_config("flips", method="lora", **{"optim.lr": 0.01})
    commands = {
        "curate": curate,
        "finetune": lambda: run_training(training),
        "evaluate": lambda: evaluate_run(evaluation_of(training, clip, items=8), lambda _: None),
    }
    with redirect_stdout(StringIO()):
        commands["finetune"]()
        commands["evaluate"]()
    return Run(folder, commands)


def kind_of(run: Run, path: Path) -> str:
    """Files of one kind are written and read by the same code."""
    inside = path.relative_to(run.folder)
    folder = inside.parts[1] if len(inside.parts) > 2 else ""
    name = inside.name if inside.suffix != ".parquet" else "*.parquet"
    name = "*_stats.json" if name.endswith("_stats.json") else name
    name = f"*{inside.suffix}" if inside.suffix in (".tar", ".png") else name
    return f"{inside.parts[0]}/{folder}/{name}"


def flips(run: Run, count: int, seed: int) -> Iterator[tuple[str, Path, int]]:
    """Single bits, every kind of file as often, every bit of a kind alike."""
    draw = random.Random(seed)
    kinds: dict[str, list[Path]] = {}
    for path, content in run.whole.items():
        if content:
            kinds.setdefault(kind_of(run, path), []).append(path)
    for number in range(count):
        kind = sorted(kinds)[number % len(kinds)]
        sizes = [len(run.whole[path]) for path in kinds[kind]]
        [path] = draw.choices(kinds[kind], sizes)
        yield kind, path, draw.randrange(8 * len(run.whole[path]))


def found(run: Run, stage: str) -> list[str]:
    """What verify says of a stage."""
    folder = run.folder / stage
    return list(problems(folder) if stage == "curate" else stage_problems(folder))


@pytest.mark.slow
def test_verify_finds_every_flip(run):
    assert [line for stage in STAGES for line in found(run, stage)] == []
    counts: Counter[str] = Counter()
    for kind, path, bit in flips(run, FLIPS, SEED):
        stage = path.relative_to(run.folder).parts[0]
        with run.flipped(path, bit):
            try:
                lines = found(run, stage)
            except UserError as error:  # the list of removals
                lines = [str(error)]
        assert lines, f"bit {bit} of {path}"
        counts[kind] += 1
    print("\n".join(f"{count:4} found in {kind}" for kind, count in sorted(counts.items())))


def outcome(run: Run, command: str) -> str:
    """What the next command makes of a flipped bit; "silent" where a result is another."""
    said = StringIO()
    try:
        with redirect_stdout(said):
            run.commands[command]()
    except UserError as error:
        named = any(word in str(error) for word in ("damaged", "delete", "Restore"))
        return "refused" if named else f"silent: {error}"
    if changed := {
        path for path, digest in run.results().items() if run.digests.get(path) != digest
    }:
        return f"silent: {sorted(changed)}"
    if lost := run.digests.keys() - run.results().keys():
        return f"silent: {sorted(lost)} are gone"
    return "mended" if "damaged" in said.getvalue() else "as before"


@pytest.mark.slow
def test_no_command_uses_a_flipped_bit(run):
    """Curation, training and evaluation, typed again, end with the same bytes or say what is damaged.

    A shard, and a checkpoint that is not the last, are trusted by the command that wrote them, for
    the time that hashing takes; whoever reads them checks. So each command runs on its own.
    """
    counts: Counter[tuple[str, str]] = Counter()
    after = {
        "curate": ("explain", "curate", "finetune", "evaluate"),
        "finetune": ("finetune", "evaluate"),
    }
    for kind, path, bit in flips(run, READ, SEED + 1):
        stage = path.relative_to(run.folder).parts[0]
        for command in after.get(stage, ("evaluate",)):
            with run.flipped(path, bit):
                result = outcome(run, command)
            if result == f"silent: {[path]}":  # all that differs, so that it was not needed
                result = "as before"
            assert not result.startswith("silent"), f"bit {bit} of {path}, {command}: {result}"
            counts[kind, f"{command}: {result}"] += 1
    print("\n".join(f"{n:4} {kind:45} {what}" for (kind, what), n in sorted(counts.items())))


@pytest.mark.slow
def test_checksums_of_a_removal(run):
    """A command that changes some files lists them again, and does not make right what was damaged."""
    config = run.folder / "curate" / "config.yaml"
    config.write_bytes(config.read_bytes().replace(b"max_samples: 16", b"max_samples: 17"))
    remove(run.folder / "curate", "keys", set(run.keys), "1" * 64)
    assert run.results() != run.digests
    assert checksums.damaged(run.folder / "curate") == ["config.yaml"]
