"""Load the pairs that one CLIP scored in a run, finished or not."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from curate.run.provenance import curate_command
from curate.run.schema import UserError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from curate.annotate.embeddings import Embeddings
    from curate.decide.shuffled_captions import Null


_COLUMNS = ["key", "caption_index", "caption", "pixels_sha256", "clip_similarity"]


@dataclass(frozen=True)
class Scored:
    """The pairs of a curation that one CLIP scored.

    Attributes:
        clip: its name and weights, see ``clip.models.label``.
        pairs: ``key, caption_index, caption, pixels_sha256, clip_similarity``, numbered through all parts.
        embeddings: of the same parts.
    """

    clip: str
    pairs: pd.DataFrame
    embeddings: Embeddings

    @cached_property
    def own(self) -> np.ndarray:
        """Similarities of the pairs as they were given (N,), ascending."""
        import numpy as np

        return np.sort(self.pairs["clip_similarity"].to_numpy(np.float32))

    def null(self) -> Null:
        """Similarities of images with captions of others."""
        from curate.decide.shuffled_captions import shuffled

        return shuffled(self.pairs, self.embeddings)

    def kept(self, cut: float) -> float:
        """The share of the pairs that a cut keeps."""
        import numpy as np

        return float((self.own >= np.float32(cut)).mean())

    def cut_keeping(self, share: float) -> float | None:
        """The highest cut that keeps this share of the pairs; None if that is no pair."""
        count = round(share * len(self.own))
        return float(self.own[len(self.own) - count]) if count else None


def scored(curate_dir: Path, clip: str | None = None) -> Scored | None:
    """The scored pairs of a curation, finished or not; None if ``clip`` has scored none there.

    Args:
        curate_dir: the folder that holds ``annotations/``.
        clip: the label of the CLIP; None takes the one that scored the run.

    Raises:
        UserError: several CLIPs have scored parts of the run and none was named, or a part is damaged.
    """
    import pandas as pd

    from curate.annotate.embeddings import Embeddings
    from curate.annotate.parts import current_parts, read_head, read_part

    found: dict[str, list[Path]] = {}
    folder = curate_dir / "annotations"
    everything = sorted(folder.glob("part-*.parquet"))
    for path in current_parts(folder) if clip is None else everything:
        model = read_head(path).get("clip_model")
        if model and clip in (None, _label(model)):
            found.setdefault(model, []).append(path)
    if len(found) > 1:
        if clip is None:
            raise UserError(
                f"{curate_dir.parent} was scored by {', '.join(map(_label, found))} in parts, so that a "
                f"run was interrupted; to finish it, type: {curate_command(curate_dir.parent)}"
            )
        return None
    for model, parts in found.items():
        tables = [read_part(path, _COLUMNS).to_pandas() for path in parts]
        pairs = pd.concat(tables, ignore_index=True)
        pairs = pairs[pairs["clip_similarity"].notna()]
        if len(pairs):
            return Scored(_label(model), pairs, Embeddings(parts))
    return None


def _label(clip_model: str) -> str:
    """The ledger's name of a CLIP without the fingerprint."""
    return clip_model.rpartition(" ")[0]
