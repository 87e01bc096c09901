"""A process has as many cores as its container's quota comes to, and all engines count them so."""

import os

import pytest

from curate.run import control_groups, cores
from curate.run.engine.config import EngineConfig
from curate.run.engine.opened import open_engine

MACHINE = 64
V2 = "cpu.max"
QUOTA, PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"


@pytest.mark.parametrize(
    ("groups", "files", "usable"),
    [
        ("0::/pod/box\n", {f"pod/box/{V2}": "400000 100000\n"}, 4),
        ("0::/pod/box\n", {f"pod/box/{V2}": "max 100000\n", f"pod/{V2}": "75000 50000\n"}, 2),
        ("0::/pod/box\n", {f"pod/box/{V2}": "800000 100000\n", f"pod/{V2}": "300000 100000\n"}, 3),
        ("0::/\n", {V2: "10000 100000\n"}, 1),  # a container's own mount
        ("0::/host/path\n", {V2: "500000 100000\n"}, 5),
        ("0::/box\n", {f"box/{V2}": "9900000 100000\n"}, MACHINE),  # more than there are
        ("0::/box\n", {f"box/{V2}": "max 100000\n"}, MACHINE),
        (
            "9:cpu,cpuacct:/box\n1:name=systemd:/a:b\n0::/\n",
            {f"cpu,cpuacct/box/{QUOTA}": "250000\n", f"cpu,cpuacct/box/{PERIOD}": "100000\n"},
            3,
        ),
        ("9:cpu,cpuacct:/box\n", {f"cpu/{QUOTA}": "200000\n", f"cpu/{PERIOD}": "100000\n"}, 2),
        ("9:cpu,cpuacct:/box\n", {f"cpu/{QUOTA}": "-1\n", f"cpu/{PERIOD}": "100000\n"}, MACHINE),
        ("9:cpuset:/box\n", {f"cpuset/box/{QUOTA}": "200000\n", f"cpuset/box/{PERIOD}": "100000\n"}, MACHINE),
        ("0::/\n", {}, MACHINE),
        (None, {V2: "200000 100000\n"}, MACHINE),
    ],
)  # fmt: skip
def test_a_container_has_fewer_than_its_machine(groups, files, usable, tmp_path, monkeypatch):
    monkeypatch.setattr(control_groups, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(control_groups, "_MOUNT", tmp_path / "mount")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(MACHINE)))
    if groups is not None:
        (tmp_path / "groups").write_text(groups)
    for name, text in files.items():
        (tmp_path / "mount" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mount" / name).write_text(text)
    assert cores.usable() == usable
    assert EngineConfig().limits(tmp_path).threads == usable
    assert EngineConfig(threads=7).limits(tmp_path).threads == 7
    with open_engine(EngineConfig(name="processes"), tmp_path) as engine:
        assert vars(engine)["_workers"] == usable


def test_a_system_without_affinity_has_the_machines_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(control_groups, "_GROUPS", tmp_path / "none")
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores.usable() == 6
