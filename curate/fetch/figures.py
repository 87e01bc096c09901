"""What has come of a fetch so far, in figures of constant size, and the sentences about them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping

from curate.fetch.answer import STORED, Answer
from curate.fetch.config import MOST_PIXELS, FetchConfig
from curate.run.intervals import wilson

RECENT = 1000
"""So many of the latest answers tell how a fetch goes, and of the first ones what the whole will be."""

LEAST_SHARE = 0.5
"""Of the latest answers; with fewer stored there is a warning."""

HOSTS = 1000  # of which the mean time is known

_CAUSES: dict[str, tuple[str, ...]] = {
    "names": ("dns_failed",),
    "limits": ("rate_limited", "asks_to_wait", "refused"),
    "gone": (
        *("unknown_host", "not_found", "not_a_picture", "redirects", "bad_address", "bad_answer"),
        *("bad_certificate", "damaged", "changed"),
    ),
    "slow": ("timeout", "cannot_connect", "cut_short", "host_down", "server_error"),
    "forbidden": ("robots", "robots_unreachable", "reserved", "opted_out"),
    "networks": ("forbidden_network",),
    "size": ("too_large", "too_many_pixels"),
}
CAUSE_OF = {state: cause for cause, states in _CAUSES.items() for state in states}
"""Every state but ``stored``, with the cause that a diagnosis names for it."""


class Figures:
    """Sums over all answers, the states of the latest, and the mean times of the slowest hosts.

    Attributes:
        states: how many answers of each state.
        stored_bytes: of all pictures that were stored.
        recent: the same as ``states`` for the latest `RECENT` answers.
    """

    def __init__(self) -> None:
        self.states: Counter[str] = Counter()
        self.stored_bytes = 0
        self.recent: Counter[str] = Counter()
        self._latest: deque[str] = deque()
        self._hosts: dict[str, tuple[int, float]] = {}  # answers and seconds

    def add(self, answer: Answer, host: str) -> None:
        """Count an answer of a host, "" if there is none."""
        state = answer.state
        self.states[state] += 1
        self.stored_bytes += len(answer.body)
        self.recent[state] += 1
        self._latest.append(state)
        if len(self._latest) > RECENT:
            self.recent[self._latest.popleft()] -= 1
        if answer.seconds > 0 and host:  # otherwise it was not asked
            answers, seconds = self._hosts.get(host, (0, 0.0))
            self._hosts[host] = answers + 1, seconds + answer.seconds
            if len(self._hosts) > HOSTS:
                self._hosts = dict(self._by_time()[: HOSTS // 2])

    @property
    def answered(self) -> int:
        """How many answers there are."""
        return self.states.total()

    def slowest(self, count: int = 3) -> list[tuple[str, float]]:
        """The hosts that took longest, with the mean seconds of an answer."""
        return [(host, seconds / answers) for host, (answers, seconds) in self._by_time()[:count]]

    def commonest(self) -> tuple[str, float]:
        """The host with most of the answers, and its share of them; exact for the first `HOSTS` answers."""
        if not self._hosts:
            return "", 0.0
        host, (answers, _) = max(self._hosts.items(), key=lambda item: item[1][0])
        return host, answers / self.answered

    def _by_time(self) -> list[tuple[str, tuple[int, float]]]:
        return sorted(self._hosts.items(), key=lambda item: -item[1][1] / item[1][0])


def stored_line(figures: Figures, seconds: float) -> str:
    """The share that is stored and the bytes a second; "" without any answer.

    >>> figures = Figures()
    >>> figures.add(Answer("stored", body=bytes(30_000)), "a.test:80")
    >>> figures.add(Answer("timeout", seconds=30.0), "b.test:80")
    >>> stored_line(figures, 0.1), errors_line(figures.states), slowest_line(figures)
    ('50% stored, 0.3 MB/s', 'timeout 50%', 'slowest: b.test:80 30 s')
    """
    if not figures.answered:
        return ""
    speed = figures.stored_bytes / 1e6 / seconds if seconds > 0 else 0.0
    share = figures.states[STORED] / figures.answered
    return f"{_percent(share)} stored, {speed:.1f} MB/s"


def errors_line(states: Mapping[str, int], count: int = 3) -> str:
    """The most frequent states other than ``stored``, each with its share; "" without any."""
    total = sum(states.values())
    failed = Counter({state: n for state, n in states.items() if n and state != STORED})
    return ", ".join(f"{state} {_percent(n / total)}" for state, n in failed.most_common(count))


def slowest_line(figures: Figures) -> str:
    """The slowest hosts; "" without any."""
    said = [f"{host} {seconds:.2g} s" for host, seconds in figures.slowest()]
    return f"slowest: {', '.join(said)}" if said else ""


def estimate(figures: Figures, seconds: float, rows: int, config: FetchConfig) -> str:
    """What the whole will be if all rows are like those so far.

    Args:
        figures: of some rows.
        seconds: that they took.
        rows: of this fetch as a whole.
        config: whose limits may be what takes the time.
    """
    answered, stored = figures.answered, figures.states[STORED]
    low, high = wilson(stored, answered)
    giga = stored / answered * rows * figures.stored_bytes / max(stored, 1) / 1e9
    text = (
        f"if the rest is like the first {answered:,}: {rows:,} addresses give about "
        f"{stored / answered * rows:,.0f} pictures ({_percent(low)} to {_percent(high)}), {giga:,.3g} GB, "
        f"in {_duration(seconds / answered * rows)}"
    )
    host, share = figures.commonest()
    if share >= 0.5 and config.host_rate:
        text += (
            f"; {_percent(share)} of the addresses are at {host}, which is asked "
            f"{config.host_rate:g} times a second at most (fetch.host_rate)"
        )
    return text


def cause(figures: Figures) -> str | None:
    """The key of `diagnosis` for most of the latest failures; None if enough of them are stored."""
    latest = figures.recent.total()
    if not latest or figures.recent[STORED] / latest >= LEAST_SHARE:
        return None
    causes: Counter[str] = Counter()
    for state, n in figures.recent.items():
        if state != STORED:
            causes[CAUSE_OF[state]] += n
    return causes.most_common(1)[0][0]


def diagnosis(figures: Figures, name: str, config: FetchConfig) -> str:
    """What is wrong and what to type, for a cause that `cause` names."""
    recent = figures.recent
    said = (
        f"only {_percent(recent[STORED] / recent.total())} of the last {recent.total():,} addresses gave a "
        f"picture ({errors_line(recent)}). {_advice(name, config)}"
    )
    if not figures.states[STORED] and name in ("names", "slow", "gone"):
        said += ". Nothing at all was fetched so far: is this machine connected to the network?"
    return said


def _advice(name: str, config: FetchConfig) -> str:
    fewer = f"fetch.connections={max(config.connections // 2, 1)}"
    rate = f"fetch.host_rate={config.host_rate / 2:g}" if config.host_rate else "fetch.host_rate=20"
    per_host = f"fetch.host_connections={max(config.host_connections // 2, 1)}"
    return {
        "names": "The name server does not keep up: use a local caching resolver such as unbound or "
        f"knot-resolver, or ask for fewer at one time: {fewer}",
        "limits": f"Hosts refuse, or ask for fewer requests: {rate} {per_host}, and see that "
        f"fetch.contact={config.contact} is an address where their owners reach you",
        "gone": "The pictures are gone, which is normal for an old table: users of img2dataset and of "
        "DataComp report 6% to 86% missing (mlfoundations/datacomp#3 and #39, rom1504/img2dataset#400). "
        "These rows are not asked again",
        "slow": f"Hosts or this machine's network do not keep up: {fewer}, or wait for longer: "
        f"fetch.timeout_s={2 * config.timeout_s:g}",
        "forbidden": "robots.txt, the hosts' headers or your lists of those who opted out forbid it: "
        "nothing is wrong, and these rows cannot be had",
        "networks": "Names lead to private or reserved networks: a filtering name server does that, or the "
        "hosts are in your intranet; then name them in fetch.allow_hosts or fetch.allow_networks",
        "size": f"Pictures are larger than fetch.max_mb={config.max_mb:g} or "
        f"fetch.max_pixels={config.max_pixels}: {_larger(config)} if you want such pictures",
    }[name]


def _larger(config: FetchConfig) -> str:
    """Which limits of size there are to raise."""
    return "raise them" if config.max_pixels < MOST_PIXELS else "raise the first"


def _percent(share: float) -> str:
    """Never 0% or 100% of what is neither."""
    share = round(share, 9)  # the bounds of an interval are not exact
    if 0 < share < 0.01:
        return "<1%"
    return ">99%" if 0.99 < share < 1 else f"{share:.0%}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:,.1f} hours"
