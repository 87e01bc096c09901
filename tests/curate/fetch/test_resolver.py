import asyncio
import contextvars
import socket
import subprocess
import sys
import threading

import pytest

from curate.fetch import lookups
from curate.fetch.addresses import Guard
from curate.fetch.config import FetchConfig
from curate.fetch.resolver import (
    FAILED_KEPT_S,
    HOP,
    KEPT_S,
    UNKNOWN_KEPT_S,
    ForbiddenNetwork,
    Hop,
    NameServerFailed,
    Resolver,
    UnknownHost,
    checked_socket,
)

LOOPBACK = FetchConfig(allow_networks=["127.0.0.1/32"])


class Names:
    """Gives the answers one after another, the last one again and again, and counts."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), 0

    def __call__(self, host):
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if isinstance(answer, Exception):
            raise answer
        return answer


def resolving(names, *times, config=LOOPBACK, host="h.example", port=80):
    """What comes of a lookup at each of the times: addresses, or the class of the error."""
    now = [0.0]

    async def run():
        resolver = Resolver(Guard(config), names, lambda: now[0])
        found = []
        for time in times:
            now[0] = time
            try:
                found.append([entry["host"] for entry in await resolver.resolve(host, port)])
            except OSError as error:
                found.append(type(error))
        await resolver.close()
        return found

    return asyncio.run(run())


def test_an_address_is_remembered_for_a_time():
    names = Names(["127.0.0.1"])
    assert resolving(names, 0, KEPT_S - 1, KEPT_S + 1) == [["127.0.0.1"]] * 3
    assert names.asked == 2


@pytest.mark.parametrize("number", [socket.EAI_NONAME, socket.EAI_NODATA])
def test_no_such_host_is_told_from_a_name_server_that_fails(number):
    names = Names(socket.gaierror(number, "no"), ["127.0.0.1"])
    found = resolving(names, 0, UNKNOWN_KEPT_S - 1, UNKNOWN_KEPT_S + 1)
    assert found == [UnknownHost, UnknownHost, ["127.0.0.1"]]


@pytest.mark.parametrize("number", [socket.EAI_AGAIN, socket.EAI_FAIL])
def test_a_failure_of_the_name_server_is_forgotten_soon(number):
    names = Names(socket.gaierror(number, "later"), ["127.0.0.1"])
    found = resolving(names, 0, FAILED_KEPT_S / 2, FAILED_KEPT_S + 0.1)
    assert found == [NameServerFailed, NameServerFailed, ["127.0.0.1"]]


def test_a_name_that_no_host_can_have_is_unknown():
    assert resolving(socket.gethostbyname, 0, host="a" * 70) == [UnknownHost]


def test_only_permitted_addresses_are_handed_on():
    names = Names(["10.0.0.1", "127.0.0.1", "::ffff:127.0.0.1"])
    assert resolving(names, 0) == [["127.0.0.1"]]
    assert resolving(Names(["127.0.0.2", "169.254.169.254", "::1"]), 0) == [ForbiddenNetwork]


def test_a_host_that_is_named_may_be_anywhere():
    config = FetchConfig(allow_hosts=["h.example:8080"])
    assert resolving(Names(["10.0.0.1"]), 0, config=config, port=8080) == [["10.0.0.1"]]
    assert resolving(Names(["10.0.0.1"]), 0, config=config, port=80) == [ForbiddenNetwork]


def test_one_lookup_serves_all_who_ask_meanwhile_even_if_the_first_gives_up():
    names, let = Names(["127.0.0.1"]), threading.Event()

    def slow(host):
        assert let.wait(5)
        return names(host)

    async def run():
        resolver = Resolver(Guard(LOOPBACK), slow)
        first, *others = [asyncio.create_task(resolver.resolve("h.example", 80)) for _ in range(5)]
        await asyncio.sleep(0.01)
        first.cancel()
        let.set()
        found = await asyncio.gather(*others)
        assert [len(entry) for entry in found] == [1] * 4
        assert first.cancelled()
        await resolver.close()

    asyncio.run(run())
    assert names.asked == 1


def test_names_that_hang_leave_their_places_to_others(monkeypatch):
    """Each waits until a place is free, and only then its time begins."""
    monkeypatch.setattr(lookups, "AT_ONCE", 2)
    let, asked = threading.Event(), []

    def lookup(host):
        asked.append(host)
        if host.startswith("hangs"):
            assert let.wait(10)
        return ["127.0.0.1"]

    async def run():
        resolver = Resolver(Guard(LOOPBACK), lookup, limit_s=0.1)
        names = [*(f"hangs{number}.example" for number in range(6)), "good.example"]
        found = await asyncio.gather(*map(resolver.resolve, names), return_exceptions=True)
        let.set()
        await asyncio.sleep(0.05)
        late = await resolver.resolve(names[0])
        await resolver.close()
        return found, late

    found, late = asyncio.run(run())
    assert [type(entry) for entry in found] == [NameServerFailed] * 6 + [list]
    assert str(found[0]) == "no answer within fetch.connect_s"
    assert late[0]["host"] == "127.0.0.1"
    assert len(asked) == 7


def test_a_name_that_nobody_waits_for_any_more_is_not_looked_up(monkeypatch):
    monkeypatch.setattr(lookups, "AT_ONCE", 1)
    let, asked = threading.Event(), []

    def lookup(host):
        asked.append(host)
        assert let.wait(10)
        return ["127.0.0.1"]

    async def run():
        resolver = Resolver(Guard(LOOPBACK), lookup)
        first, *others = [
            asyncio.create_task(resolver.resolve(f"h{number}.example")) for number in range(4)
        ]
        await asyncio.sleep(0.01)
        for task in others[:2]:
            task.cancel()
        await asyncio.sleep(0)
        let.set()
        await asyncio.gather(first, others[2])
        await resolver.close()

    asyncio.run(run())
    assert asked == ["h0.example", "h3.example"]


def test_threads_are_few_however_many_names_hang(monkeypatch):
    monkeypatch.setattr(lookups, "THREADS", 3)
    let = threading.Event()

    def lookup(host):
        assert let.wait(10)
        return []

    async def run():
        resolver = Resolver(Guard(LOOPBACK), lookup, limit_s=0.01)
        tasks = [asyncio.create_task(resolver.resolve(f"h{number}.a")) for number in range(8)]
        await asyncio.wait(tasks, timeout=0.2)
        running = sum(thread.name == "dns" for thread in threading.enumerate())
        ended = sum(task.done() for task in tasks)
        let.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        await resolver.close()
        return running, ended

    assert asyncio.run(run()) == (3, 3)


def test_a_lookup_that_hangs_does_not_hold_up_the_end_of_the_process():
    code = """
import asyncio, time
from curate.fetch import lookups
from curate.fetch.addresses import Guard
from curate.fetch.config import FetchConfig
from curate.fetch.resolver import NameServerFailed, Resolver
async def run():
    resolver = Resolver(Guard(FetchConfig()), lambda host: time.sleep(600), limit_s=0.01)
    try:
        await resolver.resolve("h.example")
    except NameServerFailed:
        print("given up", flush=True)
    await resolver.close()
asyncio.run(run())
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], timeout=60, check=True, capture_output=True, text=True
    )
    assert ended.stdout == "given up\n"


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr("curate.fetch.resolver.KEPT", 3)

    async def run():
        resolver = Resolver(Guard(LOOPBACK), Names(["127.0.0.1"]))
        for number in range(10):
            await resolver.resolve(f"h{number}.example", 80)
        await resolver.close()
        return [*resolver._known]

    assert asyncio.run(run()) == ["h7.example", "h8.example", "h9.example"]


def info(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, 80)


@pytest.mark.parametrize(
    "address", ["127.0.0.2", "10.0.0.1", "::ffff:127.0.0.1", "2130706433", "0x7f.1", "::1"]
)
def test_no_socket_is_opened_for_another_address(address):
    create = checked_socket(Guard(LOOPBACK))

    def run():
        HOP.set(hop := Hop())
        with pytest.raises(ForbiddenNetwork):
            create(info(address))
        assert hop.is_forbidden

    contextvars.copy_context().run(run)


def test_a_socket_is_opened_for_a_permitted_address_and_for_a_named_host():
    create = checked_socket(Guard(LOOPBACK))

    def run():
        create(info("127.0.0.1")).close()
        HOP.set(Hop(is_exempt=True))
        create(info("10.0.0.1")).close()

    contextvars.copy_context().run(run)
