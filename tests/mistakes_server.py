"""Runs command lines one after another, each in a process forked from one that has read the commands.

Starting Python for each would take most of the time. A line of JSON in, a line of JSON out.
"""

import json
import os
import sys
import tempfile
import time
import traceback

import curate.__main__
import evaluate.__main__
import evaluate.sample
import finetune.train
import workflows.retrain
from curate.run import cli

HEAVY = {
    "torch",
    "diffusers",
    "transformers",
    "open_clip",
    "pandas",
    "peft",
    "accelerate",
    "datasets",
}
COMMANDS = {
    "curate": lambda: cli.run(curate.__main__.main, "curate", start_bare=False),
    "train": lambda: cli.run(finetune.train.main, "train"),
    "evaluate": lambda: cli.run(evaluate.__main__.main, "evaluate"),
    "sample": lambda: cli.run(evaluate.sample.run, "sample", start_bare=False),
    "retrain": workflows.retrain.main,
}


def run(case, out, err):
    """Become the command; leave by its exit code, with what was said in the files."""
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    os.chdir(case["folder"])
    os.environ.update(case["environment"])
    sys.argv[:] = [case["command"], *case["arguments"]]
    code = 0
    try:
        COMMANDS[case["command"]]()
    except SystemExit as leaving:
        code = leaving.code
    except BaseException:
        traceback.print_exc()
        code = 99
    if loaded := HEAVY & {*sys.modules}:
        print(f"heavy imports: {sorted(loaded)}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main():
    """Answer until the input ends."""
    for line in sys.stdin:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            started = time.monotonic()
            if not (pid := os.fork()):
                run(json.loads(line), out, err)
            _, status = os.waitpid(pid, 0)
            seconds = time.monotonic() - started
            texts = []
            for stream in (out, err):
                stream.seek(0)
                texts.append(stream.read().decode())
            answer = {"code": os.waitstatus_to_exitcode(status), "seconds": seconds}
            print(json.dumps(answer | dict(zip(("out", "err"), texts, strict=True))), flush=True)


if __name__ == "__main__":
    main()
