"""What a picture's Content Credentials say of its use: C2PA's manifests, by the official ``c2pa-python``.

The assertion ``cawg.training-mining`` (CAWG, Training and Data Mining Assertion 1.1; ``c2pa.training-mining`` before)
has an entry for each kind of use, which is ``allowed``, ``notAllowed`` or ``constrained``; the last needs an
agreement, so it counts as not allowed. Actions have a digital source type, see ``consent``.

Nothing is fetched: manifests that lie elsewhere count as none, and certificates are not looked up. Whether a
signature can be trusted is not asked either: a signer whom nobody knows may say no as well.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any

from curate.measures.measure import LONGEST, FileMeasure
from curate.run.schema import UserError

TRAINING, SOURCE = "c2pa_training", "c2pa_source"
UNREADABLE = "unreadable"  # there is a manifest, and the library cannot make sense of it

_MARKS = (b"jumb", b"c2pa")  # the box that holds manifests, and its label (C2PA 2.1, section 11.1)
_ASSERTIONS = ("c2pa.training-mining", "cawg.training-mining")
_USES = ("ai_training", "ai_generative_training", "data_mining")
_STRICTEST = ("notAllowed", "constrained", "allowed")
_ACTIONS = ("c2pa.actions", "c2pa.actions.v2")
_MODELS = ("trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia")
_OFFLINE = {  # twice: neither a fetch of its own accord, nor any host that could be asked
    "verify": {
        "remote_manifest_fetch": False,
        "ocsp_fetch": False,
        "verify_trust": False,
        "verify_timestamp_trust": False,
    },
    "core": {"allowed_network_hosts": [], "decode_identity_assertions": False},
}


def measure(data: bytes) -> dict[str, str | None]:
    """``c2pa_training`` and ``c2pa_source``; None where nothing is said.

    All manifests of the file count, those of the pictures it was made from as well: ``c2pa_training`` is the
    strictest entry on training or data mining, ``c2pa_source`` the source type of a model's picture, or the
    first one where there is none. Only a file that holds a manifest is given to the library.

    Raises:
        UserError: the package ``c2pa-python`` is not installed.
    """
    _library()
    if not all(mark in data for mark in _MARKS):
        return {TRAINING: None, SOURCE: None}
    try:
        return _said(read(data))
    except _library().C2paError.ManifestNotFound:
        return {TRAINING: None, SOURCE: None}
    except Exception:  # a native library, and whatever a signer wrote, may be made to break this
        return {TRAINING: UNREADABLE, SOURCE: None}


def _said(manifests: list[dict[str, Any]]) -> dict[str, str | None]:
    uses = list(_uses(manifests))
    sources = list(_sources(manifests))
    return {
        TRAINING: next((use for use in _STRICTEST if use in uses), None),
        SOURCE: next(
            (source for source in sources if source in _MODELS), next(iter(sources), None)
        ),
    }


def read(data: bytes) -> list[dict[str, Any]]:
    """The manifests in a file, the library's ``manifests`` as they are.

    Raises:
        Exception: the library's ``C2paError``, or whatever it makes of broken bytes.
    """
    with _library().Reader(None, io.BytesIO(data), context=_context()) as reader:
        content = json.loads(reader.json())
    return list(content.get("manifests", {}).values())


def _assertions(
    manifests: list[dict[str, Any]], labels: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    for manifest in manifests:
        for assertion in manifest.get("assertions") or ():
            label = str(assertion.get("label", "")).partition("__")[0]  # several are numbered so
            data = assertion.get("data")
            if label in labels and isinstance(data, dict):
                yield data


def _uses(manifests: list[dict[str, Any]]) -> Iterator[str]:
    for data in _assertions(manifests, _ASSERTIONS):
        entries = data.get("entries")
        for name, entry in (entries if isinstance(entries, dict) else {}).items():
            if name.rpartition(".")[2] in _USES and isinstance(entry, dict):
                yield str(entry.get("use"))


def _sources(manifests: list[dict[str, Any]]) -> Iterator[str]:
    for data in _assertions(manifests, _ACTIONS):
        for action in data.get("actions") or ():
            if isinstance(action, dict) and (source := action.get("digitalSourceType")):
                yield str(source).rpartition("/")[2][:LONGEST]


@cache
def _library() -> Any:
    try:
        return import_module("c2pa")
    except ImportError as error:
        raise UserError(
            'measuring credentials needs a reader of C2PA; type: pip install "darkroom[consent]"  '
            "(or: pip install c2pa-python)"
        ) from error


@cache
def _context() -> Any:
    """The settings under which nothing leaves the machine."""
    return _library().Context.from_dict(_OFFLINE)


MEASURE = FileMeasure("credentials", (TRAINING, SOURCE), measure, package="c2pa-python")
