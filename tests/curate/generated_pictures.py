"""A folder of drawn pictures with everything that deciding has to tell apart, the same bytes each time.

Exact copies, copies saved again, mirrored ones, a placeholder saved in hundreds of ways, crops and recoloured
drawings under near captions, several captions of a picture, photo ids in a column ``group``, wrong captions, pictures
that are missing, truncated or too wide, and columns of several types.
"""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

from PIL import Image, ImageDraw

_SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "bar", "arrow")
_COLOURS = {
    "red": (220, 40, 40), "green": (40, 170, 60), "blue": (50, 80, 220), "yellow": (240, 210, 50),
    "purple": (150, 60, 190), "orange": (245, 140, 40), "black": (20, 20, 20), "grey": (140, 140, 140),
}  # fmt: skip
_PLACES = (
    "on a table",
    "in the rain",
    "near a lake",
    "above the clouds",
    "in a box",
    "at night",
    "on a wall",
)
_SIDE = 48


def write(folder: Path, count: int, seed: int = 0) -> None:
    """Write ``count`` pictures and ``metadata.jsonl`` into ``folder``."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    records, originals = [], []
    for number in range(count):
        name, kind = f"{number:06d}.jpg", rng.random()
        if kind < 0.12 and originals:
            picture, text = _copy(rng, *rng.choice(originals[-400:]))
        elif kind < 0.16:
            picture, text = _placeholder(rng), f"image {rng.randrange(30)} not found"
        else:
            scene = _scene(rng)
            picture, text = _drawn(scene), _caption(rng, scene)
            originals.append((scene, text))
        record = {"file_name": name, "text": text, "score": rng.choice([1, 2, None])}
        if rng.random() < 0.05:
            record["group"] = f"photo {rng.randrange(count // 60 + 1)}"
        if rng.random() < 0.3:
            record["licence"] = rng.choice(["CC0", "CC BY 4.0", 7])
        if rng.random() < 0.03:
            record["text"] = _caption(rng, _scene(rng))  # wrong
        _store(folder / name, picture, rng)
        records.append(record)
        if rng.random() < 0.1:
            records.append({**record, "text": f"{record['text']} again"})
    with (folder / "metadata.jsonl").open("w") as stream:
        stream.writelines(json.dumps(record) + "\n" for record in records)


def _store(path: Path, picture: Image.Image, rng: random.Random) -> None:
    if rng.random() < 0.005:
        return  # missing
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=rng.choice([75, 90, 95]))
    data = buffer.getvalue()
    path.write_bytes(data[: len(data) // 2] if rng.random() < 0.003 else data)


def _scene(rng: random.Random) -> dict:
    shapes = [
        (
            rng.choice(_SHAPES),
            rng.choice(list(_COLOURS)),
            rng.random(),
            rng.random(),
            0.2 + 0.3 * rng.random(),
        )
        for _ in range(rng.choice([1, 2, 3]))
    ]
    return {
        "back": rng.choice(list(_COLOURS)),
        "shapes": shapes,
        "place": rng.choice(_PLACES),
        "wide": rng.random() < 0.01,
    }


def _caption(rng: random.Random, scene: dict) -> str:
    things = " and ".join(f"a {colour} {shape}" for shape, colour, *_ in scene["shapes"])
    number = f" no {rng.randrange(3000)}" if rng.random() < 0.5 else ""
    return f"{things} {scene['place']}{number}"


def _drawn(scene: dict) -> Image.Image:
    wide = _SIDE * (4 if scene["wide"] else 1)
    picture = Image.new("RGB", (wide, _SIDE), _COLOURS[scene["back"]])
    draw = ImageDraw.Draw(picture)
    for shape, colour, x, y, size in scene["shapes"]:
        left, top, side = x * _SIDE * 0.6, y * _SIDE * 0.6, size * _SIDE
        box, fill = (left, top, left + side, top + side), _COLOURS[colour]
        if shape in ("circle", "ring"):
            draw.ellipse(box, fill=fill if shape == "circle" else None, outline=fill, width=4)
        elif shape in ("square", "bar"):
            draw.rectangle(
                box if shape == "square" else (left, top, left + side, top + side / 3), fill=fill
            )
        elif shape == "cross":
            draw.line(box, fill=fill, width=5)
            draw.line((left, top + side, left + side, top), fill=fill, width=5)
        else:
            tip = (left + side / 2, top) if shape != "arrow" else (left + side, top + side / 2)
            draw.polygon([tip, (left, top + side), (left + side, top + side)], fill=fill)
    return picture


def _copy(rng: random.Random, scene: dict, text: str) -> tuple[Image.Image, str]:
    picture, kind = _drawn(scene), rng.randrange(5)
    if kind == 1:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    elif kind == 2:
        picture = picture.resize((picture.width * 2, picture.height * 2))
    elif kind == 3:
        picture = picture.crop((3, 3, picture.width - 3, picture.height - 3))
    elif kind == 4:
        scene = {**scene, "back": rng.choice(list(_COLOURS))}
        picture = _drawn(scene)
    return (
        picture,
        text
        if rng.random() < 0.7
        else f"{text} seen {rng.choice(['twice', 'again', 'from afar'])}",
    )


def _placeholder(rng: random.Random) -> Image.Image:
    picture = Image.new("RGB", (_SIDE, _SIDE), (235, 235, 235))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((10, 10, 38, 38), outline=(90, 90, 90), width=3)
    draw.line((10, 10, 38, 38), fill=(90, 90, 90), width=3)
    picture.putpixel((rng.randrange(_SIDE), rng.randrange(_SIDE)), (200, rng.randrange(255), 90))
    return picture
