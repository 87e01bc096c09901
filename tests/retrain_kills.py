"""Kill a series of retrainings at random moments: ``python -m tests.retrain_kills FOLDER COUNT [SEED]``.

Three retrainings by the real commands, on tiny pictures and models: a first one, one with more pictures, one with
a setting that teaches nothing. Half of the kills take ``workflows.retrain`` alone and leave its step an orphan,
half take the whole tree. After each round of kills everything that counts has to be as in an undisturbed series.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.curate.conftest import draw_pictures, save_clip
from tests.finetune.conftest import save_pipeline

ROOT = Path(__file__).resolve().parents[1]
FIRST, ADDED = 80, 8  # pictures
WORK = "work"  # the folder of the series at work
MOST_KILLS = 4  # of one retraining, before it is left to end
SHARE = 0.4  # of a retraining's time, within which it is killed; what it has done stays, so that later steps come
PATIENCE_S = 600
EXPERIMENT = """
curate:
  run.name: killed
  dataset: folder
  dataset.root: ../pictures
  clip: custom
  clip.name: local-dir:../clip
  clip.device: cpu
  clip.batch_size: 8
  filters: everything
  split.val: 0.45
  split.test: 0.1
  split.minimum: 4
  shards.max_samples: 8
  annotate.images_per_part: 8
train:
  model.path: ../pipeline
  model.resolution: 16
  method: lora
  optim.lr: 0.01
  optim.batch_size: 4
  train.samples: 40
  heldout: {every: 16, items: 8, bins: 3, draws: 1, batch_size: 8}
  checkpoint.every: 16
  log.every: 4
  doctor.captions: warn
  doctor.base: "off"
evaluate:
  sampler: ddim
  sampler.steps: 2
  gate: none
  grid: {items: 40, bins: 3, draws: 1}
  samples: {rows: 2, clip_captions: 0}
  copying.pictures: 0
  retention.items: 0
  reconsider.pictures: 0
  distribution.features: "off"
retrain:
  keep: 2
"""
RETRAINED = ([], [], ["train.optim.lr=1e-12"])  # what is typed beside the experiment


def start(folder: Path, *typed: str) -> subprocess.Popen[bytes]:
    """One retraining in a session of its own."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    with (folder / "said").open("ab") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "workflows.retrain", "experiment=../experiment.yaml", *typed, "--json"],
            cwd=folder,
            env=environment,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )  # fmt: skip


def tree(pid: int) -> list[int]:
    """A process and all that it started, the last first."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        found = [int(text) for text in children.read_text().split()]
    except OSError:
        found = []
    return [other for child in found for other in tree(child)] + [pid]


def orphans(folder: Path) -> list[int]:
    """The processes that the lock of the series names and that run."""
    path = folder / "runs" / "killed-series" / ".lock"
    lines = path.read_text().splitlines() if path.is_file() else []
    pids = [json.loads(line)["pid"] for line in lines if line.endswith("}")]
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def finished(folder: Path, *typed: str) -> tuple[int, int]:
    """Start until it is neither busy nor failed; returns the exit code, and how often it was busy."""
    give_up, busy = time.monotonic() + PATIENCE_S, 0
    while time.monotonic() < give_up:
        code = start(folder, *typed).wait()
        if code != 75:
            return code, busy
        busy += 1
        time.sleep(1)
    raise RuntimeError(f"busy for {PATIENCE_S} s in {folder}")


def at_work(folder: Path) -> str:
    """The step that a run has come to, for the count of kills."""
    runs = sorted((folder / "runs").glob("killed-[0-9]*/retrain.json"))
    content: dict[str, Any] = json.loads(runs[-1].read_bytes()) if runs else {"outcome": "none"}
    if content["outcome"]:
        return "between"
    steps = ("curate", "diff", "finetune", "evaluate")
    first = [name for name in steps if name != "diff" or content["compared_with"]]
    return next((name for name in first if name not in content["steps"]), "promote")


def kill(folder: Path, after_s: float, alone: bool, typed: list[str], within: str = "") -> str:
    """Start and kill, so long after the step ``within`` began; returns the step at which, "" where it had ended."""
    process = start(folder, *typed)
    while within and process.poll() is None and at_work(folder) != within:
        time.sleep(0.05)
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        pass
    else:
        return ""
    step = at_work(folder)
    for pid in [process.pid] if alone else tree(process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()
    return step


def contents(runs: Path) -> dict[str, Any]:
    """All that has to be the same: pointer, history, records, and a hash of what the steps made."""
    found: dict[str, Any] = {}
    for path in sorted(runs.rglob("*")):
        name = path.relative_to(runs).as_posix()
        if path.is_dir() or name.startswith(".cache/"):  # what was measured, in parts as it came
            continue
        if "/tracking/" in name:  # TensorBoard's files are named by the clock; nothing reads them
            continue
        if path.name in (".lock", "config.yaml", "report.html", "checksums.json"):
            continue
        if path.name == "current.json":
            content = json.loads(path.read_bytes())
            found[name] = [content[key] for key in ("run", "export", "event", "previous")]
        elif path.name == "history.jsonl":
            lines = map(json.loads, path.read_text().splitlines())
            found[name] = [
                [line[k] for k in ("event", "run", "current", "sentence")] for line in lines
            ]
        elif path.name == "retrain.json":
            content = json.loads(path.read_bytes())
            keys = (
                "outcome",
                "sentence",
                "kept",
                "export",
                "compared_with",
                "start_from",
                "changes",
            )
            found[name] = [*(content[key] for key in keys), sorted(content["steps"])]
        elif path.name == "report.json" and path.parent.name == "evaluate":
            content = json.loads(path.read_bytes())
            found[name] = [
                content[key] for key in ("verdict", "gate", "checks", "metrics", "checkpoints")
            ]
        elif any(part in name for part in ("/curate/shards/", "/curate/ledger/", "/curate/annotations/")) or path.name in (
            *("manifest.json", "funnel.json", "heldout_keys.parquet", "losses.npz"),
            *("heldout.npz", "pytorch_lora_weights.safetensors", "kohya.safetensors"),
        ) or "/export" in name or name.endswith(".part"):  # fmt: skip
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "is there"
    return found


def make_inputs(folder: Path) -> None:
    """Pictures without and with those that are added, a CLIP, a pipeline and the settings."""
    draw_pictures(folder / str(FIRST), FIRST)
    draw_pictures(folder / str(FIRST + ADDED), FIRST + ADDED)
    save_clip(folder / "clip")
    save_pipeline(folder / "pipeline")
    (folder / "experiment.yaml").write_text(EXPERIMENT)


def show(folder: Path, count: int) -> None:
    """Let the link that the settings name lead to so many pictures; the files themselves stay as they are."""
    (folder / "link").symlink_to(str(count))
    (folder / "link").replace(folder / "pictures")


def undisturbed(folder: Path) -> tuple[dict[str, Any], list[float], list[int]]:
    """The series that nobody kills: its end, and the seconds and exit codes of its retrainings."""
    took, codes = [], []
    here = folder / WORK
    here.mkdir()
    for number, typed in enumerate(RETRAINED):
        show(folder, FIRST + (ADDED if number else 0))
        began = time.monotonic()
        codes.append(finished(here, *typed)[0])
        took.append(time.monotonic() - began)
    return _put_aside(here, "straight"), took, codes


def _put_aside(here: Path, name: str) -> dict[str, Any]:
    """What a series left; its folder makes room for the next one, which has the same paths."""
    found = contents(here / "runs")
    here.rename(here.with_name(name))
    return found


def main(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Kill ``count`` times; returns how often in which step, and what else happened.

    Raises:
        RuntimeError: a retraining failed, or something is not as in the undisturbed series.
    """
    draw, kills, who, busy, rounds = random.Random(seed), Counter(), Counter(), 0, 0
    make_inputs(folder)
    began = time.monotonic()
    expected, took, codes = undisturbed(folder)
    print(
        f"undisturbed series: {[round(s, 1) for s in took]} s, exit codes {codes}", file=sys.stderr
    )
    if any(codes):
        raise RuntimeError((folder / "straight" / "said").read_text()[-4000:])
    while kills.total() < count:
        rounds += 1
        here = folder / WORK
        here.mkdir()
        for number, typed in enumerate(RETRAINED):
            show(folder, FIRST + (ADDED if number else 0))
            for turn in range(MOST_KILLS if kills.total() < count else 0):
                alone = who["alone"] <= who["tree"]
                after_s, within = draw.uniform(0.5, SHARE * took[number]), ""
                if turn == MOST_KILLS - 1:  # at random, few would fall into the last step
                    after_s, within = draw.uniform(0.2, 4), "evaluate"
                if step := kill(here, after_s, alone, typed, within):
                    kills[step] += 1
                    who["alone" if alone else "tree"] += 1
                    print(f"killed {'alone' if alone else 'tree'} in {step}", file=sys.stderr)
            code, times = finished(here, *typed)
            busy += times
            if code:
                raise RuntimeError(f"exit code {code}:\n{(here / 'said').read_text()[-4000:]}")
        found = _put_aside(here, f"round-{rounds}")
        if found != expected:
            odd = sorted(n for n in found.keys() | expected if found.get(n) != expected.get(n))
            told = [
                f"{name}: {found.get(name)}, not {expected.get(name)}"[:1000] for name in odd[:8]
            ]
            raise RuntimeError(
                f"round {rounds}, seed {seed}, {len(odd)} differ:\n" + "\n".join(told)
            )
    events = [line[:3] for line in expected["killed-series/history.jsonl"]]
    seconds = round(time.monotonic() - began)
    return {
        "kills": dict(kills), "who": dict(who), "busy": busy, "rounds": rounds,
        "events": events, "seconds": seconds, "undisturbed_s": took,
    }  # fmt: skip


if __name__ == "__main__":
    arguments = sys.argv[3:] or [str(random.randrange(2**32))]
    print(json.dumps(main(Path(sys.argv[1]).resolve(), int(sys.argv[2]), int(arguments[0]))))
