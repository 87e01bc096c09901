"""What is shown of a URL, and which are refused, for what they hold."""

import doctest

import pytest

from curate.run import remote


def test_the_examples_hold():
    assert doctest.testmod(remote).failed == 0


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket/a/b@2x.png", "s3://bucket/a/b@2x.png"),
        ("s3://key:pass@bucket/a", "s3://bucket/a"),
        ("s3://key:pa/ss/word@bucket/a", "s3://bucket/a"),  # half of all keys of S3 have a /
        ("s3://key:pa/ss@bucket/a@2x.png", "s3://2x.png"),
        ("s3://key:pass/a", "s3://key/a"),
        ("https://host:9000/a?signature=pass", "https://host:9000/a"),
        ("https://[::1]:9000/a", "https://[::1]:9000/a"),
    ],
)
def test_no_secret_is_shown(url, shown):
    assert remote.shown(url) == shown
    assert remote.holds_login(url) == ("key" in url)
