import random
from urllib.parse import urlsplit

import pytest

from curate.fetch.targets import BadAddress, parse


@pytest.mark.parametrize(
    "text",
    [
        "http://h.example/a/../b%2fc?x=%zz&a=+&b=%20",
        "http://h.example//x//y;z=1?c[]=1",
        'http://h.example/"<>|{}^`\\',
        "http://h.example/%41%e4",
        "HTTP://h.example/?q",
        "http://[2606:4700::1]:8080/a",
        "http://h.example:81/a?b?c",
    ],
)
def test_ascii_is_sent_byte_for_byte(text):
    target = parse(f"  {text}\n")
    assert target.text == text
    assert text.lower().endswith(target.url.raw_path_qs.lower())


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("http://h.example/a b", "http://h.example/a%20b"),
        ("http://h.example/a%20b ü", "http://h.example/a%20b%20%C3%BC"),
        ("http://h.example/a\r\nX-Evil: 1", "http://h.example/a%0D%0AX-Evil:%201"),
        ("http://h.example/a?ü=1#ü", "http://h.example/a?%C3%BC=1"),
        ("http://h.example/\udce4", "http://h.example/%E4"),  # a byte of a header that was no UTF-8
        ("http://bücher.example:81/", "http://xn--bcher-kva.example:81/"),
        ("http://bücher.example", "http://xn--bcher-kva.example"),
        ("http://h.example/a#b", "http://h.example/a"),
    ],
)
def test_all_else_is_quoted_once(text, sent):
    assert parse(text).text == sent


def test_the_host_and_the_port_are_those_of_the_request():
    assert parse("https://EXAMPLE.org./a").name == "example.org:443"
    assert parse("http://EXAMPLE.org:8080").origin == "http://example.org:8080"
    assert parse("http://[2606:4700::1]/").origin == "http://[2606:4700::1]:80"
    assert parse("http://[2606:4700::1]/").host == "2606:4700::1"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "ftp://h.example/",
            "file:///etc/passwd",
            "data:image/png;base64,AA",
            "javascript:1",
            "http://h.example/f\ufffdnf.jpg",  # of a table in another encoding
            "//h.example/",
        ),
        *(
            "h.example/a.jpg",
            "",
            "http://",
            "http:///a",
            "https:/h.example/a",
            "http://?a",
            "nan",
            "http://ü@h/",
        ),
        *(
            "http://user@h.example/",
            "http://user:word@h.example/",
            "http://:word@h.example/",
        ),
        *(
            "http://h.example:22/",
            "http://h.example:25/",
            "http://h.example:6667/",
            "http://h.example:0/",
        ),
        *(
            "http://h.example:99999/",
            "http://h.example:x/",
            "http://[::1/",
            "http://h\\@evil.example/",
        ),
        *(
            "http://2130706433/",
            "http://127.1/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://0x7f000001/",
        ),
        *("http://1.2.3.256/", "http://127.0.0.1./", "http://1.2.3.4.5/", "http://1.2.3.4.0x5/"),
        *(
            "http://h .example/",
            "http://h\n.example/",
            "http://\udfff.example/",
            "http://h.example/\udfff",
        ),
    ],
)
def test_other_addresses_are_refused(text):
    with pytest.raises(BadAddress):
        parse(text)


@pytest.mark.parametrize(
    "authority", ["a]:1[@", "a]b[c", "]:80[", "a][", "[::1]x", "x[::1]", "[::1]@h", "[v1.a]"]
)
@pytest.mark.parametrize("rest", ["", "/a", "?a", "#a"])
def test_brackets_frame_an_ip_address_or_nothing(authority, rest):
    with pytest.raises(BadAddress):
        parse(f"http://{authority}{rest}")
    assert parse(f"http://h.example/a?{authority}").host == "h.example"


def test_no_text_ends_in_another_error():
    draw = random.Random(0)
    letters = 'htps:/?#@[]\\%.0129axXé\udc80\ud800\u3002\uff11\u200b\0\r\n \t&=;~"<>{}|^`-_'
    begins = ("http://", "https://", "http://h", "http://[", "http:", "//", "http:///", "HTTP://")
    read = 0
    for _ in range(20_000):
        text = draw.choice(begins) + "".join(draw.choices(letters, k=draw.randrange(25)))
        try:
            target = parse(text)
        except BadAddress:
            continue
        read += 1
        assert target.text.isascii()
        assert parse(target.text) == target
        assert target.name.endswith(f":{target.port}")
        assert urlsplit(target.origin).hostname == target.host
    assert read > 1000


def test_a_plain_ip_address_is_read():
    assert parse("http://93.184.215.14:8080/a").host == "93.184.215.14"
