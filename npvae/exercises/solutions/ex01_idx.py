"""Exercise 1: Read the digits from their bytes.

IDX, the format of MNIST: bytes 0 and 1 are zero, byte 2 is the type of the numbers (8: unsigned
bytes), byte 3 the number of dimensions n; then come n sizes of four bytes each, the most
significant byte first; then the numbers, the last dimension running fastest. Notebook 1 takes
such a file apart.
"""

import numpy as np


def read_header(raw):
    """The sizes of the array in an IDX file.

    Parameters
    ----------
    raw : bytes
        The whole file, not compressed.

    Returns
    -------
    tuple of int
        (60000, 28, 28) for the training images of MNIST.

    Raises
    ------
    ValueError
        If the file is too short for its header, does not begin with 0, 0, 8, or has fewer or
        more bytes than its sizes say.
    """
    if len(raw) < 4 or len(raw) < 4 + 4 * raw[3]:
        raise ValueError(f"{len(raw)} bytes are too few for a header")
    if raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"the file begins with {raw[:3].hex()}, expected 000008")
    sizes = tuple(int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(raw[3]))
    count = 1
    for size in sizes:
        count *= size
    if len(raw) != 4 + 4 * len(sizes) + count:
        raise ValueError(f"{len(raw)} bytes, expected {4 + 4 * len(sizes) + count} for {sizes}")
    return sizes


def read_images(raw):
    """The images in an IDX file, each as one row: uint8, (N, rows · columns)."""
    sizes = read_header(raw)
    pixels = np.frombuffer(raw, np.uint8, offset=4 + 4 * len(sizes))
    return pixels.reshape(sizes[0], sizes[1] * sizes[2])


def scale(images):
    """Bytes (N, D), 0 for paper and 255 for ink, as a model takes them.

    Returns
    -------
    (N, D) float32 array, from 0 to 1
    """
    return images.astype(np.float32) / 255
