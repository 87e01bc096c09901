"""The command ``python -m workflows.lineage``: from a model to its pictures, and from a picture to every model."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.run import cli
from curate.run.finished import is_of_retraining
from curate.run.printable import one_line
from curate.run.schema import UserError

if TYPE_CHECKING:
    import pandas as pd

    from workflows.retraining.ancestry import Model, Picture, Use

_DOES = """\
What a model was made from, and what a picture was used for.

  python -m workflows.lineage mine-0003                      a run: every pair that it and the models that it
                                                             began with were trained on, and what was held out
                                                             (--out pairs.csv writes all of them)
  python -m workflows.lineage runs/mine-0003/finetune/export an export's folder, or a copy of it anywhere: its run is
                                                             found by the sha256 of the weights
  python -m workflows.lineage 1F34E                          a key, a sha256, a picture's file or its name: every
                                                             training, checkpoint and export that was given it, or
                                                             why none was

It looks at all trainings below the root, those of no series too, at deleted runs of series, and finds pictures that
were removed since (python -m curate.remove)."""

_EXIT_CODES = "exit codes: 0 done, 2 wrong input, 70 the program failed, 130 interrupted"
_WIDTH = 9  # of a line's label
_FORMATS = (".csv", ".jsonl", ".parquet")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def main() -> None:
    """Find out what is asked for, look it up, print it."""
    parser = argparse.ArgumentParser(
        prog="python -m workflows.lineage",
        description=_DOES,
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "what", metavar="KEY|FILE|RUN|EXPORT", help="a picture, a run, or an export"
    )
    parser.add_argument("--root", type=Path, default=Path("runs"), help="the folder of all runs")
    parser.add_argument(
        "--key", action="store_true", help="it is a picture's key, also if a run has that name"
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON, with a row for each pair of a model"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write the pairs of a model: .csv, .jsonl or .parquet",
    )
    given = parser.parse_args()
    if given.out is not None and given.out.suffix not in _FORMATS:
        raise UserError(
            f"--out {given.out}: a table is {', '.join(_FORMATS)}; type --out pairs.csv"
        )
    from workflows.retraining import ancestry

    known = ancestry.models(given.root)
    run = "" if given.key else _run_of(given.what, given.root, known)
    if run:
        _of_model(known[run], known, given)
        return
    if given.out is not None:
        raise UserError(
            f"--out is for the pairs of a model, and {given.what} is a picture; remove --out"
        )
    _of_picture(given.what, given.root, known, as_json=given.json)


def _run_of(what: str, root: Path, known: dict[str, Model]) -> str:
    """The trained run that is asked for by name, folder, export or file of weights; "" if a picture is.

    Raises:
        UserError: it is a folder or a file of weights of no known run.
    """
    from workflows.retraining import ancestry
    from workflows.retraining.run_files import WEIGHTS

    path = Path(what).expanduser()
    name = path.resolve().name if path.is_dir() else what
    if name in known and (not path.is_dir() or (path.resolve().parent == root.resolve())):
        return name
    if path.is_dir() or path.suffix in WEIGHTS:
        if not path.exists():
            raise FileNotFoundError(f"there is no {path}")
        inside = path.resolve().relative_to(root.resolve()).parts[:1] if _below(path, root) else ()
        if inside and inside[0] in known:
            return inside[0]
        found = ancestry.of_export(path, known)
        if len(found) > 1:
            raise UserError(
                f"{path} holds weights that the exports of {', '.join(found)} have alike; name one of these runs"
            )
        if found:
            return found[0]
        shown = ", ".join(known) or "none"
        raise UserError(
            f"{path} holds the weights of no training below {root} ({shown}); name another folder of runs with --root"
        )
    if (root / what / "curate").is_dir() or is_of_retraining(root / what):
        raise UserError(
            f"{root / what} is a run that was not trained, so it has no model. Name a trained one "
            f"({', '.join(known) or 'there is none'}), or a picture of it; for a picture whose key is the same, add --key"
        )
    return ""


def _below(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root.resolve()) and path.resolve() != root.resolve()


# From a model to its pictures


def _of_model(model: Model, known: dict[str, Model], given: argparse.Namespace) -> None:
    from workflows.retraining import ancestry

    pairs, notes = ancestry.pairs(model, known)
    began = ancestry.parents(model, known)
    if given.json:
        content = {
            "run": model.name,
            "outcome": model.outcome,
            "began_with": began,
            "exports": model.exports,
            "lineage": model.copy or None,
            "notes": notes,
            "pairs": json.loads(pairs.to_json(orient="records")),
        }
        print(json.dumps(content, indent=2))
    else:
        print("\n".join(_model_lines(model, began, pairs, notes)))
    if given.out is not None:
        _write(given.out, pairs)
        if not given.json:
            print(_line("table", f"{given.out}, {len(pairs):,} rows"))


def _model_lines(
    model: Model, began: list[str], pairs: pd.DataFrame, notes: list[str]
) -> Iterator[str]:
    state = [model.outcome, "" if model.is_there else "its folder was deleted"]
    said = ", ".join(filter(None, state))
    yield _line("model", f"{model.name}{f' ({said})' if said else ''}")
    for folder, files in model.exports.items():
        weights = [
            f"{n} {sha256[:12]}" for n, sha256 in files.items() if n.endswith(".safetensors")
        ]
        yield _line("export", f"{folder}: {', '.join(weights)}")
    for name in (model.name, *began):
        rows = pairs[pairs["model"] == name]
        label = "data" if name == model.name else "began"
        counts = "; ".join(_counts(rows))
        yield _line(
            label,
            f"{'' if name == model.name else f'with {name}: '}{counts or 'nothing is known of its data'}",
        )
        for source, count in rows["source"].value_counts().items():
            yield _line("", f"{count:,} pairs from {one_line(str(source)) or 'an unnamed source'}")
    if removed := int(pairs.loc[pairs["removed"], "sha256"].nunique()):
        yield _line("removed", f"{removed:,} of these files were removed from a curation since")
    if without := int(pairs["caption"].isna().sum()):
        yield _line("note", f"of {without:,} pictures no ledger has the caption any more")
    for note in notes:
        yield _line("note", note)
    yield _line("pairs", f"{len(pairs):,}; to write them as a table, add --out pairs.csv")


def _counts(rows: pd.DataFrame) -> Iterator[str]:
    """Pictures and pairs of each side that has any."""
    from workflows.retraining.ancestry import UNKNOWN

    words = {"train": "trained on", "val": "val", "test": "test", UNKNOWN: "perhaps trained on"}
    for side, word in words.items():
        part = rows[rows["split"] == side]
        if len(part):
            pictures = len(part.drop_duplicates(["key", "sha256"]))
            yield f"{word} {pictures:,} pictures, {len(part):,} pairs"


def _write(path: Path, pairs: pd.DataFrame) -> None:
    """Write the table of pairs; no cell of a CSV is a formula to a spreadsheet."""
    import pyarrow as pa

    from curate.run import parquet
    from curate.run.files import write_text
    from curate.run.printable import spreadsheet_cell

    if path.suffix == ".parquet":
        parquet.write_table(path, pa.Table.from_pandas(pairs, preserve_index=False))
    elif path.suffix == ".jsonl":
        write_text(path, pairs.to_json(orient="records", lines=True, force_ascii=False))
    else:
        texts = pairs.drop(columns="removed").fillna("").map(spreadsheet_cell)
        write_text(
            path, texts.assign(removed=pairs["removed"]).to_csv(index=False, lineterminator="\n")
        )


# From a picture to the models


def _of_picture(text: str, root: Path, known: dict[str, Model], *, as_json: bool) -> None:
    from workflows.retraining import ancestry

    found = {
        picture: ancestry.uses(picture, known)
        for picture in ancestry.pictures_of(text, root, known)
    }
    if as_json:
        content = [
            asdict(p) | {"uses": [_as_json(use) for use in uses]} for p, uses in found.items()
        ]
        print(json.dumps({"asked": text, "pictures": content}, indent=2))
        return
    if len(found) > 1:
        print(f"{one_line(text)} names {len(found)} different files\n")
    blocks = [
        "\n".join(_picture_lines(picture, uses, len(known))) for picture, uses in found.items()
    ]
    print("\n\n".join(blocks))


def _as_json(use: Use) -> dict[str, Any]:
    return asdict(use) | {"saw_it": use.saw_it, "contradicts": use.contradicts}


def _picture_lines(picture: Picture, uses: list[Use], trainings: int) -> Iterator[str]:
    keys = ", ".join(map(one_line, picture.keys))
    yield _line("picture", f"{keys}, sha256 {', '.join(picture.sha256) or 'unknown'}")
    if picture.removed_from:
        yield _line("removed", f"from {', '.join(picture.removed_from)}")
    for reason, runs in picture.dropped.items():
        yield _line("dropped", f"{one_line(reason)} ({', '.join(runs)})")
    for use in uses:
        yield from _use_lines(use)
    saw = [use.run for use in uses if use.saw_it]
    others = trainings - len(uses)
    rest = f"; {others} more have nothing to do with it" if others else ""
    if not uses:
        yield _line("in all", f"no model saw it: none of {trainings} trainings was given it")
        return
    yield _line(
        "in all",
        f"{len(saw)} of {trainings} trainings were, or may have been, given it to learn from{rest}",
    )
    if picture.removed_from and saw:
        yield _line(
            "", "a model does not forget it by a removal: train again, and delete the exports above"
        )


def _use_lines(use: Use) -> Iterator[str]:
    from workflows.retraining.ancestry import UNKNOWN

    sides = {
        "train": "trained on it",
        UNKNOWN: "perhaps trained on it",
        "val": "held it out (val)",
        "test": "held it out (test)",
        "": "was not given it itself",
    }
    state = ", ".join(filter(None, [use.outcome, "" if use.is_there else "deleted"]))
    yield _line("model", f"{use.run}{f' ({state})' if state else ''}: {sides[use.side]}")
    if use.through:
        yield _line("", f"began with {', which began with '.join(use.through)}, trained on it")
    if use.contradicts:
        yield _line(
            "warning",
            "it was judged by this picture, which its weights had seen: its figures are too good",
        )
    if use.shard:
        yield _line("", f"in {use.shard}")
    if use.saw_it:
        first, *later = use.checkpoints or ("none that is there was made after it was drawn",)
        more = f" and {len(later)} later" if later else ""
        yield _line("", f"checkpoints: {first}{more}")
    if use.exports:
        yield _line("", f"exports: {', '.join(use.exports)}")
    if use.note:
        yield _line("note", use.note)


def _line(label: str, text: str) -> str:
    return f"{label:<{_WIDTH}} {text}".rstrip()


if __name__ == "__main__":
    cli.run(main)
