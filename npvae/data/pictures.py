"""A picture of one's own as a model takes it: ink 1 on paper 0, scaled and placed as MNIST does with its scans."""

import os
from itertools import pairwise

import numpy as np

from npvae.files import open_regular

FULL = {"bool": 1, "uint8": 255, "uint16": 65535}  # what white is stored as; floats store it as 1
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue: ITU-R BT.601, as in JPEG
GRAIN = 10  # a picture is shrunk to so many times the image's side: noise averages out, a hair line is still there
FAINTEST = 0.05  # the least contrast of ink, white to black being 1: below are smudges, and what JPEG leaves on paper
EDGE = 0.3  # of the strongest ink, where the ink's box ends: paper in bad light stays below, strokes reach above
FIT = 20 / 28  # of the image's sides is for the ink: MNIST's 20 × 20 pixels in 28 × 28


def from_picture(picture, image_shape=(28, 28), background="auto", centre=True):
    """Make a drawing, a scan or a photo an example for a model; an image of MNIST's comes back as it was.

    There should be ink in the picture and paper around it, nothing else: a line of a notebook is ink, too. The paper's
    grey level is the median of the picture's border. Noise, and light that falls from a side, make paper about as much
    lighter as darker than that, and ink makes it only darker: so the lightest of the border tells how dark mere paper
    can be, and what is darker is ink (on a dark background, the other way round). The strongest ink becomes 1. As in
    MNIST, the box of the ink is scaled to 20/28 of the image and its centre of mass is moved to the middle.

    Parameters
    ----------
    picture : path, or array (H, W), (H, W, 3) or (H, W, 4)
        A file that Matplotlib reads, the way up it is stored (a phone may only note in EXIF that it was held upright:
        turn such a photo first); or grey, RGB or RGBA as uint8, uint16, bool, or floats in [0, 1], white the largest.
        What is transparent shows white paper.
    image_shape : (rows, columns), as `image_shape` of the data set the model was trained on
    background : 'light' for dark ink, 'dark' for light ink as in MNIST, or 'auto'
        'auto' looks whether the border is nearer to the lightest or to the darkest of the picture.
    centre : bool
        If False, as for faces, the whole picture is scaled to `image_shape`, whatever its aspect; its grey levels stay
        as they are, or are inverted if `background` is 'light'.

    Returns
    -------
    x (1, D), float32 in [0, 1], to be given to `vae.encode` or `vae.reconstruct`

    Raises
    ------
    ValueError
        If this is not a picture, or one without ink.
    OSError
        If the file is not there, or cannot be opened.
    """
    name = "the picture"
    if isinstance(picture, (str, os.PathLike)):
        name, picture = os.fspath(picture), _read(picture)
    picture = np.asarray(picture)
    _check(picture, name)
    if background not in ("auto", "light", "dark"):
        raise ValueError(f"background {background!r}: expected 'auto', 'light' or 'dark'")

    grey = _shrink(picture, GRAIN * max(image_shape))
    if not centre:
        image = _resize(1 - grey if background == "light" else grey, image_shape)
    else:
        ink = _ink(grey, background)
        if not ink.any():
            raise ValueError(f"{name}: no ink: nothing stands out from its border; expected ink with paper around it")
        image = _place(_fit(ink, image_shape), image_shape)
    return np.clip(image, 0, 1).reshape(1, -1)  # a weighted mean can round to 1 + 1e-7


def _read(path):
    from matplotlib.image import imread  # matplotlib takes a second to import: not before it is needed

    with open_regular(path) as file:
        try:
            return imread(file, format="")  # no format: told by the content, not by the name
        except Exception as error:  # Pillow's decoders raise errors of many kinds at a broken file
            raise ValueError(f"{path}: not a picture that can be read; expected a whole PNG or JPEG file") from error


def _check(picture, name):
    if picture.size == 0 or not (picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] in (3, 4))):
        raise ValueError(f"{name}: shape {picture.shape}, expected one picture: (H, W), (H, W, 3) or (H, W, 4)")
    if picture.dtype.kind == "f":
        low, high = picture.min(), picture.max()
        if not (low >= 0 and high <= 1):  # NaN is neither
            raise ValueError(f"{name}: floats from {low:g} to {high:g}, expected 0 to 1 (0 to 255 is for uint8)")
    elif picture.dtype.name not in FULL:
        raise ValueError(f"{name}: type {picture.dtype}, expected uint8, uint16, bool, or floats in [0, 1]")


def _shrink(picture, side):
    """Grey levels (H, W) of which none is longer than `side`: means of blocks, row by row to take little memory."""
    scale = min(1, side / max(picture.shape[:2]))
    rows, columns = (np.linspace(0, n, max(1, round(n * scale)) + 1).astype(int) for n in picture.shape[:2])
    grey = np.stack([_grey(picture[start:end]).mean(axis=0) for start, end in pairwise(rows)])
    return np.add.reduceat(grey, columns[:-1], axis=1) / np.diff(columns).astype(np.float32)


def _grey(pixels):
    """Grey levels in [0, 1], float32, on white paper."""
    pixels = np.divide(pixels, np.float32(FULL.get(pixels.dtype.name, 1)), dtype=np.float32)
    if pixels.ndim == 2:
        return pixels
    grey = pixels[..., :3] @ LUMINANCE
    return grey if pixels.shape[2] == 3 else 1 - pixels[..., 3] * (1 - grey)


def _ink(grey, background):
    """Ink (H, W) from 0 to 1; all 0 if there is none. In a clean picture each grey level but the paper's is ink."""
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    paper = np.median(border)
    dark = paper - grey.min() <= grey.max() - paper if background == "auto" else background == "dark"
    sign = 1 if dark else -1
    unevenness = np.max(sign * (paper - border))
    ink = np.maximum(sign * (grey - paper) - unevenness, 0)
    contrast = ink.max()
    return ink / contrast if contrast > max(FAINTEST, unevenness) else np.zeros_like(ink)


def _fit(ink, image_shape):
    """The ink alone (h, w), scaled so that it just fits the middle of the image, its aspect kept."""
    scale = min(FIT * side / length for side, length in zip(image_shape, _box(ink, EDGE).shape, strict=True))
    box = _box(ink, EDGE, rim=max(1, round(1 / scale)))  # a pixel of the image more on each side, for soft edges
    box = _resize(box, [min(side, max(1, round(n * scale))) for side, n in zip(image_shape, box.shape, strict=True)])
    return _box(box / box.max(), 0)


def _box(ink, level, rim=0):
    """The part of (H, W) that just holds what is above a level, with a rim around it."""
    rows, columns = (np.flatnonzero((ink > level).any(axis=axis)) for axis in (1, 0))
    return np.pad(ink, rim)[rows[0] : rows[-1] + 1 + 2 * rim, columns[0] : columns[-1] + 1 + 2 * rim]


def _resize(image, shape):
    """Scale (H, W) to a shape with antialiasing; to the same shape, unchanged to the bit."""
    down, across = (_triangles(old, new) for old, new in zip(image.shape, shape, strict=True))
    return down @ image @ across.T


def _triangles(old, new):
    """Weights (new, old) of a mean around each new pixel; they fall to 0 a pixel away, new or old, the larger one."""
    scale = old / new
    middle = (np.arange(new)[:, None] + 0.5) * scale - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(old) - middle) / max(1, scale))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _place(box, image_shape):
    """The image with the box moved by whole pixels: its centre of mass in the middle, or as near as the border lets."""
    image = np.zeros(image_shape, np.float32)
    part = []
    for axis, side in enumerate(image_shape):
        mass = box.sum(axis=1 - axis)
        balance = mass @ np.arange(len(mass)) / mass.sum()
        start = np.clip(side // 2 - int(np.rint(balance)), 0, side - len(mass))
        part.append(slice(start, start + len(mass)))
    image[tuple(part)] = box
    return image
