"""What a schema's fields say beside their types, and which keys of the command line that makes special."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from curate.run.overrides import prepare
from curate.run.schema import PATH, Typed, UserError, check, check_given, entries, register


@dataclass
class Slot:
    file: str = field(default=MISSING, metadata=PATH)
    share: float = 0.5

    def __post_init__(self):
        check(0 <= self.share <= 1, "dummy.share", self.share, "0 ... 1")


@dataclass
class Dummy:
    place: str | None = field(default=None, metadata=PATH)
    files: Any = field(default=MISSING, metadata=PATH)
    plain: str = "x"
    inside: Slot = field(default_factory=Slot)
    named: dict[str, Any] = field(default_factory=dict, metadata=entries(Slot))


@pytest.fixture
def dummy(monkeypatch):
    monkeypatch.setattr(ConfigStore.instance(), "repo", dict(ConfigStore.instance().repo))
    register(Dummy, "dummy", "dummy")


@pytest.mark.parametrize(
    ("typed", "prepared"),
    [
        ("dummy.place=a, (b)", "dummy.place='a, (b)'"),
        ("+dummy.place=a=b", "+dummy.place='a=b'"),
        ("dummy.files=a, (b)", "dummy.files='a, (b)'"),
        ("dummy.files=[a,b]", "dummy.files=[a,b]"),
        ("dummy.place=[a,b]", "dummy.place='[a,b]'"),
        ("dummy.inside.file=a b", "dummy.inside.file='a b'"),
        ("dummy.named.mine.file=a,b", "++dummy.named.mine.file='a,b'"),
        ("dummy.named.mine.share=0.5", "++dummy.named.mine.share=0.5"),
        ("dummy.named.mine=null", "++dummy.named.mine=null"),
        ("dummy.named={}", "dummy.named={}"),
        ("dummy.named={mine: {share: 0.5}}", "++dummy.named={mine: {share: 0.5}}"),
        ("dummy.plain=a", "dummy.plain=a"),
        ("dummy.placed=a b", "dummy.placed=a b"),
    ],
)
def test_the_fields_of_a_schema_decide_what_is_quoted(dummy, typed, prepared):
    assert prepare([typed]) == [prepared]


def test_what_is_not_registered_is_not_special():
    assert not Typed.of_registered().paths.fullmatch("dummy.place")
    assert prepare(["dummy.place=a b"]) == ["dummy.place=a b"]


def test_missing_values_do_not_hide_wrong_ones():
    given = OmegaConf.structured(Dummy)
    check_given(given)
    given.inside.share = 2
    with pytest.raises(UserError, match=r"dummy\.share=2"):
        check_given(given)
    assert OmegaConf.is_missing(given.inside, "file")


@pytest.mark.parametrize(
    ("value", "accepted", "says"),
    [
        (100, "75, 150, 225", "150"),
        (500, "75, 150, 225", "225"),
        ("cosine_with_restarts", "constant, cosine, linear", "cosine"),
        ("cosin", "constant, cosine, linear", "cosine"),
        ("sqrt", "constant, cosine, linear", "constant"),
    ],
)
def test_what_is_said_to_type_is_near_to_what_was_typed(value, accepted, says):
    with pytest.raises(UserError, match=rf"Type dummy\.key={says}$"):
        check(False, "dummy.key", value, accepted)
