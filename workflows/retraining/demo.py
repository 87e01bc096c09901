"""``make retrain-demo``: a folder of pictures is retrained, grows, gets worse settings, and goes back.

It types the commands that a user would and stops where one of them does not do what it should.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curate.readers import openmoji
from curate.run import cli
from curate.run.files import write_text

FIRST, ADDED, WRONG = 1500, 300, 60  # pictures; of those added, so many get another one's caption
FOUND = 48  # wrong captions that have to be curated away
SEED = 0
_EXPERIMENT = """\
# Settings of the retraining demo: about 1,500 drawings, a short training, a quick evaluation.
curate:
  run.name: drawings
  dataset: folder
  dataset.root: {pictures}
  clip: starter
  filters: default
train:
  model: starter
  method: locon
  optim.lr: 1e-3
  optim.batch_size: 32
  train.samples: 3200
  heldout.items: 32
  heldout.every: 800
  checkpoint.every: 1600
evaluate:
  grid.items: 64
  samples.rows: 6
  samples.clip_captions: 32
  copying.pictures: 32
  retention.items: 16
  distribution.features: "off"
  reconsider.pictures: 0
retrain:
  keep: 3
"""


def main() -> None:
    """Do all of it below a folder."""
    parser = ArgumentParser(prog="python -m workflows.retraining.demo", description=__doc__)
    parser.add_argument("root", type=Path, metavar="FOLDER", help="for pictures, settings and runs")
    root = parser.parse_args().root
    began = time.monotonic()
    demo = Demo(root)
    demo.first()
    demo.nothing_new()
    demo.grown()
    demo.worse()
    demo.back()
    print(f"\nall as it should be, in {(time.monotonic() - began) / 60:.1f} minutes")
    print(f"history   {root / 'runs' / 'drawings-series' / 'history.html'}")


class Demo:
    """The demo's folder and what its commands ended with."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pictures, self.settings = root / "pictures", root / "drawings.yaml"
        emoji = openmoji.OpenmojiConfig(name="openmoji", reader="openmoji")
        self._source = openmoji.read(emoji)
        listed = list(self._source.candidates())
        random.Random(SEED).shuffle(listed)
        self._first, self._added = listed[:FIRST], listed[FIRST : FIRST + ADDED]

    def first(self) -> None:
        """Retrain once: everything is new."""
        _say(f"{FIRST} pictures with their captions, for the first time")
        self._write(self._first, {})
        write_text(self.settings, _EXPERIMENT.format(pictures=self.pictures))
        _expect(self._retrain(), "promoted", run="drawings-0001", current="drawings-0001")

    def nothing_new(self) -> None:
        """The same command again."""
        _say("the same command again")
        _expect(self._retrain(), "nothing_to_do", current="drawings-0001")

    def grown(self) -> None:
        """More pictures, some with wrong captions."""
        _say(f"{ADDED} more pictures, {WRONG} of them with another one's caption")
        wrong = openmoji.mismatched([c.captions[0] for c in self._added], WRONG / ADDED, SEED)
        captions = {c.key: text for c, text in zip(self._added, wrong, strict=True)}
        self._write(self._added, captions)
        _expect(self._retrain(), "promoted", run="drawings-0002", current="drawings-0002")
        found = self._dropped([c.key for c in self._added if captions[c.key] != c.captions[0]])
        print(f"{found} of {WRONG} wrong captions were curated away")
        if found < FOUND:
            raise RuntimeError(f"expected at least {FOUND}")

    def worse(self) -> None:
        """A setting that makes the model worse."""
        _say("a learning rate that is 30 times too large")
        said = self._retrain("train.optim.lr=0.03")
        _expect(said, "rejected", run="drawings-0003", current="drawings-0002")

    def back(self) -> None:
        """Back to the run that was promoted before."""
        _say("back to the run before")
        self._command("workflows.promote", "--rollback", "drawings", "--root", str(self._runs))
        current = json.loads((self._runs / "drawings-series" / "current.json").read_bytes())
        if current["run"] != "drawings-0001":
            raise RuntimeError(f"expected drawings-0001 to be in use, not {current['run']}")
        self._command("workflows.history", "drawings", "--root", str(self._runs))

    @property
    def _runs(self) -> Path:
        return self.root / "runs"

    def _write(self, candidates: Sequence[Any], captions: dict[str, str]) -> None:
        self.pictures.mkdir(parents=True, exist_ok=True)
        for candidate in candidates:
            caption = captions.get(candidate.key, candidate.captions[0])
            (self.pictures / f"{candidate.key}.png").write_bytes(
                self._source.load(candidate.location)
            )
            write_text(self.pictures / f"{candidate.key}.txt", f"{caption}\n")

    def _dropped(self, keys: Sequence[str]) -> int:
        """How many of some pictures the last curation did not keep."""
        from curate.run import ledger

        rows = ledger.read(self._runs / "drawings-0002" / "curate", ["key", "kept"])
        return int((~rows.loc[rows["key"].isin(keys), "kept"]).sum())

    def _retrain(self, *settings: str) -> dict[str, Any]:
        where = (f"experiment={self.settings}", f"run.root={self._runs}")
        said = self._command("workflows.retrain", *where, *settings, "--json")
        return json.loads(said.strip().splitlines()[-1])

    def _command(self, module: str, *arguments: str) -> str:
        """Run a command, show what it prints, and return that."""
        print(f"$ python -m {module} {' '.join(arguments)}", flush=True)
        lines = []
        with subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            for line in child.stdout:
                lines.append(line)
                print(line, end="", flush=True)
        if child.returncode:
            raise RuntimeError(f"it ended with exit code {child.returncode}")
        return "".join(lines)


def _expect(said: dict[str, Any], outcome: str, **values: str) -> None:
    """Stop where the outcome is another one."""
    expected = {"outcome": outcome, **values}
    if differing := {name: said[name] for name, value in expected.items() if said[name] != value}:
        raise RuntimeError(f"expected {expected}, found {differing}: {said['sentence']}")


def _say(text: str) -> None:
    print(f"\n=== {text}", flush=True)


if __name__ == "__main__":
    cli.run(main)
