import asyncio
import time

import pytest

from curate.fetch import robots
from curate.fetch.client import Client
from curate.fetch.config import FetchConfig
from tests.curate.fetch.misbehaving import Server, answer

LIMITS = {"retry_wait_s": 5.0}


def asked(text, *paths, clock=time.monotonic, **changes):
    """The states of the paths, one after another, under this robots.txt; and the server."""
    config = FetchConfig(allow_networks=["127.0.0.1/32"], **{**LIMITS, **changes})

    async def run():
        async with Server() as server, Client(config, clock=clock) as client:
            server.robots = text(server) if callable(text) else text
            found = [await client.get(server.base + path) for path in paths]
            server.delay = client.crawl_delay(f"127.0.0.1:{server.port}")
            return [answer.state for answer in found], server

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("", "stored"),
        ("User-agent: *\nDisallow:\n", "stored"),
        ("User-agent: *\nDisallow: /\n", "robots"),
        ("\ufeffUser-agent: *\nDisallow: /ok\n", "robots"),
        ("User-agent: Darkroom\nDisallow: /\nUser-agent: *\nAllow: /\n", "robots"),
        ("User-agent: darkroom\nAllow: /\nUser-agent: *\nDisallow: /\n", "stored"),
        ("User-agent: Googlebot\nDisallow: /\n", "stored"),
        ("User-agent: *\nDisallow: /ok/\nAllow: /ok/1.jpg\n", "stored"),
        ("User-agent: *\nDisallow: /*.jpg$\n", "robots"),
        ("<!DOCTYPE html><html>no such page</html>", "stored"),
        (b"HTTP/1.1 200 X\r\nContent-Length: 4\r\n\r\n\xff\xfe\xfd\0", "stored"),
    ],
)
def test_the_rules_are_obeyed(text, state):
    states, server = asked(text, "/ok/1.jpg")
    assert states == [state]
    assert server.asked["/ok/1.jpg"] == (state == "stored")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_where_there_is_none_all_is_allowed(status):
    states, server = asked(answer(status, b"User-agent: *\nDisallow: /"), "/ok/1.jpg", "/ok/2.jpg")
    assert states == ["stored"] * 2
    assert server.asked["/robots.txt"] == 1


@pytest.mark.parametrize("status", [500, 503, 204, 206, 304])
def test_where_it_cannot_be_read_nothing_is_asked(status):
    states, server = asked(answer(status), "/ok/1.jpg")
    assert states == ["robots_unreachable"]
    assert server.asked["/ok/1.jpg"] == 0


@pytest.mark.parametrize(
    "text",
    [
        answer(200, b"User-agent", length=100),  # then nothing
        b"SSH-2.0\r\n\r\n",
        answer(200, b"User-agent: *", "Content-Encoding: br"),
        answer(302, b"", "Location: http://user:word@h.example/"),
        answer(302, b"", "Location: ftp://h.example/"),
    ],
)
def test_an_answer_that_is_none_forbids_all(text):
    assert asked(text, "/ok/1.jpg", stall_s=0.2)[0] == ["robots_unreachable"]


def test_too_many_requests_for_it_are_told_with_the_time_to_wait():
    config = FetchConfig(allow_networks=["127.0.0.1/32"])

    async def run():
        async with Server() as server, Client(config) as client:
            server.robots = answer(429, b"", "Retry-After: 7")
            return await client.get(f"{server.base}/ok/1.jpg")

    found = asyncio.run(run())
    assert (found.state, found.retry_after_s) == ("rate_limited", 7)


def test_it_is_asked_for_once_and_again_after_a_day():
    now = [0.0]
    states, server = asked("", *[f"/ok/{number}.jpg" for number in range(3)], clock=lambda: now[0])
    assert states == ["stored"] * 3
    assert server.asked["/robots.txt"] == 1

    def clock():
        now[0] += robots.KEPT_S
        return now[0]

    _, server = asked("", "/ok/1.jpg", "/ok/2.jpg", clock=clock)
    assert server.asked["/robots.txt"] == 2


def test_a_failure_is_forgotten_before_the_next_attempt():
    _, server = asked(answer(503), "/ok/1.jpg", "/ok/1.jpg")
    assert server.asked["/robots.txt"] == 1
    now = [0.0]

    def clock():
        now[0] += LIMITS["retry_wait_s"]
        return now[0]

    _, server = asked(answer(503), "/ok/1.jpg", "/ok/1.jpg", clock=clock)
    assert server.asked["/robots.txt"] == 2


def test_all_who_wait_share_one_request():
    async def run():
        config = FetchConfig(allow_networks=["127.0.0.1/32"])
        async with Server() as server, Client(config) as client:
            urls = [f"{server.base}/ok/{number}.jpg" for number in range(20)]
            await asyncio.gather(*map(client.get, urls))
            return server.asked["/robots.txt"]

    assert asyncio.run(run()) == 1


def test_redirects_are_followed_and_too_many_are_as_if_there_were_none():
    moved = answer(301, b"", "Location: /header/1?X=User-agent")
    assert asked(moved, "/ok/1.jpg")[0] == ["stored"]  # the picture there holds no rules
    states, server = asked(answer(301, b"", "Location: /robots.txt"), "/ok/1.jpg")
    assert states == ["stored"]
    assert server.asked["/robots.txt"] == 1 + robots.MAX_REDIRECTS


def test_a_redirect_into_a_private_network_is_not_followed():
    states, server = asked(
        answer(302, b"", "Location: http://127.0.0.2:1024/robots.txt"), "/ok/1.jpg"
    )
    assert states == ["forbidden_network"]
    assert server.asked["/ok/1.jpg"] == 0


def test_only_the_first_bytes_are_read():
    rule = b"User-agent: *\nDisallow: /ok/1.jpg\n"
    last = b"Disallow: /ok/2.jpg\n"
    text = rule + b"#" * robots.MAX_BYTES + b"\n" + last
    assert asked(answer(200, text), "/ok/1.jpg", "/ok/2.jpg")[0] == ["robots", "stored"]


def test_each_port_is_an_origin_of_its_own():
    async def run():
        config = FetchConfig(allow_networks=["127.0.0.1/32"])
        async with Server() as one, Server() as other, Client(config) as client:
            one.robots = "User-agent: *\nDisallow: /\n"
            other.robots = ""
            return [(await client.get(f"{server.base}/ok/1.jpg")).state for server in (one, other)]

    assert asyncio.run(run()) == ["robots", "stored"]


def test_the_crawl_delay_is_told():
    assert asked("User-agent: *\nCrawl-delay: 2.5\n", "/ok/1.jpg")[1].delay == 2.5
    assert asked("User-agent: other\nCrawl-delay: 2.5\n", "/ok/1.jpg")[1].delay is None


def test_it_can_be_switched_off():
    states, server = asked("User-agent: *\nDisallow: /\n", "/ok/1.jpg", robots=False)
    assert states == ["stored"]
    assert server.asked["/robots.txt"] == 0


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(robots, "KEPT_LETTERS", 2000)

    async def run():
        config = FetchConfig(allow_networks=["127.0.0.1/32"])
        lookup = lambda host: ["127.0.0.1"]  # noqa: E731
        async with Server() as server, Client(config, resolver=lookup) as client:
            server.robots = "User-agent: *\nDisallow: /private/\n" + "#" * 900
            for number in range(5):
                url = f"http://h{number}.example:{server.port}/ok/1.jpg"
                assert (await client.get(url)).state == "stored"
            return [*client._robots._known], client._robots._letters, server.port

    kept, letters, port = asyncio.run(run())
    assert kept == [f"http://h{number}.example:{port}" for number in (3, 4)]
    assert letters < 2000
