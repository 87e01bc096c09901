"""What an evaluation lists is read back, whoever saved the table in between."""

import pytest

from curate.run import reconsider
from curate.run.reconsider import Doubt
from curate.run.schema import UserError

HOSTILE = '=HYPERLINK("http://x","y"),\n</script>'


def doubt(key, reason="its caption helps as little as none", similarity=0.25):
    return Doubt(key, HOSTILE, reason, -0.01, 0.15, similarity)


def test_keys_come_back_and_no_cell_is_a_formula(tmp_path):
    path = tmp_path / "reconsider.csv"
    reconsider.write(path, [doubt("-1"), doubt("k2", similarity=None), doubt("=k3")])
    assert reconsider.read_keys(path) == {"-1", "k2", "=k3"}
    head, first, second, _ = path.read_text().splitlines()
    assert head == "key,caption,reason,caption_gain,typical_gain,similarity"
    assert first.startswith("'-1,\"'=HYPERLINK(")
    assert second.endswith(",-0.01,0.15,")


def test_a_caption_that_csv_would_refuse_to_read_is_cut(tmp_path):
    path = tmp_path / "reconsider.csv"
    reconsider.write(path, [Doubt("k", "x" * 200_000, "why", 0.0, 0.1, None)])
    assert reconsider.read_keys(path) == {"k"}


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        ("key\nk1\nk1\n", {"k1"}),
        ('\ufeffcaption;key\r\n"a; b";k1\r\n', {"k1"}),
        ("reason\tkey\nwhy, indeed\tk1\n", {"k1"}),
        ('key,caption\nk1,"two\nlines"\n k2 ,x\n', {"k1", "k2"}),
    ],
)
def test_tables_that_spreadsheets_saved(tmp_path, content, keys):
    path = tmp_path / "list.csv"
    path.write_text(content, encoding="utf-8", newline="")
    assert reconsider.read_keys(path) == keys


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"list\.csv, line 1: no column 'key'; it names nothing"),
        (b"k1\nk2\n", r"list\.csv, line 1: no column 'key'; it names 'k1'"),
        (b"key,caption\n", r"list\.csv lists no pair"),
        (b"key,caption\nk1,a\n,b\n", r"list\.csv, line 3: the key is empty"),
        (b'key,caption\nk1,"a\n', r"list\.csv is no CSV table"),
        ("key\nkä\n".encode("utf-16"), r"list\.csv is no UTF-8 text.*save it as CSV in UTF-8"),
    ],
)
def test_what_is_no_list_is_refused(tmp_path, content, message):
    path = tmp_path / "list.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        reconsider.read_keys(path)


def test_no_file_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no .*list\.csv; python -m evaluate"):
        reconsider.read_keys(tmp_path / "list.csv")


def test_reasons_are_those_of_trainings_on_this_curation(finished):
    root = finished.parents[1]
    for run in ("done", "other", "elsewhere"):
        reconsider.write(root / run / "evaluate" / reconsider.FILE, [doubt("k07", f"why {run}")])
    for run, data in (("done", "null"), ("other", "done"), ("elsewhere", "null")):
        (root / run / "finetune").mkdir(parents=True)
        (root / run / "finetune" / "config.yaml").write_text(f"data:\n  run: {data}\n")
    found = reconsider.reasons(finished, ["k07", "k08"])
    assert found["k08"] == []
    assert [text.partition(" (evaluation of ")[0] for text in found["k07"]] == [
        "why done",
        "why other",
    ]
    (root / "other" / "evaluate" / reconsider.FILE).write_bytes(b"\xff")
    found = reconsider.reasons(finished, ["k08"])
    assert "no UTF-8" in found["k08"][0]
