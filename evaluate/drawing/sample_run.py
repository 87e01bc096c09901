"""Draw what ``evaluate.sample`` was asked for, and write its list and its contact sheets."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from curate.clip import models as clip_models
from curate.measures.decode import decode
from curate.measures.unreadable import UnreadableImage
from curate.run.files import sha256_of, write_text
from curate.run.printable import one_line
from curate.run.progress import Bar
from curate.run.schema import UserError
from evaluate.drawing import infotext
from evaluate.drawing.origin import Origin
from evaluate.drawing.prompts import SourcePrompt
from evaluate.drawing.sample_choice import Choice
from evaluate.sample_config import SampleConfig, check_side
from finetune import conditions
from finetune.at_once import pictures_at_once
from finetune.condition_kinds import CANNY, FILE
from finetune.data import keyed_seed
from finetune.drawing import contact_sheet, sampling
from finetune.drawing.sampling import Frame, Prompt, Sampler

if TYPE_CHECKING:
    from torch import Tensor

    from curate.clip.scorer import ClipScorer

LIST = "samples.jsonl"
BATCH = 8  # pictures drawn at once where that is not said, and fewer of large ones
BEST_OF = "darkroom-best-of"  # PNG text chunk: seeds and similarities of all that were drawn for it
_SEEDS = 2**32  # of candidates, as web interfaces count


@dataclass(frozen=True)
class Cell:
    """A picture to have: one prompt and seed for one choice.

    Attributes:
        candidates: what is drawn for it, of which one is kept; the first is the seed's own.
        mark: its fingerprint. path: where it is stored.
    """

    source: SourcePrompt
    choice: Choice
    seed: int
    candidates: tuple[Prompt, ...]
    mark: str
    path: Path


class Drawing:
    """All pictures of one command."""

    def __init__(
        self,
        config: SampleConfig,
        prompts: Sequence[SourcePrompt],
        choices: Sequence[Choice],
        out: Path,
    ) -> None:
        self.config, self.prompts, self.choices, self.out = config, prompts, choices, out
        self.origin = Origin(config)
        model = self.origin.model
        self.width, self.height = (
            config.width or model.resolution,
            config.height or model.resolution,
        )
        for name, side in (("width", self.width), ("height", self.height)):
            check_side(name, side, model.pixels_per_latent)
        size = self.width, self.height
        start = None if config.image is None else _fitted(_read("image", config.image), size)
        self.control = self._control(config.control, size)
        self.clip_skip = config.clip_skip or model.clip_skip
        self.frame = Frame(self.width, self.height, self.clip_skip, start, config.strength or 1.0)
        side = round((self.width * self.height) ** 0.5)
        size = config.batch_size or min(BATCH, pictures_at_once(side))
        self.sampler = Sampler(model, config.sampler, 0, size, self.frame)
        model.prompt_arguments([""], [""], self.clip_skip)  # refuses a layer that is not there

    def _control(self, file: str | None, size: tuple[int, int]) -> Tensor | None:
        """The condition that the run's ControlNet draws from, of a picture."""
        condition = self.origin.run.config.method.follows() if self.origin.run else None
        if file is None or condition is None:
            return None
        picture = _read("control", file)
        drawn = condition == CANNY and conditions.is_drawing(picture)
        return conditions.of(FILE if drawn else condition, _fitted(picture, size))

    @cached_property
    def scorer(self) -> ClipScorer:
        """The CLIP that chooses among several pictures; loaded when it is first needed."""
        from curate.clip.load import load_clip

        return load_clip(self.config.clip, self.origin.device)

    @cached_property
    def cells(self) -> list[Cell]:
        """By choice, prompt and seed."""
        judge = clip_models.fingerprint(self.config.clip) if self.config.best_of > 1 else ""
        return [
            self._cell(choice, source, seed, judge)
            for choice in self.choices
            for source in self.prompts
            for seed in self.config.seeds
        ]

    def _cell(self, choice: Choice, source: SourcePrompt, seed: int, judge: str) -> Cell:
        count = self.config.best_of
        seeds = [seed, *(keyed_seed(seed, "candidate", n) % _SEEDS for n in range(1, count))]
        negative = self.config.negative_prompt
        plain = Prompt("", source.text, negative=negative, control=self.control)
        candidates = tuple(replace(plain, seed=one) for one in seeds)
        mark = self.sampler.fingerprint(candidates[0], self.origin.weights(choice))
        if count > 1:
            mark = hashlib.blake2b(f"{mark} {count} {judge}".encode(), digest_size=16).hexdigest()
        name = f"{_slug(source.text)}-seed-{seed}-{mark[:8]}.png"
        return Cell(source, choice, seed, candidates, mark, self.out / choice.folder / name)

    def draw(self, say: Callable[[str], None]) -> None:
        """Draw what is missing, each picture stored as soon as it is drawn."""
        missing = [c for c in self.cells if sampling.mark_of(c.path) != c.mark]
        count = len(self.cells)
        if not missing:
            say(f"sample  all {count} pictures are in {self.out} already")
            return
        again = "" if len(missing) == count else f", {count - len(missing)} are there already"
        say(f"sample  draws {len(missing)} pictures{again}")
        with Bar(total=len(missing) * self.config.best_of, unit="picture") as bar:
            for choice in self.choices:
                for cell, pictures in self._drawn([c for c in missing if c.choice == choice], bar):
                    self._store(cell, pictures)

    def _drawn(self, cells: Sequence[Cell], bar: Any) -> Iterator[tuple[Cell, list[Image.Image]]]:
        """Each cell with the pictures of all its candidates; batches may span several cells."""
        queue = [(cell, prompt) for cell in cells for prompt in cell.candidates]
        waiting: list[Image.Image] = []
        count, left = self.config.best_of, iter(cells)
        size = self.sampler.batch_size
        for start in range(0, len(queue), size):
            batch = queue[start : start + size]
            unet = self.origin.unet(batch[0][0].choice)
            waiting += self.sampler.draw(unet, [prompt for _, prompt in batch])
            bar.update(len(batch))
            while len(waiting) >= count:
                yield next(left), waiting[:count]
                waiting = waiting[count:]

    def _store(self, cell: Cell, pictures: list[Image.Image]) -> None:
        best, texts = 0, {}
        if len(pictures) > 1:
            text = self.scorer.encode_texts([cell.source.text])[0]
            similarity = [round(float(s), 4) for s in self.scorer.encode_images(pictures) @ text]
            best = int(np.argmax(similarity))
            seeds = [prompt.seed for prompt in cell.candidates]
            chosen = {"seeds": seeds, "similarity": similarity, "clip": self.scorer.name}
            texts[BEST_OF] = json.dumps(chosen)
        texts[infotext.CHUNK] = self._infotext(cell, cell.candidates[best])
        sampling.write(pictures[best], cell.path, cell.mark, texts)

    def _infotext(self, cell: Cell, prompt: Prompt) -> str:
        sampler, (model, digest, more) = self.config.sampler, self.origin.named(cell.choice)
        assert prompt.seed is not None
        values = infotext.values_of(
            sampler=sampler.name,
            spacing=sampler.timestep_spacing,
            steps=sampler.steps,
            guidance=sampler.guidance_scale,
            seed=prompt.seed,
            width=self.width,
            height=self.height,
            model=model,
            model_hash=digest,
            clip_skip=infotext.clip_skip_of(self.clip_skip, self.origin.model.text_encoders),
            strength=self.config.strength,
            more=more,
        )
        return infotext.write(infotext.Infotext(prompt.caption, prompt.negative, values))

    def records(self) -> Iterator[dict[str, Any]]:
        """What ``samples.jsonl`` says of each picture."""
        image = None if self.config.image is None else Path(self.config.image).expanduser()
        started = None
        if image is not None:
            started = {
                "file": str(image),
                "sha256": sha256_of(image),
                "strength": self.config.strength,
            }
        controlled = {}
        if self.config.control is not None:  # without one the records stay what they were
            path = Path(self.config.control).expanduser()
            controlled = {"control": {"file": str(path), "sha256": sha256_of(path)}}
        for cell in self.cells:
            texts = sampling.texts_of(cell.path)
            best = json.loads(texts[BEST_OF]) if BEST_OF in texts else None
            drawn = infotext.read(texts[infotext.CHUNK]).values["Seed"]
            yield {
                "file": cell.path.relative_to(self.out).as_posix(),
                "prompt": cell.source.text,
                "negative_prompt": self.config.negative_prompt,
                "seed": int(drawn),
                "checkpoint": "base" if not cell.choice.step else cell.choice.step,
                "lora_scale": cell.choice.scale if cell.choice.step else None,
                "sampler": asdict(self.config.sampler),
                "width": self.width,
                "height": self.height,
                "clip_skip": self.clip_skip,
                "image": started,
                **controlled,
                "best_of": best,
                "not_read": self.origin.model.cut_off(cell.source.text),
                "source": {
                    "file": cell.source.file,
                    "line": cell.source.line,
                    "tags": cell.source.tags,
                },
            }

    def sheets(self) -> Iterator[Image.Image]:
        """Contact sheets: seeds are columns where there is one choice, else rows below their prompt."""
        by = {(c.choice, c.source.text, c.seed): c.path for c in self.cells}
        scaled = any(choice.scale != 1 for choice in self.choices)
        seeds = self.config.seeds
        if len(self.choices) == 1:
            [choice] = self.choices
            rows = [source.text for source in self.prompts]
            columns = [f"{choice.label(scaled)}\nseed {seed}" for seed in seeds]
            cells = [[by[choice, s.text, seed] for seed in seeds] for s in self.prompts]
        else:
            pairs = [(source.text, seed) for source in self.prompts for seed in seeds]
            rows = [text if len(seeds) == 1 else f"seed {n}: {text}" for text, n in pairs]
            columns = [choice.label(scaled) for choice in self.choices]
            cells = [[by[choice, *pair] for choice in self.choices] for pair in pairs]
        sampler = self.config.sampler
        note = f"{sampler.name}, {sampler.steps} steps, guidance {sampler.guidance_scale:g}"
        note += f", {self.width} × {self.height} px"
        if len(self.choices) > 1 and len(seeds) == 1:
            note += f", seed {seeds[0]}"
        return contact_sheet.sheets(cells, rows, columns, note)

    def say_what_is_cut_off(self, say: Callable[[str], None]) -> None:
        """Name prompts that are too long for the text encoder, the first five in full."""
        texts = [*(s.text for s in self.prompts), self.config.negative_prompt]
        cut = [(text, rest) for text in texts if (rest := self.origin.model.cut_off(text))]
        for text, rest in cut[:5]:
            say(
                f"note    the text encoder does not read the end of {one_line(text[:60])!r}: {one_line(rest[:200])!r}"
            )
        if len(cut) > 5:
            say(
                f"note    nor of {len(cut) - 5} more prompts; {LIST} has each of them under not_read"
            )


def _read(key: str, file: str) -> Image.Image:
    """A picture that was named.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return decode(Path(file).expanduser().read_bytes())
    except UnreadableImage as error:
        raise UserError(f"{key}={file} cannot be read as a picture: {error}") from error


def _fitted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A picture resized so that it covers ``size``, the centre cropped."""
    return ImageOps.fit(picture, size, Image.Resampling.BICUBIC)


def _slug(text: str) -> str:
    """The first words of a prompt, fit for the name of a file on any system.

    >>> _slug("A red fox, in the snow!"), _slug("狐")
    ('a-red-fox-in-the-snow', 'prompt')
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:40].strip("-") or "prompt"


def sample(
    config: SampleConfig,
    prompts: Sequence[SourcePrompt],
    choices: Sequence[Choice],
    out: Path,
    say: Callable[[str], None],
) -> None:
    """Draw the pictures, then write ``samples.jsonl`` and the sheets.

    Raises:
        UserError: the model cannot be used so, or is not the one that was trained.
    """
    drawing = Drawing(config, prompts, choices, out)
    drawing.say_what_is_cut_off(say)
    drawing.draw(say)
    lines = [json.dumps(record, ensure_ascii=False) for record in drawing.records()]
    write_text(out / LIST, "".join(f"{line}\n" for line in lines))
    written = []
    for number, sheet in enumerate(drawing.sheets(), 1):
        written.append(out / f"sheet-{number:03d}.png")
        sampling.write(sheet, written[-1], "sheet")
    for path in set(out.glob("sheet-*.png")) - set(written):
        if sampling.mark_of(path) == "sheet":  # ours, of a command with more rows
            path.unlink()
    more = f" and {len(written) - 1} more" if len(written) > 1 else ""
    say(f"sheet   {written[0]}{more}")
    say(f"list    {out / LIST}")
