"""Writes the digits as a folder of images, the way your own data may lie: PNG files + labels.csv.

python examples/02_int8_your_images/make_images.py FOLDER
"""

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

DIGITS = Path(__file__).resolve().parent.parent / "digits"


def main(folder: Path) -> None:
    """300 images to calibrate on and all of those to judge on, listed in labels.csv."""
    rows = []
    for split, file, count in (("calib", "calib.npz", 300), ("test", "test.npz", None)):
        with np.load(DIGITS / file) as data:
            images, labels = data["image"][:count], data["labels"][:count]
        (folder / split).mkdir(parents=True, exist_ok=True)
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            name = f"{split}/{index:04d}.png"
            # float32[1, 8, 8] in 0..1 becomes 8-bit gray
            Image.fromarray(np.rint(image[0] * 255).astype(np.uint8)).save(folder / name)
            rows.append((name, int(label), split))
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "label", "split"), *rows])
    print(f"{folder}: {len(rows)} images and labels.csv")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"{len(sys.argv) - 1} arguments; give the folder to write")
    main(Path(sys.argv[1]))
