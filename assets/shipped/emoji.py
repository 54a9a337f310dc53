#!/usr/bin/env python3
"""A data set of emoji: a class per emoji, its pictures the drawings of several designers.

    for p in emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0 @lobehub/fluent-emoji-3d@1.1.0 \\
             @lobehub/fluent-emoji-flat@1.1.0 @lobehub/fluent-emoji-modern@1.0.0; do npm pack $p; done
    assets/shipped/emoji.py FOLDER_OF_THE_PACKAGES emoji.zip

Needs Pillow and librsvg's rsvg-convert. README.md beside this file has the licences of the drawings.
"""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import random

from PIL import Image

SIDE = 40
# What a package's archive is called, and where its drawings lie in it.
DESIGNS = {
    "noto": ("emoji-datasource-google-*.tgz", "package/img/google/64/"),
    "twemoji": ("emoji-datasource-twitter-*.tgz", "package/img/twitter/64/"),
    "fluent-3d": ("lobehub-fluent-emoji-3d-*.tgz", "package/assets/"),
    "fluent-flat": ("lobehub-fluent-emoji-flat-*.tgz", "package/assets/"),
    "fluent-modern": ("lobehub-fluent-emoji-modern-*.tgz", "package/assets/"),
}
# Shades of one drawing, and people who differ in a detail that is no pixel wide at this side.
LEFT_OUT = {"skin-tone", "family", "subdivision-flag"}
FEWEST_DESIGNS = 4
# Pictures made of a drawing: one as it is on white, the others smaller, turned a little and on a colour.
PICTURES = 3


def open_package(folder, pattern):
    found = sorted(folder.glob(pattern))
    if not found:
        sys.exit(f"{folder} has no {pattern}: run npm pack first")
    return tarfile.open(found[-1])


def drawings(archive, prefix):
    """Code points in lower case without variation selectors -> bytes of the drawing."""
    found = {}
    for member in archive:
        if member.name.startswith(prefix) and member.isfile():
            name = Path(member.name)
            key = "-".join(part for part in name.stem.split("-") if part != "fe0f")
            found[key] = (name.suffix, archive.extractfile(member).read())
    return found


def picture(drawing):
    suffix, content = drawing
    if suffix == ".svg":
        command = ["rsvg-convert", "--width", "128", "--height", "128", "--keep-aspect-ratio", "--unlimited"]
        # A few drawings are too much for librsvg: nothing comes out.
        content = subprocess.run(command, input=content, capture_output=True, check=False).stdout
    if not content:
        return None
    return Image.open(io.BytesIO(content)).convert("RGBA")


def placed(drawing, rng):
    """The drawing on a plain colour, 60 to 100 % of the side, turned by at most 15 degrees."""
    colour = tuple(rng.randrange(256) for _ in range(3))
    side = 4 * SIDE
    size = round(side * rng.uniform(0.6, 1.0))
    drawn = drawing.resize((size, size), Image.LANCZOS).rotate(rng.uniform(-15, 15), Image.BICUBIC)
    canvas = Image.new("RGBA", (side, side), colour + (255,))
    canvas.alpha_composite(drawn, (rng.randint(0, side - size), rng.randint(0, side - size)))
    return canvas.convert("RGB").resize((SIDE, SIDE), Image.LANCZOS)


def on_white(drawing):
    canvas = Image.new("RGBA", drawing.size, (255, 255, 255, 255))
    canvas.alpha_composite(drawing)
    return canvas.convert("RGB").resize((SIDE, SIDE), Image.LANCZOS)


def split_of(name):
    """64 of 100 classes to train with, 16 to validate, 20 that are new."""
    digit = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 100
    return "train" if digit < 64 else "val" if digit < 80 else "novel"


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    table = json.load(open_package(folder, DESIGNS["noto"][0]).extractfile("package/emoji.json"))
    designs = {name: drawings(open_package(folder, pattern), prefix) for name, (pattern, prefix) in DESIGNS.items()}

    def class_of(emoji):
        code = emoji["unified"].lower()
        parts = [part for part in code.split("-") if part != "fe0f"]
        # A woman or a man in place of the person.
        if emoji["subcategory"] in LEFT_OUT or "2640" in parts or "2642" in parts:
            return None
        key = "-".join(parts)
        drawn = {name: of[key] for name, of in designs.items() if key in of}
        if len(drawn) < FEWEST_DESIGNS:
            return None
        made = []
        for name, drawing in sorted(drawn.items()):
            rng = random.Random(f"{key} {name}")
            drawing = picture(drawing)
            if drawing is None:
                continue
            made.append((f"{name}-0", on_white(drawing)))
            made += [(f"{name}-{i}", placed(drawing, rng)) for i in range(1, PICTURES)]
        if len(made) < FEWEST_DESIGNS * PICTURES:
            return None
        return emoji["short_name"].replace("/", "_"), made

    with ThreadPoolExecutor(2) as pool:
        classes = [made for made in pool.map(class_of, sorted(table, key=lambda emoji: emoji["unified"])) if made]
    # Stored entries with one date: the same bytes each time.
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, made in classes:
            for file, drawn in made:
                encoded = io.BytesIO()
                drawn.save(encoded, "PNG")
                archive.writestr(zipfile.ZipInfo(f"{split_of(name)}/{name}/{file}.png"), encoded.getvalue())
    counts = {split: sum(split_of(name) == split for name, _ in classes) for split in ("train", "val", "novel")}
    print(f"{len(classes)} classes ({counts}), {sum(len(made) for _, made in classes)} pictures in {out}")


if __name__ == "__main__":
    main()
