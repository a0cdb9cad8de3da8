"""What a model is given, refused in words where it would give a wrong number or an obscure error."""

import numpy as np


def check_images(x, pixels, precision):
    """`x` as floats no wider than `precision`; a ValueError unless it is (B, pixels) and in [0, 1]."""
    x = narrowed(x, precision)
    if x.dtype.kind not in "fc":
        raise ValueError(f"x is {x.dtype}, expected floats in [0, 1]: npvae.data.pixels.batch scales raw images")
    if x.ndim != 2 or x.shape[1] != pixels:
        flat = "; a single image is x.reshape(1, -1), many are x.reshape(len(x), -1)"
        raise ValueError(f"x has the shape {x.shape}, expected (B, {pixels}){flat * (x.size % pixels == 0)}")
    if x.size and not (x.real.min() >= 0 and x.real.max() <= 1):  # `not`, so that NaN is refused
        found = f"values from {x.real.min():g} to {x.real.max():g}"
        raise ValueError(f"x holds {found}, expected [0, 1]: divide grey values 0…255 by 255")
    return x


def check_noise(eps, shape, precision):
    """`eps`; a ValueError unless it is (L, *shape), of floats no wider than `precision`, of one sample or more."""
    eps = np.asanyarray(eps)
    if eps.ndim != 3 or eps.shape[1:] != shape:
        raise ValueError(f"eps has the shape {np.shape(eps)}, expected (L, {shape[0]}, {shape[1]})")
    if 0 in eps.shape[:2]:
        raise ValueError(f"eps has the shape {eps.shape}: there is no loss of no samples or no examples")
    if eps.dtype.kind != "f" or np.result_type(eps, precision) != precision:
        draw = f"rng.standard_normal({eps.shape}, np.{precision})"
        raise ValueError(f"eps is {eps.dtype}, the model {precision}: draw {draw}")
    return eps


def check_labels(y, count, classes):
    """`y` as an array; a ValueError unless it is (count, classes), or None where there are no classes."""
    if y is None and classes == 0:
        return None
    if np.shape(y) != (count, classes) or classes == 0:
        expected = f"{(count, classes)}, one-hot rows as of npvae.data.pixels.one_hot" if classes else "None"
        raise ValueError(f"y {'is None' if y is None else f'has the shape {np.shape(y)}'}, expected {expected}")
    return np.asarray(y)


def narrowed(array, precision):
    """`array` as an array; its floats in `precision` where they are wider."""
    array = np.asanyarray(array)
    wider = array.dtype.kind == "f" and np.result_type(array, precision) != precision
    return array.astype(precision) if wider else array
