import hashlib

import pytest

from curate.fetch.config import FetchConfig
from curate.fetch.opt_out import OptOut
from curate.run.schema import UserError


def listed(tmp_path, **lists):
    paths = {}
    for name, text in lists.items():
        path = tmp_path / f"{name}.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        paths[f"opt_out_{name}"] = str(path)
    return OptOut(FetchConfig(**paths))


def test_a_host_is_listed_with_all_below_it(tmp_path):
    opt_out = listed(tmp_path, hosts="# artists\n\nExample.org\n*.art.example\nbücher.example\n")
    for name in (
        "example.org",
        "www.example.org",
        "a.b.example.org.",
        "art.example",
        "xn--bcher-kva.example",
    ):
        assert opt_out.has_host(name), name
    for name in ("org", "notexample.org", "example.org.evil", "1.2.3.4"):
        assert not opt_out.has_host(name), name


def test_an_address_is_listed_as_it_is_written(tmp_path):
    opt_out = listed(tmp_path, urls="\ufeffhttp://h.example/a b.jpg\r\nhttps://h.example/ü\n")
    assert opt_out.has_address(" http://h.example/a b.jpg\n")
    assert opt_out.has_address("https://h.example/ü")
    assert not opt_out.has_address("http://h.example/a")
    assert not opt_out.has_address("\udfff")


def test_a_picture_is_listed_by_either_hash(tmp_path):
    md5, sha256 = hashlib.md5(b"a").hexdigest(), hashlib.sha256(b"b").hexdigest()
    opt_out = listed(tmp_path, hashes=f"{md5}\n{sha256.upper()}\n")
    assert opt_out.has_picture(md5)
    assert opt_out.has_picture(sha256)
    assert not opt_out.has_picture(hashlib.md5(b"b").hexdigest())
    assert not opt_out.has_picture(hashlib.sha256(b"a").hexdigest())
    assert (opt_out.has_md5, opt_out.has_sha256) == (True, True)


def test_many_entries_are_all_found(tmp_path):
    digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(5000)]
    opt_out = listed(tmp_path, hashes="\n".join(digests[::2]))
    assert [opt_out.has_picture(digest) for digest in digests] == [True, False] * 2500
    assert not opt_out.has_md5
    assert not opt_out.has_picture("f" * 64)


def test_without_lists_nothing_is_listed():
    opt_out = OptOut(FetchConfig())
    assert not opt_out.has_host("example.org")
    assert not opt_out.has_address("http://example.org/")
    assert not opt_out.has_picture("0" * 64)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(
            ("hosts", "https://example.org/"),
            ("hosts", "example.org/a"),
            ("hosts", "a b"),
            ("hosts", "*."),
        ),
        *(("hashes", "abc"), ("hashes", "g" * 64), ("hashes", "0" * 40), ("urls", b"\xff\xfe\xe4")),
    ],
)
def test_a_line_of_another_kind_is_an_error_that_names_the_file(tmp_path, name, text):
    with pytest.raises(UserError, match=rf"fetch\.opt_out_{name}=.*{name}\.txt"):
        listed(tmp_path, **{name: text})


def test_a_list_that_is_not_there_is_an_error():
    with pytest.raises(UserError, match=r"fetch\.opt_out_urls=/nowhere"):
        OptOut(FetchConfig(opt_out_urls="/nowhere"))
