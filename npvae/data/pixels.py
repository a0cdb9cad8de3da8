"""What becomes of raw pixels and labels: batches in [0, 1], one-hot rows, and binary pixels drawn from grey ones."""

import dataclasses

import numpy as np

BINARIZATION_SEED = 3
BINARIZATIONS = {
    "none": "grey pixels as Bernoulli means",
    "threshold": "pixels binarized by x ≥ 0.5",
    "fixed": f"pixels binarized once, training and test set with seed {BINARIZATION_SEED}",
    "dynamic": f"pixels binarized anew for each batch, the test set once with seed {BINARIZATION_SEED}",
}


def batch(images, rows=slice(None)):
    """Gather rows of uint8 images (N, D) and scale them to [0, 1]: (B, D) float32."""
    if images.dtype.kind not in "ui":
        raise ValueError(
            f"images are {images.dtype}, expected uint8 bytes 0…255: "
            "of floats in [0, 1] make np.rint(255 * images).astype(np.uint8)"
        )
    return np.divide(images[rows], np.float32(255), dtype=np.float32)


def one_hot(labels, rows, classes):
    """Gather rows of labels (N,), each as a row of the identity matrix: (B, C) float32. None for no classes."""
    if not classes:
        return None
    labels = np.asarray(labels)
    if labels.dtype.kind not in "ui":
        raise ValueError(f"labels are {labels.dtype}, expected whole numbers from 0 to {classes - 1}, as uint8")
    labels = labels[rows]
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise ValueError(f"a label is {wrong.flat[0]}, expected whole numbers from 0 to {classes - 1}")
    return np.eye(classes, dtype=np.float32)[labels]


def draw_binary(images, rng):
    """Make each pixel of uint8 images 255 with probability pixel / 255, else 0: uint8, of the same shape."""
    return (rng.integers(0, 255, images.shape, np.uint8) < images) * np.uint8(255)


def binarize(dataset, how):
    """The data set under a protocol of `BINARIZATIONS`.

    Of 'fixed' and 'dynamic' the test set is the same draw, from a seed that is the same for everyone. The training
    images of 'dynamic' stay grey, to be drawn from by `draw_binary` for each batch.
    """
    train, test = dataset.train_images, dataset.test_images
    if how == "threshold":
        train, test = ((images >= 128) * np.uint8(255) for images in (train, test))  # x ≥ 0.5 is 127.5 and more
    elif how in ("fixed", "dynamic"):
        rng = np.random.default_rng(BINARIZATION_SEED)
        test = draw_binary(test, rng)
        train = draw_binary(train, rng) if how == "fixed" else train
    return dataclasses.replace(dataset, train_images=train, test_images=test)
