"""Spoils generated prints by other means than the training does (medians, smears, motion, blotches, equalisation, resampling,
JPEG), to choose between models and to gate INT8 on pictures that the training did not make.

    vigild synth --out RAW --fingers 40 --impressions 5 --seed 7000000 --severity mixed --width 320 --height 360 --dpi 470,530
    python3 shift.py RAW OUT
"""

import glob
import io
import os
import random
import sys

import numpy as np
from PIL import Image, ImageFilter, ImageOps


def smear(picture, a):
    """A wide dark blur inside a smooth region."""
    h, w = a.shape
    dark = np.asarray(picture.filter(ImageFilter.MinFilter(5)).filter(ImageFilter.GaussianBlur(3))).astype(float)
    yy, xx = np.mgrid[:h, :w]
    cx, cy = random.random() * w, random.random() * h
    m = np.exp(-(((xx - cx) / (w * 0.3)) ** 2 + ((yy - cy) / (h * 0.25)) ** 2)) * (0.5 + 0.48 * random.random())
    return a * (1 - m) + dark * m


def blotches(a):
    h, w = a.shape
    small = Image.fromarray((np.random.rand(h // 6, w // 6) * 255).astype("uint8"))
    n = np.asarray(small.resize((w, h), Image.BICUBIC)).astype(float)
    return np.where(n > 175, a + (235 - a) * 0.8, a)


def spoil(picture):
    w, h = picture.size
    if random.random() < 0.5:
        filters = ImageFilter.MedianFilter(3), ImageFilter.MinFilter(3), ImageFilter.MaxFilter(3)
        picture = picture.filter(random.choice(filters))
    a = np.asarray(picture).astype(float)
    if random.random() < 0.6:
        a = smear(picture, a)
    if random.random() < 0.4:
        k = random.choice([2, 3, 4])
        a = sum(np.roll(a, i, axis=random.choice([0, 1])) for i in range(k)) / k
    if random.random() < 0.4:
        a = blotches(a)
    picture = Image.fromarray(a.clip(0, 255).astype("uint8"))
    if random.random() < 0.3:
        picture = ImageOps.equalize(picture)
    if random.random() < 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(1.3))
    scale = 0.7 + 0.3 * random.random()
    if random.random() < 0.4:
        picture = picture.resize((int(w * scale), int(h * scale)), Image.BILINEAR).resize((w, h), Image.BILINEAR)
    if random.random() < 0.5:
        f = io.BytesIO()
        picture.save(f, "JPEG", quality=random.randint(8, 30))
        picture = Image.open(f).convert("L")
    return picture


def main():
    raw, out = sys.argv[1:3]
    random.seed(3), np.random.seed(3)
    os.makedirs(out, exist_ok=True)
    for path in sorted(glob.glob(os.path.join(raw, "*_*.png"))):
        if not path.endswith(".ridges.png"):
            spoil(Image.open(path)).save(os.path.join(out, os.path.basename(path)))


if __name__ == "__main__":
    main()
