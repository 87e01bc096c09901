"""Which share of the update is exported and judged, and how it was chosen (``export.scale``)."""

from __future__ import annotations

from collections.abc import Iterator

from curate.report import page
from curate.report.page import Section
from evaluate.results import Results
from finetune.retention import scale

_HEAD = ["Scale", "Held-out loss, against base", "Loss on the base's pictures, against base"]
_START = "Held-out loss, against what the training started with"


def sections(found: Results) -> Iterator[Section]:
    """The scales that training measured; no section where the export is as it was trained."""
    known = found.provenance.get("scale")
    if not known:
        return
    choice = scale.of_json(known)
    body = page.paragraph(
        f"Exported and judged at {choice.scale:g} of what was trained: W_base + {choice.scale:g} · (W − W_base), at every "
        "checkpoint. The rule by which it was chosen: "
        + (f"{choice.rule}." if choice.rule else "it was typed (export.scale).")
    )
    if choice.table:
        further = [_START] if choice.table[0].start else []
        body += page.table(_HEAD + further, scale.as_rows(choice))
        body += page.paragraph(
            "Measured after the training on its held-out pictures and on pictures that the base drew for that, of other "
            "prompts than those of this report.",
            "note",
        )
    yield Section("Scale of the export", "scale", body)
