import pytest

from curate.fetch.status import retry_after_s, state_of


@pytest.mark.parametrize(
    ("status", "state"),
    [
        *(
            (404, "not_found"),
            (410, "not_found"),
            (401, "refused"),
            (403, "refused"),
            (451, "refused"),
        ),
        *((429, "rate_limited"), (408, "timeout"), (500, "server_error"), (503, "server_error")),
        *(
            (204, "bad_answer"),
            (206, "bad_answer"),
            (304, "bad_answer"),
            (400, "bad_answer"),
            (600, "bad_answer"),
        ),
    ],
)
def test_a_status_ends_in_a_state(status, state):
    assert state_of(status) == state


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(
            ("120", 120),
            (" 0 ", 0),
            (None, None),
            ("", None),
            ("soon", None),
            ("-5", None),
            ("1.5", None),
        ),
        *(("Thu, 01 Jan 1970 00:16:50 GMT", 10), ("Thu, 01 Jan 1970 00:16:50 -0000", 10)),
        *(("Thu, 01 Jan 1970 00:00:00 GMT", 0), ("Thursday, 01-Jan-70 00:16:50 GMT", 10)),
        *(("Fri, 99 Foo 2026 00:00:00 GMT", None), ("9" * 400, 1e9), ("١٢", None)),
    ],
)
def test_retry_after_is_a_count_or_a_date(text, seconds):
    assert retry_after_s(text, lambda: 1000.0) == seconds
