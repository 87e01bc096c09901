"""One sample of a tar: which of its members are pictures, and which texts belong to each of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import IO, Any

from curate.readers.candidate import first_line
from curate.readers.counted_notes import CountedNotes
from curate.readers.file_signature import HEAD_BYTES, is_picture
from curate.readers.files import CAPTION_KINDS, IMAGE_SUFFIXES, TEXT_KINDS
from curate.readers.json_object import json_object
from curate.readers.tars import LINK, Members
from curate.readers.text_encoding import TextDecoder
from curate.run import companions


@dataclass(frozen=True)
class Texts:
    """The texts of one picture.

    Attributes:
        caption: the text member that counts, None if there is none.
        record: the JSON member, {} if there is none.
        cls: the class, None if there is none.
    """

    caption: str | None = None
    record: dict[str, Any] = field(default_factory=dict)
    cls: str | None = None


class Sample:
    """The members of a sample, read from ``stream`` when they are asked for."""

    def __init__(
        self,
        place: str,
        members: Members,
        stream: IO[bytes],
        decoder: TextDecoder,
        notes: CountedNotes,
    ) -> None:
        """``place`` names the sample in notes."""
        self.members = members
        self._place = place
        self._stream = stream
        self._decoder = decoder
        self._notes = notes
        self._decoded: dict[str, str] = {}
        self._offered: set[str] = set()
        self._used: set[str] = set()
        found = [extension for extension in members if _is_image(extension)] or self._unnamed()
        whole = [extension for extension in found if "." not in extension]
        beside = {companions.extension_of(kind): kind for kind in companions.KINDS} if whole else {}
        self.companions = {beside[name]: name for name in found if name in beside}
        found = [extension for extension in found if extension not in beside]
        self.images = whole or found
        self._is_single = len(found) < 2
        self._note_members("further images of a sample, left out", set(found) - set(self.images))

    def texts(self, image: str | None) -> Texts:
        """Those of the picture with this extension; of the sample if it has none."""
        records = self._of_kind(image, "json")
        classes = self._of_kind(image, "cls")
        captions = [name for kind in CAPTION_KINDS for name in self._of_kind(image, kind)]
        says = (name for name in captions if first_line(self._text(name))[0])
        caption = next(says, captions[0] if captions else None)
        self._offered.update(records, classes, captions)
        self._used.update(records[:1], classes[:1], [caption] if caption is not None else [])
        return Texts(
            None if caption is None else self._text(caption),
            self._record(records[0]) if records else {},
            self._text(classes[0]).strip() if classes else None,
        )

    def note_unused(self) -> None:
        """Note the texts that no picture used; call it when the texts of all pictures were asked for."""
        texts = {name for name in self.members if _kind(name) in TEXT_KINDS} - self._used
        beside = "text members beside another one of the same image, which is used"
        self._note_members(beside, texts & self._offered)
        self._note_members("text members that belong to no image", texts - self._offered)

    def _note_members(self, what: str, extensions: set[str]) -> None:
        if extensions:
            self._notes.add(what, f"{self._place}.{min(extensions)}", len(extensions))

    def _unnamed(self) -> list[str]:
        """The only member that is a picture by its bytes, if there is a text."""
        others = [name for name in self.members if _kind(name) not in TEXT_KINDS]
        if len(others) == len(self.members):
            return []
        pictures = [name for name in others if is_picture(self._bytes(name, HEAD_BYTES))]
        return pictures if len(pictures) == 1 else []

    def _of_kind(self, image: str | None, kind: str) -> list[str]:
        """The members of one kind that belong to a picture, the one that counts first."""
        own = (image or "").rpartition(".")[0]
        names = dict.fromkeys((f"{own}.{kind}", f"{image}.{kind}", kind))
        if found := [name for name in names if name in self.members]:
            return found
        every = [name for name in self.members if _kind(name) == kind]
        return every if self._is_single and len(every) == 1 else []

    def _record(self, name: str) -> dict[str, Any]:
        try:
            return json_object(self._text(name))
        except ValueError:
            self._notes.add("JSON members that are not an object, left out", self._place)
            return {}

    def _text(self, name: str) -> str:
        if name not in self._decoded:
            found = self._decoder.decode(self._bytes(name))
            self._decoded[name] = found.text
            if not found.encoding:
                what = (
                    "text members in no encoding that is certain, read with \ufffd (if you know it, type "
                    "dataset.encoding=NAME, such as cp1252)"
                )
                self._note_members(what, {name})
            elif not found.encoding.startswith("utf"):
                what = f"text members read as {found.encoding} (dataset.encoding=NAME names another encoding)"
                self._note_members(what, {name})
        return self._decoded[name]

    def _bytes(self, name: str, most: int | None = None) -> bytes:
        offset, size = self.members[name]
        if size == LINK:
            return b""
        self._stream.seek(offset)
        return self._stream.read(size if most is None else min(size, most))


def _kind(extension: str) -> str:
    return extension.rpartition(".")[2]


def _is_image(extension: str) -> bool:
    return f".{_kind(extension)}" in IMAGE_SUFFIXES
