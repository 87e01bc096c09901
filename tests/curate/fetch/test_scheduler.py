"""Every request is asked within the limits, again where that may help, and answered once."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from curate.fetch import scheduler
from curate.fetch.answer import PERMANENT, TRANSIENT, Answer, Request, Way
from curate.fetch.config import FetchConfig
from curate.fetch.hosts import FAILURES, MAX_REST_S, REST_S, host_of
from tests.curate.fetch.virtual import run

CONFIG = FetchConfig(connections=8, host_connections=3, host_rate=None, retries=2, retry_wait_s=1.0)
STORED = Answer("stored", http_status=200)
FAILED = Answer("timeout")


def rows(*urls: str) -> list[Request]:
    return [Request(0, number, url) for number, url in enumerate(urls)]


def at(host: str, count: int) -> list[Request]:
    return rows(*(f"http://{host}/{number}.jpg" for number in range(count)))


class Web:
    """A fake of the client: what it is asked, when, and how many at one time."""

    def __init__(self, reply: Callable[[str, int], Answer] = lambda url, time: STORED) -> None:
        self.reply = reply
        self.seconds: Callable[[str], float] = lambda url: 0.05
        self.times: dict[str, list[float]] = defaultdict(list)  # of each address
        self.starts: dict[str, list[float]] = defaultdict(list)  # of each host
        self.order: list[str] = []
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.cancelled = 0
        self.paused: dict[str, float] = {}  # until when the host has asked to be left alone

    async def get(self, url: str, way: Way) -> Answer:
        now = asyncio.get_running_loop().time()
        host = host_of(url) or ""
        assert now >= self.paused.get(host, 0.0) - 1e-6
        self.times[url].append(now)
        self.starts[host].append(now)
        self.order.append(url)
        for name in ("all", host):
            self.running[name] += 1
            self.most[name] = max(self.most[name], self.running[name])
        try:
            await asyncio.sleep(self.seconds(url))
            return self.reply(url, len(self.times[url]))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running["all"] -= 1
            self.running[host] -= 1


class Result:
    """The answers, and when they came."""

    def __init__(self) -> None:
        self.answers: dict[int, Answer] = {}
        self.at: dict[int, float] = {}

    def done(self, request: Request, answer: Answer) -> None:
        assert request.index not in self.answers, f"{request.url} is answered twice"
        self.answers[request.index] = answer
        self.at[request.index] = asyncio.get_running_loop().time()

    def states(self) -> list[str]:
        return [self.answers[index].state for index in sorted(self.answers)]


def fetched(
    requests: Iterable[Request | None], web: Web, config: FetchConfig = CONFIG, **options: Any
) -> Result:
    result = Result()

    async def main() -> None:
        await scheduler.fetch(requests, web.get, config, result.done, **options)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not [task for task in others if "work" in repr(task)]

    run(main())
    return result


def test_nothing_to_ask_ends_at_once():
    assert fetched([], Web()).answers == {}


def test_connections_limit_what_runs_at_one_time():
    web = Web()
    requests = [Request(0, n, f"http://h{n % 40}.test/{n}") for n in range(400)]
    assert fetched(requests, web).states() == ["stored"] * 400
    assert web.most["all"] == CONFIG.connections


def test_host_connections_limit_each_host_which_is_first_asked_alone():
    web = Web()
    result = fetched(at("a.test", 10), web)
    assert len(result.answers) == 10
    assert web.most["a.test:80"] == CONFIG.host_connections
    assert web.starts["a.test:80"][:4] == pytest.approx([0, 0.05, 0.05, 0.05])


def test_rate_of_a_host_spaces_its_requests_evenly_and_leaves_others_alone():
    web = Web()
    requests = [*at("slow.test", 20), *rows(*(f"http://h{n}.test/" for n in range(5)))]
    requests = [replace(request, index=n) for n, request in enumerate(requests)]
    fetched(requests, web, replace(CONFIG, host_rate=4.0))
    assert web.starts["slow.test:80"] == pytest.approx([n / 4 for n in range(20)])
    assert all(web.starts[f"h{n}.test:80"] == [0.0] for n in range(5))


def test_slow_host_does_not_hold_up_the_rest():
    web = Web()
    web.seconds = lambda url: 30.0 if "slow" in url else 0.05
    requests = [
        *at("slow.test", 50),
        *(Request(0, 50 + n, f"http://h{n}.test/") for n in range(50)),
    ]
    result = fetched(requests, web)
    assert max(result.at[50 + n] for n in range(50)) < 1.0
    assert len(result.answers) == 100


def test_crawl_delay_known_after_the_first_answer_spaces_all_others():
    web = Web()
    fetched(at("a.test", 4), web, crawl_delay=lambda host: 3.0 if web.order else None)
    assert web.starts["a.test:80"] == pytest.approx([0, 3, 6, 9])


def test_crawl_delay_beyond_max_wait_ends_the_host_unasked():
    web = Web()
    result = fetched(at("a.test", 4), web, crawl_delay=lambda host: 121.0 if web.order else None)
    assert result.states() == ["stored"] + ["asks_to_wait"] * 3
    assert "Crawl-delay" in result.answers[3].error


@pytest.mark.parametrize("state", sorted(TRANSIENT))
def test_transient_state_is_asked_again_and_ends_with_its_last_answer(state: str):
    web = Web(lambda url, time: Answer(state, f"attempt {time}"))
    result = fetched(rows("http://a.test/"), web)
    assert result.answers[0] == Answer(state, "attempt 3")
    assert len(web.order) == 1 + CONFIG.retries


@pytest.mark.parametrize("state", sorted(PERMANENT))
def test_permanent_state_is_not_asked_again(state: str):
    web = Web(lambda url, time: Answer(state))
    assert fetched(rows("http://a.test/"), web).states() == [state]
    assert len(web.order) == 1


def test_second_attempt_may_succeed():
    web = Web(lambda url, time: STORED if time == 2 else Answer("timeout"))
    assert fetched(rows("http://a.test/"), web).states() == ["stored"]


def test_waits_grow_are_jittered_by_the_address_and_repeat():
    config = replace(CONFIG, retries=6, max_wait_s=0.0)
    requests = rows(*(f"http://h{n}.test/" for n in range(200)))
    waits: list[list[float]] = []
    for _ in range(2):
        web = Web(lambda url, time: Answer("server_error", http_status=500))
        fetched(requests, web, config)
        waits += [
            [times[attempt + 1] - times[attempt] - 0.05 for times in web.times.values()]
            for attempt in range(6)
        ]
    assert waits[:6] == [pytest.approx(wait, abs=0.5) for wait in waits[6:]]
    for attempt, wait in enumerate(waits[:6]):
        longest = 2.0**attempt
        assert min(wait) >= -1e-6
        if attempt > 2:  # a wait for a free connection is small against these
            assert max(wait) < longest * 1.5
            assert 0.4 * longest < sum(wait) / len(wait) < 0.65 * longest


def test_row_that_waits_for_its_next_attempt_occupies_no_connection():
    config = replace(CONFIG, connections=1, retry_wait_s=1000.0, retries=1)
    web = Web(lambda url, time: Answer("timeout") if "bad" in url else STORED)
    requests = [
        *rows("http://bad.test/"),
        *(Request(0, n, f"http://h{n}.test/") for n in range(1, 9)),
    ]
    result = fetched(requests, web, config)
    assert max(result.at[n] for n in range(1, 9)) < 1.0
    assert result.states() == ["timeout"] + ["stored"] * 8


def test_retry_after_pauses_the_whole_host():
    def reply(url: str, time: int) -> Answer:
        first = url.endswith("/0.jpg") and time == 1
        return Answer("rate_limited", http_status=429, retry_after_s=60.0) if first else STORED

    web = Web(reply)
    result = fetched([*at("a.test", 5), Request(0, 9, "http://b.test/")], web)
    assert result.states() == ["stored"] * 6
    assert web.starts["a.test:80"][0] == 0.0
    assert web.starts["a.test:80"][1] == pytest.approx(60.05)
    assert result.at[9] == pytest.approx(0.05)


@pytest.mark.parametrize("state", ["rate_limited", "server_error"])
def test_retry_after_beyond_max_wait_ends_the_rows_of_the_host_unasked(state: str):
    web = Web(lambda url, time: Answer(state, http_status=503, retry_after_s=121.0))
    result = fetched([*at("a.test", 5), Request(0, 9, "http://b.test/")], web)
    assert result.states() == [state] + ["asks_to_wait"] * 4 + [state]
    assert len(web.starts["a.test:80"]) == 1


def test_429_without_retry_after_pauses_the_host_as_long_as_the_row():
    limits = Answer("rate_limited", http_status=429)
    web = Web(lambda url, time: limits if url.endswith("/0.jpg") and time == 1 else STORED)
    fetched(at("a.test", 5), web, replace(CONFIG, retry_wait_s=100.0))
    assert web.order[:2] == ["http://a.test/0.jpg"] * 2
    assert web.starts["a.test:80"][1] > 1.0


def test_host_that_limits_is_asked_more_and_more_slowly_until_it_answers():
    """It takes four requests a second and says no more than 429."""
    taken: list[float] = []

    def reply(url: str, time: int) -> Answer:
        now = asyncio.get_running_loop().time()
        if len([t for t in taken if t > now - 1]) >= 4:
            return Answer("rate_limited", http_status=429)
        taken.append(now)
        return STORED

    result = fetched(at("a.test", 300), Web(reply))
    assert result.states().count("stored") > 285
    assert max(result.at.values()) < 300


def dead(host: str = "dead") -> Callable[[str, int], Answer]:
    return lambda url, time: Answer("cannot_connect") if host in url else STORED


def test_host_that_fails_in_a_row_rests_is_tried_once_and_given_up():
    config = replace(CONFIG, retries=0)
    web = Web(dead())
    result = fetched([*at("dead.test", 20), Request(0, 99, "http://b.test/")], web, config)
    starts = web.starts["dead.test:80"]
    assert len(starts) == FAILURES + 1
    assert starts[FAILURES] == pytest.approx(FAILURES * 0.05 + REST_S)
    expected = ["cannot_connect"] * (FAILURES + 1) + ["host_down"] * (20 - FAILURES - 1)
    assert sorted(result.states()[:20]) == expected
    assert result.answers[99].state == "stored"


@pytest.mark.parametrize("retry_wait_s", [1.0, 60.0])
def test_row_that_was_asked_keeps_its_own_answer_when_its_host_is_given_up(retry_wait_s: float):
    web = Web(dead())
    result = fetched(at("dead.test", 60), web, replace(CONFIG, retry_wait_s=retry_wait_s))
    states = Counter(result.states())
    assert states["host_down"] > 40
    for request in at("dead.test", 60):
        state = "cannot_connect" if request.url in web.times else "host_down"
        assert result.answers[request.index].state == state


def test_failed_trial_is_not_repeated():
    web = Web(dead())
    result = fetched(at("dead.test", 20), web)
    trial = web.starts["dead.test:80"][-1]
    assert max(result.at.values()) == pytest.approx(trial + 0.05)


def test_host_given_up_is_tried_again_after_twice_the_time_each_time():
    """Rows come one after the other, each when the one before has its answer and some time has passed."""
    config = replace(CONFIG, retries=0, connections=1)
    web = Web(dead())
    web.seconds = lambda url: 0.0 if "dead" in url else 10.0

    def requests() -> Iterator[Request]:
        for n in range(3000):
            yield Request(0, 2 * n, f"http://dead.test/{n}")
            yield Request(0, 2 * n + 1, f"http://h{n}.test/")

    result = fetched(requests(), web, config)
    assert len(result.answers) == 6000
    starts = web.starts["dead.test:80"]
    gaps = [b - a for a, b in zip(starts[FAILURES - 1 :], starts[FAILURES:], strict=False)]
    expected = [min(REST_S * 2**n, MAX_REST_S) for n in range(len(gaps))]
    assert len(gaps) >= 8
    for gap, least in zip(gaps, expected, strict=True):
        assert least <= gap + 1e-6


def test_host_that_comes_back_within_its_rest_loses_no_row():
    down_until = 20.0

    def reply(url: str, time: int) -> Answer:
        is_down = asyncio.get_running_loop().time() < down_until
        return Answer("cannot_connect") if is_down else STORED

    result = fetched(at("a.test", 30), Web(reply), replace(CONFIG, retries=5))
    assert result.states() == ["stored"] * 30


@pytest.mark.parametrize("state", ["not_found", "server_error", "not_a_picture", "refused"])
def test_answers_of_a_host_never_open_the_breaker(state: str):
    web = Web(lambda url, time: Answer(state, http_status=500))
    fetched(at("a.test", 50), web, replace(CONFIG, retries=0))
    assert len(web.order) == 50
    assert max(web.starts["a.test:80"]) < REST_S


@pytest.mark.parametrize("seed", range(3))
def test_host_is_not_given_up_for_addresses_that_hang_by_themselves(seed: int):
    chance = random.Random(seed)
    hanging = {number for number in range(2000) if chance.random() < 0.15}
    web = Web(lambda url, _: FAILED if _number(url) in hanging else STORED)
    web.seconds = lambda url: 4.0 if _number(url) in hanging else 0.05
    config = replace(CONFIG, connections=64, host_connections=64)
    result = fetched(at("a.test", 2000), web, config)
    assert Counter(result.states()) == {"timeout": len(hanging), "stored": 2000 - len(hanging)}


def _number(url: str) -> int:
    return int(url.rpartition("/")[2].removesuffix(".jpg"))


def redirecting(path: str, answer: Answer = STORED) -> Callable[[str, int], Answer]:
    """Every host sends those who ask for the path to cdn.test, which answers so."""

    def reply(url: str, time: int) -> Answer:
        if "cdn.test" in url:
            return answer
        if path in url:
            to = f"http://cdn.test/{url.partition('//')[2]}"
            return Answer("redirects", http_status=302, elsewhere=to, seconds=0.5)
        return STORED

    return reply


@pytest.mark.parametrize(
    "answer",
    [
        Answer("cannot_connect", http_status=302),
        Answer("unknown_host", http_status=302),
        Answer("server_error", http_status=503, retry_after_s=86400.0),
    ],
)
def test_failure_behind_a_redirect_is_not_the_first_hosts(answer: Answer):
    web = Web(redirecting("/1", answer))
    result = fetched(at("a.test", 50), web)
    assert Counter(result.states())["stored"] == 50 - 11
    assert len(web.starts["a.test:80"]) == 50


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, host_rate=20.0, connections=64)])
def test_limits_of_a_host_hold_for_what_leads_there(config: FetchConfig):
    web = Web(redirecting("/"))
    web.seconds = lambda url: 0.2
    urls = [f"http://src{n % 40}.test/{n}" for n in range(400)]
    assert fetched(rows(*urls), web, config).states() == ["stored"] * 400
    assert web.most["cdn.test:80"] == config.host_connections
    starts = web.starts["cdn.test:80"]
    assert len(starts) == 400
    if config.host_rate:
        assert starts[-1] - starts[0] >= 399 / config.host_rate - 1e-6


def test_many_redirects_to_a_slow_host_hold_up_nobody_else():
    web = Web(redirecting("/slow"))
    web.seconds = lambda url: 60.0 if "cdn" in url else 0.05
    slow = [f"http://s{n}.test/slow" for n in range(30)]
    quick = [f"http://q{n}.test/" for n in range(300)]
    result = fetched(rows(*slow, *quick), web)
    assert max(result.at[30 + n] for n in range(300)) < 10.0


def test_rows_that_lead_to_a_closed_host_are_not_asked_there():
    busy = Answer("rate_limited", http_status=429, retry_after_s=500.0)
    web = Web(redirecting("/", busy))
    result = fetched(rows(*(f"http://h{n}.test/" for n in range(30))), web)
    assert result.states().count("asks_to_wait") == 29
    assert len(web.starts["cdn.test:80"]) == 1


def test_a_failure_before_a_redirect_is_not_the_end_of_a_row_that_waits_behind_it():
    busy = Answer("rate_limited", http_status=429, retry_after_s=500.0)
    then = redirecting("/", busy)

    def reply(url: str, time: int) -> Answer:
        return Answer("timeout") if time == 1 and "cdn" not in url else then(url, time)

    web = Web(reply)
    web.seconds = lambda url: 30.0 if "cdn" in url else 0.05
    result = fetched(rows(*(f"http://h{n}.test/" for n in range(30))), web)
    assert Counter(result.states()) == {"asks_to_wait": 29, "rate_limited": 1}


def test_redirects_of_one_attempt_are_told_and_a_failure_behind_them_asks_there_again():
    ways: list[tuple[str, Way]] = []

    async def get(url: str, way: Way) -> Answer:
        ways.append((url, way))
        await asyncio.sleep(0.1)
        if way.redirects < 2:
            to = f"http://{way.redirects}.test/"
            return Answer("redirects", http_status=301 + way.redirects, elsewhere=to, seconds=3.0)
        return STORED if len(ways) == 5 else Answer("timeout")

    result = Result()
    run(scheduler.fetch(rows("http://a.test/"), get, CONFIG, result.done))
    last = ("http://1.test/", Way(2, 302, 6.0))
    first = [("http://a.test/", Way()), ("http://0.test/", Way(1, 301, 3.0))]
    assert ways == [*first, last, last, last]
    assert result.states() == ["stored"]


def test_unknown_host_is_looked_up_once():
    web = Web(lambda url, time: Answer("unknown_host", "no such name"))
    result = fetched(at("gone.test", 50), web)
    assert len(web.order) == 1
    assert set(result.answers.values()) == {Answer("unknown_host", "no such name")}


def test_rows_that_are_refused_here_do_not_wait_for_the_hosts_rate():
    web = Web(lambda url, time: Answer("opted_out"))
    web.seconds = lambda url: 0.0
    result = fetched(at("a.test", 500), web, replace(CONFIG, host_rate=1.0))
    assert max(result.at.values()) < 1.0
    assert result.states() == ["opted_out"] * 500


def test_addresses_without_a_host_go_straight_to_the_client():
    web = Web(lambda url, time: Answer("bad_address"))
    urls = ["ftp://a.test/", "", "http://[::1/", "nonsense", "http://:80/", "http://a:99999/"]
    result = fetched(rows(*urls), web, replace(CONFIG, host_rate=0.001))
    assert result.states() == ["bad_address"] * 6
    assert max(result.at.values()) < 1.0


def test_rows_of_the_same_address_are_asked_once():
    web = Web()
    result = fetched(rows(*["http://a.test/"] * 10, "http://a.test/2"), web)
    assert result.states() == ["stored"] * 11
    assert len(web.order) == 2


def test_rows_are_read_bit_by_bit():
    held: list[int] = []
    result = Result()

    def requests() -> Iterator[Request]:
        for n in range(5000):
            held.append(n - len(result.answers))
            yield Request(0, n, f"http://h{n % 7}.test/{n}")

    config = replace(CONFIG, connections=2, host_rate=50.0)
    run(scheduler.fetch(requests(), Web().get, config, result.done))
    assert len(result.answers) == 5000
    assert scheduler.AHEAD * 2 - 1 <= max(held) <= scheduler.AHEAD * 2


def test_rows_that_are_passed_over_do_not_keep_the_requests_waiting():
    """In real time: 600 rows with an answer take 0.6 seconds."""
    waited: list[float] = []
    result = Result()

    async def get(url: str, way: Way) -> Answer:
        before = time.monotonic()
        await asyncio.sleep(0.02)
        waited.append(time.monotonic() - before)
        return STORED

    def requests() -> Iterator[Request | None]:
        for n in range(1200):
            if n % 600 == 0:
                yield Request(0, n, f"http://h{n}.test/")
            time.sleep(0.001)
            yield None

    asyncio.run(scheduler.fetch(requests(), get, CONFIG, result.done))
    assert result.states() == ["stored"] * 2
    assert max(waited) < 0.3


def test_many_rows_are_passed_over():
    passed = (
        Request(0, n, f"http://h{n}.test/") if n % 10_000 == 0 else None for n in range(10**5)
    )
    assert fetched(passed, Web()).states() == ["stored"] * 10
    assert fetched([None] * 1000, Web()).states() == []


def test_slow_host_with_a_row_in_each_shard_leaves_few_shards_open():
    web = Web()
    web.seconds = lambda url: 1000.0 if "slow" in url else 0.05
    open_shards: Counter[int] = Counter()
    most: list[int] = []
    count = 20_000

    def requests() -> Iterator[Request]:
        for n in range(count):
            open_shards[n // 100] += 1
            most.append(len(+open_shards))
            yield Request(n // 100, n, f"http://{'h' if n % 100 else 'slow'}.test/{n}")

    def done(request: Request, answer: Answer) -> None:
        open_shards[request.shard] -= 1

    run(scheduler.fetch(requests(), web.get, replace(CONFIG, connections=64), done))
    assert open_shards.total() == 0
    assert max(most) == scheduler.SHARDS + 1, "the row of the next one is read and waits"


def test_hosts_without_rows_are_forgotten(monkeypatch: pytest.MonkeyPatch):
    sizes: list[int] = []
    original = scheduler.Hosts.idle

    def idle(self: Any, host: Any, now: float) -> None:
        original(self, host, now)
        sizes.append(len(self))

    monkeypatch.setattr(scheduler.Hosts, "idle", idle)
    monkeypatch.setattr(scheduler.Hosts.__init__, "__defaults__", (100,))
    config = replace(CONFIG, connections=1)
    fetched(rows(*(f"http://h{n}.test/" for n in range(3000))), Web(), config)
    assert max(sizes) <= 100 + scheduler.AHEAD


@pytest.mark.parametrize("place", ["done", "get", "requests"])
def test_exception_stops_everything_and_is_handed_on(place: str):
    web = Web()
    web.seconds = lambda url: 0.01 if url.endswith("/0") else 50.0
    original = web.get

    async def get(url: str, way: Way) -> Answer:
        answer = await original(url, way)
        if place == "get":
            raise OSError("get")
        return answer

    def done(request: Request, answer: Answer) -> None:
        if place == "done":
            raise OSError("done")

    def requests() -> Iterator[Request]:
        for n in range(8):
            yield Request(0, n, f"http://h{n}.test/{n}")
        if place == "requests":
            raise OSError("requests")

    async def main() -> float:
        with pytest.raises(OSError, match=place):
            await scheduler.fetch(requests(), get, CONFIG, done)
        assert len(asyncio.all_tasks()) <= 2, "workers are left behind"
        return asyncio.get_running_loop().time()

    assert run(main()) < 1.0
    assert web.running["all"] == 0
    assert web.cancelled == len(web.order) - (place != "requests")


def test_cancelling_cancels_the_requests_under_way():
    web = Web()
    web.seconds = lambda url: 1000.0
    result = Result()

    async def main() -> None:
        task = asyncio.create_task(
            scheduler.fetch(
                rows(*(f"http://h{n}.test/" for n in range(99))), web.get, CONFIG, result.done
            )
        )
        await asyncio.sleep(5.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) <= 2

    run(main())
    assert web.cancelled == CONFIG.connections
    assert web.running["all"] == 0
    assert result.answers == {}


@pytest.mark.parametrize("seed", range(6))
def test_random_failures_never_break_a_limit_and_every_row_is_answered_once(seed: int):
    draw = random.Random(seed)
    config = FetchConfig(
        connections=draw.choice([1, 5, 20]),
        host_connections=draw.choice([1, 3]),
        host_rate=draw.choice([2.0, 7.0, 20.0]),
        retries=draw.choice([0, 2, 4]),
        retry_wait_s=0.5,
    )
    states = ["stored"] * 20 + sorted(TRANSIENT) + sorted(PERMANENT)
    states.remove("unknown_host")

    def reply(url: str, time: int) -> Answer:
        state = draw.choice(states)
        wait = draw.choice([None, 1.0, 5.0, 500.0]) if state == "rate_limited" else None
        if wait is not None and wait < config.max_wait_s:
            web.paused[host_of(url) or ""] = asyncio.get_running_loop().time() + wait
        status = draw.choice([0, 302]) if state == "cannot_connect" else 200
        status = 429 if state == "rate_limited" else status
        if state == "redirects" and draw.random() < 0.8:
            to = f"http://h{draw.randrange(12)}.test/to/{url.rpartition('/')[2]}"
            return Answer(state, http_status=302, elsewhere=to)
        return Answer(state, retry_after_s=wait, http_status=status)

    web = Web(reply)
    web.seconds = lambda url: draw.choice([0.0, 0.01, 0.3, 8.0])
    count = 1500
    requests = [
        Request(0, n, f"http://h{draw.randrange(12)}.test/{draw.randrange(900)}")
        for n in range(count)
    ]
    result = fetched(requests, web, config)
    assert sorted(result.answers) == list(range(count))
    assert web.most.pop("all") <= config.connections
    assert max(web.most.values()) <= config.host_connections
    assert max(len(times) for times in web.times.values()) <= (config.retries + 1) * 4


@pytest.mark.parametrize("rate", [0.4, 3.0, 20.0])
def test_rate_is_never_exceeded_in_any_second(rate: float):
    draw = random.Random(7)
    states = ["stored"] * 5 + ["timeout", "server_error", "not_found"]
    web = Web(lambda url, time: Answer(draw.choice(states), http_status=302))
    web.seconds = lambda url: draw.choice([0.0, 0.02, 0.4])
    requests = [Request(0, n, f"http://h{n % 3}.test/{n}") for n in range(300)]
    fetched(requests, web, replace(CONFIG, host_rate=rate))
    for starts in web.starts.values():
        for n, start in enumerate(starts):
            within = [s for s in starts[n:] if s < start + max(1.0, 1 / rate) - 1e-6]
            assert len(within) <= max(1, round(rate))
