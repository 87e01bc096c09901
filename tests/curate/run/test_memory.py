"""What a process may use is what its container has, and what a model leaves behind goes back to the system."""

import os
import resource
from pathlib import Path

import pytest

from curate.run import control_groups
from curate.run.engine.config import EngineConfig
from curate.run.memory import available, give_back

SMALL = 1 << 10  # below the size that glibc maps apart and so returns by itself


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_freed_blocks_are_returned():
    held = [bytearray(SMALL) for _ in range(200_000)]
    last = bytearray(SMALL)  # the heap cannot shrink below what is still in use
    full = resident()
    del held
    give_back()
    assert resident() < full - 100 * SMALL * 1000
    assert len(last) == SMALL


MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
V2, V1 = "memory.max", "memory.limit_in_bytes"


@pytest.mark.parametrize(
    ("groups", "files", "least"),
    [
        ("0::/pod/box\n", {f"pod/box/{V2}": "300000000\n"}, 300_000_000),
        ("0::/pod/box\n", {f"pod/box/{V2}": "max\n", f"pod/{V2}": "200000000\n"}, 200_000_000),
        ("0::/\n", {V2: "400000000\n"}, 400_000_000),  # a container's own mount
        ("0::/host/path\n", {V2: "400000000\n"}, 400_000_000),
        (
            "9:cpu,memory:/box\n1:name=systemd:/a:b\n0::/\n",
            {f"memory/box/{V1}": "500000000\n", f"memory/{V1}": f"{2**63 - 4096}\n"},
            500_000_000,
        ),
        ("5:cpuset:/box\n", {f"memory/box/{V1}": "500000000\n"}, None),
        ("0::/box\n", {f"box/{V2}": "max\n", V2: f"{2 * MACHINE}\n"}, None),
        ("0::/\n", {}, None),
        (None, {V2: "400000000\n"}, None),
    ],
)
def test_a_container_has_less_than_its_machine(groups, files, least, tmp_path, monkeypatch):
    monkeypatch.setattr(control_groups, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(control_groups, "_MOUNT", tmp_path / "mount")
    if groups is not None:
        (tmp_path / "groups").write_text(groups)
    for name, text in files.items():
        (tmp_path / "mount" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mount" / name).write_text(text)
    assert available() == (least or MACHINE)
    assert EngineConfig().memory_bytes == int(0.4 * (least or MACHINE))
    assert EngineConfig(memory="2GB").memory_bytes == 2_000_000_000
