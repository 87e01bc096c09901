"""Addresses of the server, each with the state in which it ends."""

import random
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

GOOD = (
    *("/ok/{n}.jpg", "/wrong-type/{n}", "/hops/2/{n}", "/encoded/gzip/{n}"),
    *("/chunked/{n}", "/once/503/{n}.jpg", "/once/429/{n}.jpg?after=0", "/once/reset/{n}.jpg"),
)
"""Paths that end as ``stored``, beside ``/ok/``."""

BAD = {
    "/status/404/{n}": "not_found",
    "/status/410/{n}": "not_found",
    "/status/401/{n}": "refused",
    "/status/403/{n}": "refused",
    "/status/451/{n}": "refused",
    "/status/204/{n}": "bad_answer",
    "/status/206/{n}": "bad_answer",
    "/status/429/{n}": "rate_limited",
    "/status/503/{n}": "server_error",
    "/private/{n}": "robots",
    "/noai/{n}": "reserved",
    "/tdm/{n}": "reserved",
    "/loop/{n}": "redirects",
    "/hops/9/{n}": "redirects",
    "/to-file/{n}": "redirects",
    "/to-metadata/{n}": "forbidden_network",
    "/to-private/{n}": "forbidden_network",
    "/html/{n}": "not_a_picture",
    "/empty/{n}": "not_a_picture",
    "/truncated/{n}": "damaged",
    "/long/{n}": "bad_answer",
    "/no-end/{n}": "damaged",
    "/pixels/{n}": "too_many_pixels",
    "/short/{n}": "cut_short",
    "/chunks-cut/{n}": "cut_short",
    "/reset/{n}": "cut_short",
    "/reset-within/{n}": "cut_short",
    "/hang-up/{n}": "cut_short",
    "/huge-length/{n}": "too_large",
    "/endless/{n}": "too_large",
    "/bomb/{n}": "too_large",
    "/huge-header/{n}": "bad_answer",
    "/no-http/{n}": "bad_answer",
    "/encoded/br/{n}": "bad_answer",
    "http://169.254.169.254/{n}.jpg": "forbidden_network",
    "http://127.77.{x}.{y}:3/{n}.jpg": "cannot_connect",  # nothing listens there
    "ftp://127.0.0.1/{n}.jpg": "bad_address",
    "no address {n}": "bad_address",
}
"""Paths and addresses, each with the state in which it ends when it was asked as often as it may be."""

SLOW = {f"/{name}/{{n}}": "timeout" for name in ("loris", "drip", "stall", "never")}
"""As ``BAD``; each takes the whole of ``fetch.timeout_s`` or ``fetch.stall_s`` at every attempt."""


def table(
    base: str,
    count: int,
    seed: int = 0,
    bad: float = 0.15,
    slow: float = 0.002,
    kb: float = 0,
    limited: Sequence[str] = (),
) -> list[tuple[str, str]]:
    """``count`` addresses, all different, each with the state in which it ends.

    Args:
        base: of the server.
        count: of addresses.
        seed: of the order and of which are bad.
        bad: share of those that end otherwise than ``stored``, in all ways of ``BAD`` in turn.
        slow: share of those of ``SLOW``, among the bad.
        kb: size of the good pictures of ``/ok/``, see `picture`.
        limited: in place of ``base`` in turn where the answer is 429; a host that asks for fewer requests is
            asked slowly, which one host for all would make long.
    """
    draw = random.Random(seed)
    slow_count = round(count * slow)
    ways = [*SLOW.items()] * (slow_count // len(SLOW) + 1)
    ways = ways[:slow_count] + [*BAD.items()] * (count // len(BAD) + 1)
    chosen = ways[: round(count * bad)]
    fine = count - len(chosen)
    odd = [(path, "stored") for path in GOOD] * (fine // (20 * len(GOOD)) + 1)
    chosen += odd[: fine // 20]
    ok = "/ok/{n}.jpg" + (f"?kb={kb:g}" if kb else "")
    chosen += [(ok, "stored")] * (count - len(chosen))
    draw.shuffle(chosen)
    rows = []
    for number, (path, state) in enumerate(chosen):
        url = path.format(n=number, x=number // 250 % 250, y=number % 250 + 1)
        at = limited[number % len(limited)] if limited and "/429/" in path else base
        rows.append((at + url if url.startswith("/") else url, state))
    return rows


def captions(count: int, seed: int = 0) -> list[str]:
    """As many different captions of ordinary words."""
    draw = random.Random(seed)
    colours = ("red", "green", "blue", "yellow", "violet", "orange", "pink", "brown", "grey")
    things = (
        "hill",
        "cloud",
        "lamp",
        "river",
        "boat",
        "leaf",
        "window",
        "ladder",
        "garden",
        "kettle",
    )
    return [
        f"a {draw.choice(colours)} {draw.choice(things)} beside a {draw.choice(colours)} "
        f"{draw.choice(things)}, number {number}"
        for number in range(count)
    ]


def path_of(url: str) -> str:
    """Path and query of an address, as ``Server.asked`` counts them."""
    parts = urlsplit(url)
    return unquote(parts.path) + (f"?{parts.query}" if parts.query else "")
