import asyncio
import errno
import resource

import pytest

from curate.fetch import transport
from curate.fetch.client import Client
from curate.fetch.config import FetchConfig
from curate.run.schema import UserError


def test_too_many_open_files_are_no_fault_of_a_host(monkeypatch):
    def create(address_info):
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(transport, "checked_socket", lambda guard: create)

    async def run():
        async with Client(FetchConfig(allow_networks=["127.0.0.1/32"], robots=False)) as client:
            await client.get("http://127.0.0.1:1024/")

    with pytest.raises(UserError, match=r"ulimit -n 8192.*fetch\.connections"):
        asyncio.run(run())


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ((256, 4096), (4096, 4096)),
        ((1024, 10**6), (transport.MAX_FILES, 10**6)),
        ((1024, resource.RLIM_INFINITY), (transport.MAX_FILES, resource.RLIM_INFINITY)),
        ((transport.MAX_FILES, 10**6), None),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None),
    ],
)
def test_the_process_allows_itself_more_open_files(monkeypatch, limits, wanted):
    chosen = []
    monkeypatch.setattr(resource, "getrlimit", lambda what: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda what, limits: chosen.append(limits))

    async def run():
        async with Client(FetchConfig()):
            pass

    asyncio.run(run())
    assert chosen == ([] if wanted is None else [wanted])


def test_the_user_agent_says_whom_to_write_to():
    agent = transport.user_agent(FetchConfig(contact="https://example.org/bot"))
    assert agent.startswith("Darkroom/")
    assert agent.endswith(" (+https://example.org/bot)")
