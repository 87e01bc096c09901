"""Peak memory of curating 10,000 and 200,000 pairs, each in its own process."""

from __future__ import annotations

import json
import subprocess
import sys

from workflows.bench.compare import say
from workflows.bench.data import CAPTIONS_EACH

SIZES = (10_000, 200_000)
_CODE = """
import json, re, sys, time
from workflows.bench.data import Photographs
from curate.pipeline import full as pipeline
from curate.run.schema import to_dataclass
from curate.pipeline.config import CurateConfig
from hydra import compose, initialize_config_module

pictures, folder = int(sys.argv[1]), sys.argv[2]
with initialize_config_module("conf", version_base="1.3"):
    overrides = ["dataset=openmoji", f"run.root={folder}", "run.name=memory"]
    config = to_dataclass(compose("curate", overrides), CurateConfig)
started = time.perf_counter()
pipeline.run(config, Photographs(pictures, width=64, distinct=None).source())
# Not ru_maxrss: a child process starts with its parent's peak.
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
print(json.dumps([peak, time.perf_counter() - started]))
"""


def run() -> None:
    """Print the peaks and the growth from the smaller to the larger."""
    import tempfile

    peaks = []
    say("\npeak memory of the whole command with the built-in CLIP, distinct pictures of 64 px")
    for pairs in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", _CODE, str(pairs // CAPTIONS_EACH), folder]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        peak, seconds = json.loads(done.stdout.splitlines()[-1])
        peaks.append(peak)
        say(f"  {pairs:>9,} pairs {peak:8.0f} MiB {seconds:8.0f} s")
    say(f"  growth {peaks[1] / peaks[0] - 1:.1%}")
