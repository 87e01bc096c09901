"""An engine in whose maps one task, or the driver itself, meets a fault, once or always."""

import os
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from curate.run.engine.tasks import WorkerSpec

RAISES_ONCE, RAISES_ALWAYS = "raises once", "raises always"
DIES_ONCE, DIES_ALWAYS = "dies once", "dies always"
DRIVER_BEFORE, DRIVER_AMID = "driver killed before", "driver killed amid"


@dataclass
class Faulty:
    """An engine; the first map of ``stage`` that has tasks meets ``fault``, others are as ever.

    Attributes:
        engine: carries out the tasks.
        stage: a factory of workers, without ``curate.``; "" for none.
        fault: one of those above.
        marks: a folder, where the attempts are noted.
        seen: the factories of all maps that had tasks.
    """

    engine: object
    stage: str
    fault: str
    marks: Path
    seen: list[str]

    def map(self, spec, tasks, progress=lambda count: None):
        name = spec.factory.removeprefix("curate.")
        if tasks:
            self.seen.append(name)
        if not tasks or name != self.stage or (self.marks / "met").exists():
            yield from self.engine.map(spec, tasks, progress)
            return
        (self.marks / "met").touch()
        if self.fault == DRIVER_BEFORE:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault != DRIVER_AMID:
            chosen = repr(tasks[len(tasks) // 2])
            arguments = {"spec": spec, "chosen": chosen, "fault": self.fault, "marks": self.marks}
            spec = WorkerSpec(f"{__name__}:worker", arguments)
        for result in self.engine.map(spec, tasks, progress):
            if self.fault == DRIVER_AMID:
                os.kill(os.getpid(), signal.SIGKILL)
            yield result


@contextmanager
def worker(spec, chosen, fault, marks):
    """A worker for what ``spec`` is for; at the task whose text is ``chosen`` it meets the fault.

    What happens once does after the task's results are written; what always happens, before.
    """
    with spec.build() as real:

        def work(task, progress):
            if repr(task) != chosen:
                return real(task, progress)
            attempt = 1 + len(list(marks.glob("attempt-*")))
            (marks / f"attempt-{attempt}").touch()
            if fault in (RAISES_ONCE, DIES_ONCE):
                value = real(task, progress)
                if attempt > 1:
                    return value
            if fault in (DIES_ONCE, DIES_ALWAYS):
                os.kill(os.getpid(), signal.SIGKILL)
            raise ArithmeticError(f"attempt {attempt} of a task that is poisoned")

        yield work
