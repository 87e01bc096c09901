"""Names, concepts and renders of emoji sets, with a small synthetic set."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from curate.run.locks import locked
from curate.run.schema import UserError
from workflows.starter import emoji_sets

SQUARE = '<path fill="#ff0000" d="M0 0h16v32H0z"/>'  # the left half of a 32 x 32 view box
ICONS = {
    "width": 32,
    "height": 32,
    "icons": {
        "woman-astronaut": {"body": SQUARE},
        "woman-astronaut-medium": {"body": SQUARE},
        "nameless": {"body": SQUARE},
    },
}
CODE_POINTS = {
    "1f469-200d-1f680": "woman-astronaut",
    "1f469-1f3fd-200d-1f680": "woman-astronaut-medium",
    "e000": "nameless",  # private use: no English name
    "1f680": "absent",
}


@pytest.fixture
def drawings() -> list[emoji_sets.Drawing]:
    return list(emoji_sets.drawings_of("tiny", ICONS, CODE_POINTS))


def test_only_named_icons_with_a_body_are_drawn(drawings: list[emoji_sets.Drawing]) -> None:
    assert sorted(drawing.caption for drawing in drawings) == [
        "woman astronaut",
        "woman astronaut medium skin tone",
    ]
    assert {drawing.concept for drawing in drawings} == {"woman astronaut"}


@pytest.mark.parametrize(
    ("caption", "concept"),
    [
        ("red heart", "red heart"),
        ("ear medium-dark skin tone", "ear"),
        ("kiss man man dark skin tone medium-light skin tone", "kiss man man"),
    ],
)
def test_concept_is_the_caption_without_its_tones(caption: str, concept: str) -> None:
    assert emoji_sets.concept_of(caption) == concept


def test_a_name_is_found_with_and_without_the_variation_selector() -> None:
    assert emoji_sets.names_of("\u2764") == emoji_sets.names_of("\u2764\ufe0f")
    assert emoji_sets.names_of("\u2764")[0] == "red heart"  # type: ignore[index]
    assert emoji_sets.names_of("\ue000") is None


def test_renders_are_on_white_and_keep_the_drawing_in_place(
    drawings: list[emoji_sets.Drawing],
) -> None:
    picture = emoji_sets.render(drawings[0].svg, 64)
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.uint8
    assert (picture[:, :31] == [255, 0, 0]).all()
    assert (picture[:, 33:] == 255).all()


def test_a_tall_drawing_is_centred() -> None:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 32">'
        '<path d="M0 0h16v32H0z"/></svg>'
    )
    picture = emoji_sets.render(svg, 64)
    assert picture.shape == (64, 64, 3)
    assert (picture[:, 18:46] == 0).all()
    assert (picture[:, :14] == 255).all()
    assert (picture[:, 50:] == 255).all()


def test_a_kill_while_rendering_leaves_no_lock(tmp_path: Path) -> None:
    """Workers outlive a killed parent; they must not keep its lock."""
    script = f"""
from pathlib import Path
from curate.run.locks import locked
from workflows.starter.emoji_sets import Drawing, render_all

if __name__ == "__main__":
    with locked(Path({str(tmp_path)!r})):
        drawing = Drawing('<svg xmlns="http://www.w3.org/2000/svg"/>', "a", "a", "set", "")
        print("locked", flush=True)
        render_all([drawing] * 10**6, 64, 2)
"""
    (tmp_path / "script.py").write_text(script)
    root = Path(emoji_sets.__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, tmp_path / "script.py"],
        env={**os.environ, "PYTHONPATH": str(root), "TQDM_MININTERVAL": "0.1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match="another process is at work"), locked(tmp_path):
            pass
        while "rendering: " not in (line := process.stderr.readline()):  # a worker has rendered
            assert line
        process.kill()
    with locked(tmp_path):
        pass


def test_a_tenth_of_the_concepts_is_held_out_and_skin_tones_follow_their_concept() -> None:
    names = [f"concept {index}" for index in range(4000)]
    share = np.mean([emoji_sets.is_held_out(name) for name in names])
    assert 0.08 < share < 0.12  # six standard deviations wide
    pictures = emoji_sets.Pictures(
        images=np.zeros((2, 1, 1, 3), np.uint8),
        captions=np.array(["ear", "ear dark skin tone"]),
        concepts=np.array(["ear", "ear"]),
        sets=np.array(["tiny", "tiny"]),
        aliases=np.array(["", ""]),
    )
    assert pictures.toned().tolist() == [False, True]
    assert len(set(pictures.seen().tolist())) == 1


def test_a_package_s_files_are_read_from_its_archive(tmp_path: Path) -> None:
    archive = tmp_path / "set.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        content = json.dumps(ICONS).encode()
        info = tarfile.TarInfo("package/icons.json")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    assert emoji_sets.read_package(archive, "icons.json") == ICONS


def test_a_picture_seen_under_another_name_is_not_unseen() -> None:
    names = [f"concept {index}" for index in range(60)]
    held_out = [index for index, name in enumerate(names) if emoji_sets.is_held_out(name)]
    seen = next(index for index in range(60) if index not in held_out)
    images = np.arange(60, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    images[held_out[0]] = images[seen]
    some = emoji_sets.Pictures(
        images, *(np.array(names),) * 2, np.array(["tiny"] * 60), np.array([""] * 60)
    )
    assert np.flatnonzero(~some.seen()).tolist() == held_out
    assert np.flatnonzero(some.unseen()).tolist() == held_out[1:]
