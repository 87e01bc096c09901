"""Texts planted in many encodings: read as written, or refused, never as something else."""

import codecs

import pytest

from curate.readers.text_encoding import TextDecoder, detect, is_encoding

CAPTIONS = {
    "cp1252": [
        *("ein schöner Tag", "un café à côté d’une fenêtre", "Zwei Mädchen auf der Straße"),
        *("a naïve façade", "São Paulo à noite", "El niño con una piñata"),
    ],
    "cp932": ["猫がいる", "テーブルの上の赤いもの", "東京タワーの夜景、きれいな空", "赤い花"],
    "gb18030": ["只有中文的说明", "桌子上的红色东西", "一只猫坐在垫子上", "天上的白云"],
    "big5": ["一隻貓坐在墊子上", "桌上的紅色東西", "天上的白雲", "下雨的街道"],
    "cp949": ["고양이가 매트 위에 앉아 있다", "빨간 꽃이 핀 나무", "바다 위의 배", "비 오는 거리"],
    "cp1251": ["кошка на столе", "красная машина", "белые облака", "улица под дождём"],
    "koi8-r": ["кошка на столе", "красная машина", "белые облака", "улица под дождём"],
    "cp1250": [
        "żółty kwiat na łące",
        "příliš žluťoučký kůň",
        "ulica w deszczu, wieczór",
        "říční loď",
    ],
    "mac-roman": ["ein schöner Tag", "zwei Mädchen auf der Straße", "drei Bäume", "große Äpfel"],
}


def decode(data, *others, declared=None):
    return TextDecoder(declared, lambda: [data, *others]).decode(data)


@pytest.mark.parametrize("encoding", CAPTIONS)
def test_captions_of_one_encoding_are_read_as_written(encoding):
    written = [caption.encode(encoding) for caption in CAPTIONS[encoding]]
    decoder = TextDecoder(None, lambda: [b"plain", "ünï".encode(), *written])
    assert [decoder.decode(data).text for data in written] == CAPTIONS[encoding]
    assert detect(written) == encoding


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_byte_order_marks_decide_and_disappear(encoding):
    text = "ein schöner Tag\nüber allem"
    data = f"\ufeff{text}".encode(encoding)
    assert decode(data).text == text
    assert decode(data, declared="cp1252").text == text


def test_marks_of_joined_files_disappear():
    data = "\ufeffone\n\ufefftwo \ufeff three".encode()
    assert decode(data).text == "one\ntwo \ufeff three"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_is_known_without_a_mark(encoding):
    assert decode("a café\r\nmore".encode(encoding)).text == "a café\r\nmore"
    assert decode(b"a \0nul\0 inside").text == "a \0nul\0 inside"
    assert decode(b"").text == ""


def test_a_mark_that_lies_is_refused():
    got = decode(codecs.BOM_UTF16_LE + b"odd")
    assert (got.encoding, "\ufffd" in got.text) == ("", True)


def test_a_text_unlike_its_neighbours_is_refused():
    western = [caption.encode("cp1252") for caption in CAPTIONS["cp1252"]] * 5
    for encoding in ("gb18030", "cp932", "cp1251"):
        for caption in CAPTIONS[encoding]:
            got = decode(caption.encode(encoding), *western)
            assert (got.encoding, "\ufffd" in got.text) == ("", True)


def test_a_mixture_of_two_encodings_gives_none():
    windows = ["größer", "Käse", "Mädchen", "Straße", "Öl", "Übung", "schön", "fünf"] * 4
    old_mac = [
        caption.encode("mac-roman") for caption in ("château fort", "crème brûlée à côté")
    ] * 8
    assert detect([*(word.encode("cp1252") for word in windows), *old_mac]) in ("", "cp1252")


def test_damaged_utf8_is_not_read_as_something_else():
    western = [caption.encode("cp1252") for caption in CAPTIONS["cp1252"]] * 5
    whole = "“Zwei Mädchen” auf der Straße"
    got = decode(whole.encode()[:-2], *western)
    assert (got.text, got.encoding) == ("“Zwei Mädchen” auf der Stra\ufffd", "")


def test_too_few_texts_are_refused_until_the_encoding_is_named():
    few = [caption.encode("cp1252") for caption in CAPTIONS["cp1252"][:3]]
    assert decode(*few).encoding == ""
    assert decode(few[0], declared="cp1252").text == CAPTIONS["cp1252"][0]
    assert decode("ünï".encode(), declared="koi8-r").text == "ünï"  # UTF-8 stays UTF-8
    assert decode(b"\x81\x20", declared="cp932").encoding == ""


def test_the_samples_are_read_once_and_only_when_needed():
    passes = []

    def samples():
        passes.append(1)
        return [caption.encode("cp1252") for caption in CAPTIONS["cp1252"]]

    decoder = TextDecoder(None, samples)
    decoder.decode("ünï".encode())
    assert not passes
    for caption in CAPTIONS["cp1252"]:
        decoder.decode(caption.encode("cp1252"))
    assert len(passes) == 1


def test_names_of_encodings():
    assert is_encoding("latin-1")
    assert is_encoding("Shift_JIS")
    assert not is_encoding("no-such")
    assert not is_encoding("base64")
    assert not is_encoding("a\0b")
