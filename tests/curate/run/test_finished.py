"""What is said of a damaged file: no command that a finished retraining refuses, and what works there."""

import shlex
from pathlib import Path

import pytest

from curate.__main__ import main as curate
from curate.pack.sample import read_shard
from curate.run import ledger
from curate.run.config import RunFolder
from curate.run.files import write_certified
from curate.run.finished import RECORD, is_finished, refuse_finished, to_mend
from curate.run.manifest import intact, read_funnel, read_manifest
from curate.run.provenance import write_config
from curate.run.schema import UserError
from curate.verify import advice
from evaluate import judging_clip, results
from evaluate.judged_runs.judged import open_judged
from finetune import checkpoint, sidecars, trained_on
from finetune.config import refuse_damaged

_ = curate  # registers the settings


def spoil(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"damaged" * 200)
    if path.suffix == ".yaml":  # only these end with their checksum
        write_config(path, RunFolder())
        path.write_bytes(path.read_bytes() + b"0")
    return path


def _shard(run_dir):
    return read_manifest(run_dir / "curate").shards[0]


def _sample(run_dir):
    shard = run_dir / "curate" / _shard(run_dir).path
    spoil(shard)
    list(read_shard(shard))


def _sidecar(run_dir):
    shard = _shard(run_dir)
    spoil((run_dir / "curate" / shard.path).with_suffix(".parquet"))
    sidecars.read_columns(run_dir / "curate", shard, ["key"])


def _intact(run_dir):
    shard = _shard(run_dir)
    spoil(run_dir / "curate" / shard.path)
    intact(run_dir / "curate", shard)


def _checkpoint(run_dir):
    raise checkpoint.damaged(run_dir / "finetune" / "checkpoints" / "step-00000008", "state.json")


def _judged(run_dir):
    spoil(run_dir / "evaluate" / "report.json")
    open_judged(run_dir)


READERS = {
    "ledger": lambda run: ledger.read(spoil(run / "curate/ledger/part-00000.parquet").parents[1]),
    "manifest": lambda run: read_manifest(spoil(run / "curate/manifest.json").parent),
    "funnel": lambda run: read_funnel(spoil(run / "curate/funnel.json").parent),
    "shard": _intact,
    "sample": _sample,
    "sidecar": _sidecar,
    "config": lambda run: refuse_damaged(spoil(run / "finetune/config.yaml").parents[1]),
    "clip": lambda run: judging_clip.named_by_curation(spoil(run / "curate/config.yaml").parent),
    "checkpoint": _checkpoint,
    "table": lambda run: trained_on.read(spoil(run / "finetune" / trained_on.FILE).parent),
    "report": lambda run: results.load(spoil(run / "evaluate/report.json")),
    "judged": _judged,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("outcome", ["", "promoted"])
def test_a_damaged_file_is_mended_by_what_works(finished, name, outcome):
    """A retraining that has not ended may write it again; one that has may not."""
    write_certified(finished.parent / RECORD, {"outcome": outcome})
    with pytest.raises((UserError, ValueError)) as refused:
        READERS[name](finished.parent)
    said = str(refused.value)
    works = "restore it from a backup" in said and "python -m workflows.promote RUN" in said
    again = any(
        text in said for text in ("python -m curate run", "python -m evaluate", "train with")
    )
    assert (works, again) == (bool(outcome), not outcome)
    assert str(finished.parent) in said


def test_what_is_advised_is_refused_in_no_run(finished):
    write_certified(finished.parent / RECORD, {"outcome": "rejected"})
    with pytest.raises(UserError, match="is a finished retraining"):
        refuse_finished(finished.parent)
    assert is_finished(finished.parent)
    assert "make a new one: python -m workflows.retrain" in to_mend(finished.parent, "type: x")
    spoil(finished.parent / RECORD)
    assert is_finished(finished.parent)  # nobody knows, and all commands refuse it
    assert not is_finished(finished)
    assert to_mend(finished, "type: x") == "type: x"


def test_verify_advises_what_works(finished):
    stages = ["curate", "evaluate", "diff"]
    before = advice(finished.parent, stages)
    assert "python -m curate " in before
    assert "python -m evaluate run.name=done" in before
    write_certified(finished.parent / RECORD, {"outcome": "promoted"})
    said = advice(finished.parent, stages)
    assert said.startswith(f"of curate, evaluate in {finished.parent}: restore it from a backup")
    assert "python -m evaluate" not in said
    assert f"of diff, type: python -m curate.diff RUN_A {shlex.quote(str(finished.parent))}" in said
