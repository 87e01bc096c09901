"""Images with a caption file beside each: ``picture.txt``, ``picture.jpg.txt``, or the same with ``.caption``."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curate.readers.candidate import first_line
from curate.readers.columns import encodable
from curate.readers.file_signature import HEAD_BYTES, is_picture
from curate.readers.files import (
    ARCHIVE_SUFFIXES,
    CAPTION_SUFFIXES,
    IMAGE_SUFFIXES,
    UNREAD_ARCHIVES,
    visible_folders,
)
from curate.readers.folder.spelling import meet
from curate.readers.names import folded
from curate.readers.text_encoding import TextDecoder

Row = tuple[str, tuple[str, ...], dict[str, Any]]
"""An image: its path below the root, its captions, further columns of the ledger."""


@dataclass
class CaptionFiles:
    """Reads the caption files beside images, and collects those that need a note.

    Attributes:
        decoder: of the caption files' text.
        used: give an image its caption.
        passed_over: belong to an image that another file gives its caption.
        respelled: have the image's name in another spelling.
        cut: have several lines; as in kohya's scripts only the first that is not empty counts.
        decoded: are neither UTF-8 nor marked, by the encoding in which they were read.
        garbled: are in no encoding that is known.
        unreadable: cannot be opened; they give no caption.
    """

    decoder: TextDecoder
    used: set[Path] = field(default_factory=set)
    passed_over: set[Path] = field(default_factory=set)
    respelled: set[Path] = field(default_factory=set)
    cut: set[Path] = field(default_factory=set)
    decoded: dict[str, set[Path]] = field(default_factory=lambda: defaultdict(set))
    garbled: set[Path] = field(default_factory=set)
    unreadable: set[Path] = field(default_factory=set)

    def caption_of(self, paths: Iterable[Path]) -> tuple[str, ...]:
        """The caption in the first of ``paths`` that has one; "" if all are empty, () for no file."""
        read = {path: text for path in paths if (text := self._text(path)) is not None}
        if not read:
            return ()
        used = next((path for path, text in read.items() if first_line(text)[0]), next(iter(read)))
        caption, is_cut = first_line(read[used])
        self.used.add(used)
        self.passed_over.update(read.keys() - {used})
        if is_cut:
            self.cut.add(used)
        return (caption,)

    def _text(self, path: Path) -> str | None:
        try:
            found = self.decoder.decode(path.read_bytes())
        except OSError:
            self.unreadable.add(path)
            return None
        if not found.encoding:
            self.garbled.add(path)
        elif not found.encoding.startswith("utf"):
            self.decoded[found.encoding].add(path)
        return found.text

    def found(self) -> dict[str, set[Path]]:
        """What to note, and of which files."""
        rest = self.passed_over - self.used
        return {
            "caption files beside another one of the same image, which is used": rest,
            "caption files whose image has its name in another spelling": self.respelled,
            "caption files with several lines, of which only the first is used": self.cut,
            **{
                f"caption files read as {encoding} (dataset.encoding=NAME names another encoding)": paths
                for encoding, paths in sorted(self.decoded.items())
            },
            "caption files in no encoding that is certain, read with \ufffd (if you know it, type "
            "dataset.encoding=NAME, such as cp1252)": self.garbled,
            "caption files that cannot be opened": self.unreadable,
        }


def read(
    root: Path, excluded: Collection[Path] = (), encoding: str | None = None
) -> tuple[list[Row], list[str]]:
    """The images below ``root`` with their captions, and notes on files that were not used.

    The folders ``excluded`` and all below them are skipped; ``encoding`` is that of caption files which
    are not UTF-8, None detects it.
    """
    rows, texts, others, links = [], set(), set(), set()
    caption_files = CaptionFiles(TextDecoder(encoding, lambda: _samples(root, excluded)))
    for folder, subfolders, files in _folders(root, excluded):
        links |= {folder / name for name in subfolders if (folder / name).is_symlink()}
        captions, beside = _listed(folder, files)
        texts.update(map(folder.joinpath, captions))
        others.update(map(folder.joinpath, set(files).difference(captions, beside)))
        for image in beside:
            paths = [folder / caption for caption, _ in beside[image]]
            caption_files.respelled.update(folder / name for name, alike in beside[image] if alike)
            path = (folder / image).relative_to(root).as_posix()
            rows.append((path, caption_files.caption_of(paths), {}))
    archives = {path for path in others if path.name.lower().endswith(ARCHIVE_SUFFIXES)}
    others -= archives
    common = Counter(path.suffix.lower() or "none" for path in sorted(others)).most_common(5)
    types = ", ".join(suffix for suffix, _ in common)
    remarks = caption_files.found()
    without = texts - caption_files.used - caption_files.passed_over - caption_files.unreadable
    found = {
        "caption files without an image": without,
        f"files of other types ({types})": others,
        UNREAD_ARCHIVES: archives,
        **remarks,
        "links to folders, which are not followed": links,
    }
    return rows, [
        f"{what}: {len(paths)}, such as {encodable(min(paths).relative_to(root).as_posix())}"
        for what, paths in found.items()
        if paths
    ]


def files_read(root: Path, excluded: Collection[Path] = ()) -> Iterator[Path]:
    """The images that `read` lists, and the caption files that belong to one."""
    for folder, _, files in _folders(root, excluded):
        for image, captions in _listed(folder, files)[1].items():
            yield folder / image
            yield from (folder / caption for caption, _ in captions)


def _listed(
    folder: Path, files: Collection[str]
) -> tuple[list[str], dict[str, list[tuple[str, bool]]]]:
    """The caption files of a folder, and its images with those of each, see `_beside`."""
    captions = [name for name in files if name.lower().endswith(CAPTION_SUFFIXES)]
    images = [name for name in files if name.lower().endswith(IMAGE_SUFFIXES)]
    images += _without_suffix(folder, set(files).difference(captions, images), captions, images)
    return captions, _beside(images, captions)


def _folders(root: Path, excluded: Collection[Path]) -> Iterator[tuple[Path, list[str], list[str]]]:
    for folder, subfolders, files in visible_folders(root):
        subfolders.sort()
        if not excluded or {folder, *folder.parents}.isdisjoint(excluded):
            yield folder, subfolders, sorted(files)


def _samples(root: Path, excluded: Collection[Path]) -> Iterator[bytes]:
    """The content of all caption files that can be opened."""
    for folder, _, files in _folders(root, excluded):
        for name in files:
            if name.lower().endswith(CAPTION_SUFFIXES):
                try:
                    yield (folder / name).read_bytes()
                except OSError:
                    continue


def _without_suffix(
    folder: Path, others: Collection[str], captions: Collection[str], images: Collection[str]
) -> list[str]:
    """The files that are pictures by their content, and the only ones that a caption file names."""
    taken = {folded(part) for name in images for part in (name, _stem(name))}
    free = {folded(_stem(name)) for name in captions} - taken
    named: dict[str, list[str]] = defaultdict(list)
    for name in sorted(others):
        for part in dict.fromkeys((folded(name), folded(_stem(name)))):
            if part in free and _is_picture(folder / name):
                named[part].append(name)
    return [names[0] for names in named.values() if len(names) == 1]


def _is_picture(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return is_picture(stream.read(HEAD_BYTES))
    except OSError:
        return False


def _beside(
    images: Collection[str], captions: Collection[str]
) -> dict[str, list[tuple[str, bool]]]:
    """The caption files of each image of a folder, the one that counts first, and whether a name is respelled.

    ``a.txt`` belongs to ``a.jpg``, and ``a.jpg.txt`` too unless the folder has an image ``a.jpg.webp``. The
    latter counts first where several images have the stem ``a``.
    """
    by_stem: dict[str, list[str]] = defaultdict(list)
    for image in images:
        by_stem[_stem(image)].append(image)
    owners = {image: [image] for image in images} | by_stem
    files: dict[str, list[str]] = defaultdict(list)
    for caption in sorted(captions, key=_rank):
        files[_stem(caption)].append(caption)
    beside: dict[str, list[tuple[str, bool]]] = {image: [] for image in images}
    meant = meet(files, owners)

    def order(name: str) -> tuple[bool, bool, int]:
        return name != meant[name], len(owners[meant[name]]) > 1, len(meant[name])

    for name in sorted(meant, key=order):
        for image in owners[meant[name]]:
            beside[image] += [(caption, name != meant[name]) for caption in files[name]]
    return beside


def _rank(caption: str) -> tuple[int, bool, str]:
    """``.txt`` before ``.caption``, and lower case first."""
    suffix = f".{caption.rpartition('.')[2]}"
    return CAPTION_SUFFIXES.index(suffix.lower()), suffix != suffix.lower(), caption


def _stem(name: str) -> str:
    """The name without its suffix; all of it if there is none."""
    return name.rpartition(".")[0] or name
