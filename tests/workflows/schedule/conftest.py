"""A stand-in for ``python -m workflows.retrain`` that answers as it is planned."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from workflows.schedule.settings import Settings

STAND_IN = """
import json, signal, sys, time
from pathlib import Path
here = Path(__file__).parent
said = dict(a.partition("=")[::2] for a in sys.argv[1:])
step = "--why" if "--why" in said else said["until"]
def note(word):
    with (here / "notes").open("a") as file:
        file.write(word + "\\n")
def stop(number, frame):
    note("SIGTERM")
    time.sleep(0.2)
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
note(" ".join(sys.argv[1:]))
plan = json.loads((here / "plan.json").read_text())
answer = plan.get(step, {})
if isinstance(answer, list):
    (here / "plan.json").write_text(json.dumps(plan | {step: answer[1:]}))
    answer = answer[0]
code, seconds = answer.pop("code", 0), answer.pop("seconds", 0)
time.sleep(seconds)
if "error" in answer:
    print("error: " + answer["error"], file=sys.stderr)
else:
    print(json.dumps({"outcome": "started", "sentence": step + " is done", "changes": []} | answer))
sys.exit(code)
"""


class StandIn:
    """Settings whose command is the stand-in; what it was given."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.script = folder / "stand_in.py"
        self.script.write_text(STAND_IN)
        self.plan()

    def plan(self, **answers):
        """By step or ``why``: what its last line says, ``code``, ``seconds`` it takes; a list: one for each start."""
        answers = {("--why" if name == "why" else name): each for name, each in answers.items()}
        (self.folder / "plan.json").write_text(json.dumps(answers))

    @property
    def settings(self) -> Settings:
        command = (sys.executable, str(self.script))
        return Settings(("my/photos.yaml",), "17 3 * * 0", "UTC", 0, ("keep=5",), command)

    @property
    def notes(self) -> list[str]:
        path = self.folder / "notes"
        return path.read_text().splitlines() if path.is_file() else []


@pytest.fixture
def stand_in(tmp_path) -> StandIn:
    return StandIn(tmp_path)
