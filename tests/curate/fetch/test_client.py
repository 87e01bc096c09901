import asyncio
import gc
import random
import socket
import ssl
import threading
import tracemalloc

import pytest
import trustme

from curate.fetch import lookups
from curate.fetch.answer import STATES, STORED
from curate.fetch.client import Client
from curate.fetch.config import FetchConfig
from curate.fetch.room import Room
from tests.curate.fetch.misbehaving import BAD, GOOD, KINDS, SLOW, Server, answer, picture, table

LIMITS = {
    "timeout_s": 20.0,
    "connect_s": 10.0,
    "stall_s": 10.0,
    "max_mb": 5.0,
    "contact": "me@example.org",
}
"""Of tests in which nothing is slow on purpose; they hold on a busy machine, too."""
HASTY = {"timeout_s": 1.0, "connect_s": 0.5, "stall_s": 0.3}
LOOPBACK = {"allow_networks": ["127.0.0.1/32", "127.77.0.0/16"]}


def configured(**changes):
    return FetchConfig(**{**LIMITS, **LOOPBACK, **changes})


def asking(work, *, client=None, server=None, **changes):
    """What ``work(server, client)`` comes to."""

    async def run():
        async with (
            Server(**server or {}) as listening,
            Client(configured(**changes), **client or {}) as asks,
        ):
            return await work(listening, asks)

    return asyncio.run(asyncio.wait_for(run(), 30))


def got(path, **arguments):
    """The answer for one path or address."""

    async def work(server, client):
        return await client.get(server.base + path if path.startswith("/") else path)

    return asking(work, **arguments)


def named(**hosts):
    """A name server that knows these; a number is the error that it ends in."""

    def lookup(host):
        found = hosts.get(host.partition(".")[0], socket.EAI_NONAME)
        if isinstance(found, int):
            raise socket.gaierror(found, "no")
        return [found]

    return lookup


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "good.example").configure_cert(context)
    return context


def ended(ways, **limits):
    """Each path with its answer, all asked at one time."""

    async def work(server, client):
        async def one(number, path):
            url = path.format(n=number, x=1, y=1)
            url = server.base + url if url.startswith("/") else url
            found = await client.get(url)
            if (
                "/once/" in path and found.is_transient
            ):  # aiohttp itself repeats what met a closed connection
                found = await client.get(url)
                assert server.asked[url.removeprefix(server.base)] == 2
            return path, found

        return dict(await asyncio.gather(*(one(*way) for way in enumerate(ways))))

    return asking(work, **limits)


def test_every_path_of_the_table_ends_in_its_state():
    ways = {**BAD, **dict.fromkeys(GOOD, STORED)}
    found = ended(ways)
    assert {path: what.state for path, what in found.items()} == ways
    for path, what in found.items():
        assert (what.body == b"") == (what.state != STORED), path
    assert found["/status/404/{n}"].http_status == 404
    assert found["/short/{n}"].http_status == 200
    assert found["/loop/{n}"].http_status == 302


def test_what_is_slow_without_an_end_is_given_up():
    found = ended(SLOW, **HASTY)
    assert {path: what.state for path, what in found.items()} == SLOW
    for path in ("/stall/{n}", "/never/{n}"):
        assert found[path].error == "nothing came within fetch.stall_s"
    for path in ("/loris/{n}", "/drip/{n}"):
        assert found[path].error == "no whole answer within fetch.timeout_s"
    assert all(what.seconds < 10 for what in found.values())


SPECIAL = {
    "dns_failed": (
        "http://fails.example/1.jpg",
        {"client": {"resolver": named(fails=socket.EAI_AGAIN)}},
    ),
    "unknown_host": ("http://nobody.example/1.jpg", {"client": {"resolver": named()}}),
    "robots_unreachable": (
        "/ok/1.jpg",
        {"server": {"robots": answer(503, b"", "Retry-After: 3")}},
    ),
}


@pytest.mark.parametrize("state", SPECIAL)
def test_failures_of_names_and_robots_are_told_apart(state):
    path, arguments = SPECIAL[state]
    assert got(path, **arguments).state == state


def test_every_state_of_a_request_is_reached_by_a_test():
    of_tls = {"bad_certificate"}
    of_lists_and_hashes = {"opted_out", "changed"}  # test_picture
    of_the_scheduler = {"host_down", "asks_to_wait"}
    reached = {*BAD.values(), *SLOW.values(), *SPECIAL, STORED}
    assert reached | of_tls | of_lists_and_hashes | of_the_scheduler == {*STATES}


def test_the_picture_comes_as_it_is():
    found = got("/ok/7.jpg?kb=200")
    assert found.state == STORED
    assert found.body == picture(7, kb=200)
    assert (found.extension, found.width, found.height, found.http_status) == ("jpg", 160, 160, 200)
    assert got("/ok/7.png").extension == "png"


@pytest.mark.parametrize(
    ("path", "state", "error"),
    [
        ("/encoded/deflate/1", STORED, ""),
        ("/encoded/raw-deflate/1", STORED, ""),
        ("/until-close/1", STORED, ""),
        ("/encoded/cut/1", "bad_answer", "a compressed body that is cut short"),
        ("/encoded/broken/1", "bad_answer", "a compressed body that is broken"),
        ("/many-headers/1", "bad_answer", ""),
        (
            "/redirect/302?to=http%3A%2F%2Fuser%3Aword%40127.0.0.1%2F",
            "redirects",
            "an address with a user",
        ),
        (
            "/redirect/302?to=http%3A%2F%2F127.0.0.1%3A25%2F",
            "redirects",
            "a port of another service",
        ),
        ("/redirect/302?to=http%3A%2F%2F%5B%3A%3A1", "redirects", "an address that cannot be read"),
        (
            "/redirect/302?to=http%3A%2F%2F2130706433%2F",
            "redirects",
            "an IP address in an odd spelling",
        ),
        (
            "/redirect/307?to=data%3Aimage%2Fpng%3Bbase64%2CAA",
            "redirects",
            "no address of http or https",
        ),
        ("/redirect/300?to=%2Fok%2F1.jpg", "bad_answer", "status 300"),
        ("/status/302/1", "redirects", "no Location"),
        ("/header/1?X-Robots-Tag=otherbot:+noai", STORED, ""),
        ("/header/1?X-Robots-Tag=darkroom:+noindex", "reserved", "X-Robots-Tag: noindex"),
        ("/redirect/302?to=%2Fok%2F1.jpg&X-Robots-Tag=noai", "reserved", "X-Robots-Tag: noai"),
        ("/redirect/302?to=%2Fok%2F1.jpg&tdm-reservation=1", "reserved", "tdm-reservation: 1"),
        ("/redirect/302?to=%2Fok%2F1.jpg&X-Robots-Tag=otherbot:+noai", STORED, ""),
        ("/header/1?Content-Length=7", "bad_answer", ""),
        ("/header/1?Transfer-Encoding=chunked", "bad_answer", ""),
    ],
)
def test_odd_answers(path, state, error):
    found = got(path)
    assert found.state == state
    assert found.error.startswith(error)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(status):
    assert got(f"/redirect/{status}?to=..%2Fok%2F3.jpg").body == picture(3)


def test_cookies_do_not_come_back():
    async def work(server, client):
        base = f"http://a.example:{server.port}"
        await client.get(f"{base}/header/1?Set-Cookie=a%3Db")
        await client.get(f"{base}/redirect/302?to=%2Fok%2F1.jpg&Set-Cookie=c%3Dd%3B+Path%3D%2F")
        return server.asked["/ok/1.jpg"], server.last_headers.get("cookie")

    assert asking(work, client={"resolver": named(a="127.0.0.1")}) == (1, None)


@pytest.mark.parametrize("where", ["header", "status"])
def test_the_length_of_a_line_is_limited(where):
    """What aiohttp counts of a line differs by a few bytes between its versions."""
    assert got(f"/long-line/{where}/8000").state == STORED
    assert got(f"/long-line/{where}/9000").state == "bad_answer"


def test_the_number_of_redirects_is_limited():
    assert got("/hops/3/1", max_redirects=3).state == STORED
    assert got("/hops/4/1", max_redirects=3).state == "redirects"
    assert got("/hops/1/1", max_redirects=0).state == "redirects"


@pytest.mark.parametrize(
    ("to", "state", "status"),
    [
        ("http%3A%2F%2F127.77.0.1%3A3%2F", "cannot_connect", 302),
        ("http%3A%2F%2Fnobody.example%2F", "unknown_host", 302),
        ("http%3A%2F%2F10.0.0.1%2F", "forbidden_network", 302),
        ("%2Fprivate%2F1", "robots", 302),
        ("%2Freset%2F1", "cut_short", 302),
        ("%2Fnever%2F1", "timeout", 302),
        ("%2Floris%2F1", "timeout", 302),
        ("%2Fdrip%2F1", "timeout", 200),
        ("%2Fstatus%2F404%2F1", "not_found", 404),
    ],
)
def test_the_last_status_tells_whether_the_host_itself_answered(to, state, status):
    async def work(server, client):
        await client.get(f"{server.base}/ok/1.jpg")
        alone = await client.get(f"{server.base}/never/1")
        return alone.http_status, await client.get(f"{server.base}/redirect/302?to={to}")

    before, found = asking(work, client={"resolver": named()}, timeout_s=0.6, stall_s=0.2)
    assert (found.state, found.http_status) == (state, status)
    assert before == 0


@pytest.mark.parametrize(
    ("path", "host"),
    [
        ("/ok/1.jpg", "one.example"),
        ("/redirect/302?to=ftp%3A%2F%2Fa.example", "one.example"),
        ("/loop/1", "one.example"),
        ("/redirect/302?to=http%3A%2F%2Fother.example%3A{port}%2Fok%2F1.jpg", "other.example"),
        ("/redirect/302?to=http%3A%2F%2Fother.example%3A{port}%2Fprivate%2F1", "other.example"),
        ("/redirect/302?to=http%3A%2F%2Fother.example%3A{port}%2Fdrip%2F1", "other.example"),
        ("/redirect/302?to=http%3A%2F%2Fnobody.example%3A{port}%2F", "nobody.example"),
    ],
)
def test_the_last_host_is_told(path, host):
    async def work(server, client):
        url = f"http://one.example:{server.port}{path.format(port=server.port)}"
        return (await client.get(url)).host, f"{host}:{server.port}"

    lookup = {"resolver": named(one="127.0.0.1", other="127.0.0.1")}
    found, expected = asking(work, client=lookup, timeout_s=0.6)
    assert found == expected
    assert got("nan").host == ""


def test_each_hop_is_asked_of_robots_and_of_the_lists(tmp_path):
    assert got("/redirect/302?to=%2Fprivate%2F1").state == "robots"
    path = tmp_path / "hosts.txt"
    path.write_text("other.example")
    lookup = {"resolver": named(one="127.0.0.1", other="127.0.0.1")}

    async def work(server, client):
        to = f"http%3A%2F%2Fother.example%3A{server.port}%2Fok%2F1.jpg"
        url = f"http://one.example:{server.port}/redirect/302?to={to}"
        return (await client.get(url)).state, server.asked["/ok/1.jpg"]

    assert asking(work, client=lookup) == (STORED, 1)
    assert asking(work, client=lookup, opt_out_hosts=str(path)) == ("opted_out", 0)


def test_addresses_that_opted_out_are_not_asked(tmp_path):
    path = tmp_path / "list.txt"

    async def work(server, client):
        url = f"{server.base}/ok/1.jpg"
        path.write_text(url)
        async with Client(configured(opt_out_urls=str(path))) as obeying:
            states = [(await obeying.get(url)).state, (await obeying.get(url + "?a")).state]
        return states, server.asked["/ok/1.jpg"]

    assert asking(work) == (["opted_out", STORED], 0)


@pytest.mark.parametrize(
    ("url", "state"),
    [
        ("http://127.0.0.2:{port}/ok/1.jpg", "forbidden_network"),
        ("http://[::ffff:127.0.0.1]:{port}/ok/1.jpg", "forbidden_network"),
        ("http://[::1]:{port}/ok/1.jpg", "forbidden_network"),
        ("http://0.0.0.0:{port}/ok/1.jpg", "forbidden_network"),
        ("http://inside.example:{port}/ok/1.jpg", "forbidden_network"),
        ("http://2130706433:{port}/ok/1.jpg", "bad_address"),
        ("http://0x7f.1:{port}/ok/1.jpg", "bad_address"),
        ("http://１２７.0.0.2:{port}/ok/1.jpg", "forbidden_network"),
        ("{base}/to-loopback/1", "forbidden_network"),
        (
            "{base}/redirect/302?to=http%3A%2F%2Finside.example%3A{port}%2Fok%2F1.jpg",
            "forbidden_network",
        ),
        (
            "{base}/redirect/302?to=http%3A%2F%2F%5B%3A%3Affff%3A127.0.0.1%5D%3A{port}%2F",
            "forbidden_network",
        ),
    ],
)
@pytest.mark.parametrize("robots", [True, False])
def test_no_address_in_a_private_network_is_connected_to(url, state, robots):
    """The server listens on the second address as well, so that a connection would be noticed."""

    async def work(server, client):
        before = server.connections
        found = await client.get(url.format(base=server.base, port=server.port))
        return found.state, server.connections - before, [*server.asked]

    arguments = {
        "server": {"also": ("127.0.0.2",)},
        "client": {"resolver": named(inside="127.0.0.2")},
    }
    found, connections, paths = asking(work, robots=robots, **arguments)
    assert found == state
    assert "/ok/1.jpg" not in paths
    assert connections == ("base" in url)


def test_a_name_whose_address_changes_is_checked_at_every_connection():
    """The classic of DNS rebinding: a public address for the check, a private one for the connection."""
    answers, asked = [["127.0.0.1"], ["127.0.0.2"]], []

    def lookup(host):
        asked.append(host)
        return answers[min(len(asked) - 1, 1)]

    async def work(server, client):
        url = f"http://changing.example:{server.port}/ok/1.jpg"
        first = await client.get(url)
        looked_up = len(asked)
        client._transport._resolver._known.clear()
        again = await client.get(
            url
        )  # over the connection that stands, to the address that was checked
        await client._transport._session.connector.close()
        async with Client(configured(robots=False), resolver=lookup) as other:
            return first.state, looked_up, again.state, (await other.get(url)).state

    found = asking(work, robots=False, server={"also": ("127.0.0.2",)}, client={"resolver": lookup})
    assert found == (STORED, 1, STORED, "forbidden_network")


def test_a_named_host_may_be_in_a_private_network():
    async def work(server, client):
        hosts = [f"inside.example:{server.port}", "127.0.0.1"]
        config = FetchConfig(**LIMITS, allow_hosts=hosts)
        async with Client(config, resolver=named(inside="127.0.0.1", other="127.0.0.1")) as allowed:
            names = ("inside.example", "127.0.0.1", "other.example")
            urls = [f"http://{name}:{server.port}/ok/1.jpg" for name in names]
            return [(await allowed.get(url)).state for url in urls]

    assert asking(work) == [STORED, STORED, "forbidden_network"]


def test_each_address_of_a_named_host_may_be_tried():
    """Further addresses are tried in tasks of their own, which must know the host, too."""

    async def work(server, client):
        url = f"http://inside.example:{server.port}/ok/1.jpg"
        config = FetchConfig(**LIMITS, allow_hosts=["inside.example"])
        async with Client(config, resolver=lambda host: ["127.0.0.3", "127.0.0.1"]) as allowed:
            return (await allowed.get(url)).state

    assert asking(work) == STORED


def test_certificates_are_verified(tls, authority):
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    lookup = named(good="127.0.0.1", evil="127.0.0.1")

    async def work(server, client):
        port = server.port
        config = configured(robots=False)
        async with Client(config, resolver=lookup, tls=trusting) as trusts:
            return (
                await client.get(f"https://good.example:{port}/ok/1.jpg"),
                await trusts.get(f"https://good.example:{port}/ok/1.jpg"),
                await trusts.get(f"{server.base}/ok/1.jpg"),
                await trusts.get(f"https://evil.example:{port}/ok/1.jpg"),
                await trusts.get(f"http://good.example:{port}/ok/1.jpg"),
            )

    found = asking(work, server={"tls": tls}, client={"resolver": lookup})
    states = [what.state for what in found]
    assert states == ["bad_certificate", STORED, STORED, "bad_certificate", "cut_short"]
    assert "self" in found[0].error or "issuer" in found[0].error
    assert found[3].error == "a certificate of another host"


def test_plain_http_behind_https_is_no_certificate():
    async def work(server, client):
        return await client.get(f"https://127.0.0.1:{server.port}/ok/1.jpg")

    assert asking(work).state == "bad_certificate"


@pytest.mark.parametrize(
    "path",
    [
        "/ok/../ok/1.jpg?a=%zz&b=%41",
        "/ok//1.jpg",
        "/ok/%31.jpg",
        '/ok/"<>|{}1.jpg',
        "/ok/1.jpg?x=a+b&y=",
    ],
)
def test_an_address_is_sent_as_it_is_written(path):
    async def work(server, client):
        await client.get(server.base + path)
        return server.last_target

    assert asking(work) == path


def test_other_letters_are_quoted_once():
    async def work(server, client):
        await client.get(f"{server.base}/ok/ü 1%20.jpg#x")
        sent = server.last_target
        await client.get(f"http://bücher.example:{server.port}/ok/1.jpg")
        return sent, server.last_headers["host"].partition(":")[0]

    lookup = {"resolver": lambda host: ["127.0.0.1"]}
    assert asking(work, client=lookup) == ("/ok/%C3%BC%201%20.jpg", "xn--bcher-kva.example")


def test_who_asks_says_so_and_nothing_more(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1/")

    async def work(server, client):
        await client.get(f"{server.base}/header/1?Set-Cookie=a=b")
        await client.get(f"{server.base}/header/2")
        return server.last_headers

    headers = asking(work)
    assert headers["user-agent"].startswith("Darkroom/")
    assert headers["user-agent"].endswith(" (+me@example.org)")
    assert headers["accept-encoding"] == "identity"
    assert headers.keys() == {"host", "user-agent", "accept", "accept-encoding"}


def test_the_crawl_delay_of_a_host_is_found_by_its_name_in_any_letters():
    async def work(server, client):
        await client.get(f"http://bücher.example:{server.port}/ok/1.jpg")
        names = ("bücher.example", "xn--bcher-kva.example", "h.example", "ü" * 90)
        return [client.crawl_delay(f"{name}:{server.port}") for name in names]

    robots = {"robots": "User-agent: *\nCrawl-delay: 3\n"}
    lookup = {"resolver": lambda host: ["127.0.0.1"]}
    assert asking(work, server=robots, client=lookup) == [3, 3, None, None]


@pytest.mark.parametrize("path", ["/noai/1", "/tdm/1"])
def test_a_reserved_picture_is_not_waited_for(path):
    """The server sends the body a minute after the headers."""
    assert got(path).state == "reserved"


@pytest.mark.parametrize(
    ("path", "seconds"),
    [
        ("/once/429/1.jpg?after=7", 7),
        ("/once/503/1.jpg?after=0", 0),
        *((f"/once/{status}/1.jpg?after=86400", None) for status in (403, 404, 410, 500)),
    ],
)
def test_how_long_to_wait_is_told(path, seconds):
    assert got(path).retry_after_s == seconds


def test_a_name_server_that_hangs_is_told_from_a_host_that_does():
    let = threading.Event()

    def lookup(host):
        assert let.wait(60)
        return ["127.0.0.1"]

    found = got("http://h.example/", client={"resolver": lookup}, connect_s=0.2)
    let.set()
    assert (found.state, found.error) == ("dns_failed", "no answer within fetch.connect_s")


def test_names_that_wait_for_others_until_the_end_are_no_fault_of_the_host(monkeypatch):
    monkeypatch.setattr(lookups, "AT_ONCE", 1)
    let = threading.Event()

    def lookup(host):
        assert let.wait(60)
        return ["127.0.0.1"]

    async def work(server, client):
        urls = [f"http://{name}.example:{server.port}/ok/1.jpg" for name in "ab"]
        found = await asyncio.gather(*map(client.get, urls))
        let.set()
        return [(answer.state, answer.error) for answer in found]

    found = asking(work, client={"resolver": lookup}, timeout_s=0.3)
    assert found == [("dns_failed", "the name server does not keep up")] * 2


def test_a_host_that_takes_no_connection_is_given_up():
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port, waiting = full.getsockname()[1], []
        for _ in range(8):  # the queue is full after a few: further connections hang
            waiting.append(client := socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        found = got(f"http://127.0.0.1:{port}/1.jpg", robots=False, connect_s=0.5)
        for client in waiting:
            client.close()
    assert (found.state, found.error) == ("cannot_connect", "no answer within fetch.connect_s")
    assert found.seconds < 5


def test_the_whole_attempt_has_one_limit():
    """Each of the redirects is answered in time; all together are not."""
    found = got("/hops/5/1", server={"latency_s": 0.2}, timeout_s=0.7)
    assert found.state == "timeout"


def test_connections_are_kept_and_closed_early_where_a_body_is_not_wanted():
    async def work(server, client):
        for number in range(5):
            await client.get(f"{server.base}/ok/{number}.jpg")
            await client.get(f"{server.base}/status/404/{number}")
        kept = server.connections
        await client.get(f"{server.base}/huge-length/1")
        await asyncio.sleep(0.05)
        return kept, len(server.open)

    assert asking(work) == (1, 0)


def test_a_body_is_never_held_beyond_the_limit():
    async def work(server, client):
        await client.get(f"{server.base}/ok/1.jpg")
        gc.collect()
        tracemalloc.start()
        states = [
            (await client.get(f"{server.base}{path}")).state for path in ("/endless/1", "/bomb/2")
        ]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return states, peak

    got("/bomb/1")  # made once, before memory is counted
    states, peak = asking(work, max_mb=2)
    assert states == ["too_large"] * 2
    assert peak < 16e6


def test_large_bodies_wait_for_room_and_small_ones_do_not():
    async def work(server, client):
        client._room = Room(6_000_000)
        room, least = client._room, []
        give = room.give
        room.give = lambda count: (least.append(room._free), give(count))
        large = [f"{server.base}/ok/{number}.jpg?kb=2000" for number in range(9)]
        packed = [f"{server.base}/encoded/gzip/{number}?kb=2000" for number in range(3)]
        unknown = [f"{server.base}/chunked/{number}?kb=2000" for number in range(3)]
        small = [f"{server.base}/ok/{number}.png" for number in range(9)]
        urls = large + packed + unknown + small
        states = {found.state for found in await asyncio.gather(*map(client.get, urls))}
        return states, min(least), room._free

    states, least, free = asking(work, host_connections=99)
    assert states == {STORED}
    assert 0 <= least < 3_000_000
    assert free == 6_000_000


def test_a_limit_holds_to_the_byte():
    size = len(picture(1, kb=100))
    assert got("/ok/1.jpg?kb=100", max_mb=size / 1e6).state == STORED
    assert got("/ok/1.jpg?kb=100", max_mb=(size - 1) / 1e6).state == "too_large"
    assert got("/chunked/1?kb=100", max_mb=(size - 1) / 1e6).state == "too_large"
    assert got("/encoded/gzip/1?kb=100", max_mb=(size - 1) / 1e6).state == "too_large"
    assert got("/encoded/gzip/1?kb=100", max_mb=size / 1e6).state == STORED


def test_nothing_is_left_behind_by_an_attempt_that_is_cancelled():
    async def work(server, client):
        task = asyncio.create_task(client.get(f"{server.base}/never/1"))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.05)
        return len(server.open), (await client.get(f"{server.base}/ok/1.jpg")).state

    assert asking(work) == (0, STORED)


def test_no_bytes_of_a_server_end_in_an_error(monkeypatch):
    draw = random.Random(0)
    heads = (
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nSet-Cookie: a=b; Path=/\r\nX-Robots-Tag: a: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}\r\n",
        "HTTP/1.1 302 Found\r\nLocation: ../ok/1.jpg?ä\r\nContent-Length: {}\r\n\r\n",
        "HTTP/1.1 503 X\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\nContent-Length: {}\r\n\r\n",
    )

    def broken(connection, asked):
        body = picture(asked.number)
        head = bytearray(draw.choice(heads).format(len(body)).encode())
        for _ in range(draw.choice((0, 1, 2, 5))):
            head[draw.randrange(len(head))] = draw.randrange(256)
        connection.transport.write(bytes(head) + body)
        if draw.random() < 0.5:
            connection.transport.close()

    async def work(server, client):
        urls = [f"{server.base}/broken/{number}" for number in range(400)]
        return {(await client.get(url)).state for url in urls}

    monkeypatch.setitem(KINDS, "broken", broken)
    found = asking(work, robots=False, stall_s=0.02, client={"resolver": named()})
    assert found <= {*STATES}
    assert len(found) > 4


def test_the_table_has_its_share_of_bad_addresses():
    rows = table("http://127.0.0.1:1", 2000, seed=3)
    assert len({url for url, _ in rows}) == 2000
    assert sum(state != STORED for _, state in rows) == 300
    assert {state for _, state in rows} == {*BAD.values(), *SLOW.values(), STORED}
    assert rows == table("http://127.0.0.1:1", 2000, seed=3)
    assert rows != table("http://127.0.0.1:1", 2000, seed=4)
