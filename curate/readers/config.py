"""The schema that all data sources share; each source's own keys are beside its reader."""

from __future__ import annotations

import re
from dataclasses import dataclass

from omegaconf import MISSING

from curate.readers.archives import Archive
from curate.run.schema import check


@dataclass
class DatasetConfig:
    """The keys of every ``conf/dataset/*.yaml``.

    Attributes:
        name: the data set's name in the ledger, and the run's unless ``run.name`` is set.
        reader: which reader opens it, a name in ``registry.READERS``.
        limit: at most this many images, the first ones; for trials.
        sample: this share of the images, chosen by hash of their keys.
        scrub_contacts: remove URLs, e-mail addresses and telephone numbers from captions.
        caption: of images without one; null leaves them to the rule that drops such images.
        trigger: a word that is put in front of every caption that does not have it; null puts none.
        shard: ``i/n``, the i-th of n parts by hash of the keys, 0 <= i < n, for n machines.
        layout: what lies at the data set's place; said where nothing does, see ``presence``.
    """

    name: str = MISSING
    reader: str = MISSING
    limit: int | None = None
    sample: float | None = None
    scrub_contacts: bool = False
    caption: str | None = None
    trigger: str | None = None
    shard: str | None = None
    layout: str = ""

    def __post_init__(self) -> None:
        check(self.limit is None or self.limit > 0, "dataset.limit", self.limit, "null or > 0")
        share = self.sample
        check(share is None or 0 < share <= 1, "dataset.sample", share, "null or a share up to 1")
        for name in ("caption", "trigger"):
            value = getattr(self, name)
            check(value is None or value.strip() != "", f"dataset.{name}", value, "null or a text")
        part = re.fullmatch(r"(\d+)/(\d+)", self.shard or "0/1")
        sound = bool(part) and int(part[1]) < int(part[2])
        check(sound, "dataset.shard", self.shard, "null or i/n with 0 <= i < n, such as 0/4")
        if self.shard and part:
            self.shard = f"{int(part[1])}/{int(part[2])}"  # without leading zeros

    @property
    def archives(self) -> tuple[Archive, ...]:
        """What ``dataset.download=true`` fetches; nothing where it cannot be fetched."""
        return ()

    @property
    def pictures_key(self) -> str | None:
        """The reader's own key that says where the pictures are, such as ``root``; None if it has none."""
        return self._first_key("images_dir", "root", "path")

    @property
    def captions_key(self) -> str | None:
        """The reader's own key that names the captions' column; None if it has none."""
        return self._first_key("caption_columns", "caption_column", "caption_field")

    def _first_key(self, *names: str) -> str | None:
        return next((name for name in names if hasattr(self, name)), None)
