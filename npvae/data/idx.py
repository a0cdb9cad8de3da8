"""The raw IDX format of MNIST: a magic number, the sizes, the numbers.

    byte 0, 1   zero
    byte 2      the type of the numbers, see TYPES
    byte 3      the number of dimensions, n
    then        n sizes, 32-bit unsigned, big-endian
    then        the numbers, big-endian, the last dimension running fastest

The format is described with MNIST by LeCun, Cortes and Burges (1998).
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from npvae.files import open_regular, replacing

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
CODES = {np.dtype(dtype): code for code, dtype in TYPES.items()}
MAGIC_IMAGES, MAGIC_LABELS = 0x00000803, 0x00000801  # unsigned bytes in three dimensions and in one
CONTENTS = {MAGIC_IMAGES: "images", MAGIC_LABELS: "labels"}

GZIP_MAGIC = b"\x1f\x8b"
GZIP_LARGEST_RATIO = 1032  # deflate cannot pack more bytes into one
CHUNK = 1 << 20  # bytes


class IDXError(ValueError):
    """A file that is not what its place in the data set asks for; the message is one line that names it."""


def read_idx(path, magic=None):
    """Read an IDX file, plain or gzip; which one is told by its content, not by its name.

    Parameters
    ----------
    path : str or Path
    magic : int, optional
        The number that is expected, `MAGIC_IMAGES` or `MAGIC_LABELS`; without it any type and number of dimensions.

    Returns
    -------
    array in the machine's byte order, writable

    Raises
    ------
    IDXError
        If the file is not a whole IDX file. Nothing is allocated on the word of a header: memory grows with the data.
    OSError
        If it cannot be opened or read.
    """
    path = Path(path)
    packed_size = path.stat().st_size
    with open_regular(path) as raw:
        packed = raw.read(2) == GZIP_MAGIC
        raw.seek(0)
        largest = packed_size * GZIP_LARGEST_RATIO if packed else packed_size
        try:
            with gzip.open(raw) if packed else raw as file:
                return _read(file, path, magic, largest)
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise IDXError(
                f"{path}: broken gzip ({_lower(error)}); expected a whole .gz file: fetch it again"
            ) from error


def _read(file, path, magic, largest):
    head = _take(file, 4)
    if len(head) < 4:
        raise IDXError(f"{path}: {len(head)} bytes, expected an IDX header of at least 4")
    found = int.from_bytes(head, "big")
    if magic is not None and found != magic:
        hint = f"; is this the {CONTENTS[found]} file?" if found in CONTENTS else ""
        raise IDXError(f"{path}: magic {found:#010x}, expected {magic:#010x} ({CONTENTS.get(magic, 'IDX')}){hint}")
    if found >> 16 or head[2] not in TYPES:
        types = ", ".join(f"{code:02x}" for code in TYPES)
        raise IDXError(f"{path}: magic {found:#010x}, expected 0x0000TTNN with a type TT of {types} and NN dimensions")

    dimensions = head[3]
    sizes = _take(file, 4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise IDXError(f"{path}: the header ends after {4 + len(sizes)} bytes, expected {4 + 4 * dimensions}")
    shape = struct.unpack(f">{dimensions}I", sizes)
    dtype = np.dtype(TYPES[head[2]])
    expected = math.prod(shape) * dtype.itemsize
    described = f"{_times(shape)} of {dtype.itemsize} bytes"
    room = largest - (4 + 4 * dimensions)  # for the data, after the header
    if expected > room:
        raise IDXError(
            f"{path}: the header promises {described}, {expected} bytes, more than the file can hold ({room})"
        )

    data = _take(file, expected)
    if len(data) < expected:
        raise IDXError(f"{path}: truncated: {len(data)} bytes of data, expected {expected} ({described})")
    if file.read(1):
        raise IDXError(
            f"{path}: too long: more than the {expected} bytes of data that its header promises ({described})"
        )
    try:
        array = np.frombuffer(data, dtype).reshape(shape)
    except ValueError as error:
        raise IDXError(f"{path}: NumPy cannot hold an array of shape {_times(shape)} ({_lower(error)})") from error
    return array.astype(dtype.newbyteorder("="), copy=False)


def _take(file, count):
    """Up to `count` bytes, in memory that grows as they arrive."""
    data = bytearray()
    while len(data) < count and (chunk := file.read(min(CHUNK, count - len(data)))):
        data += chunk
    return data


def _times(shape):
    shown = [*map(str, shape[:8]), *["…"] * (len(shape) > 8)]
    return " × ".join(shown) or "one number"


def _lower(error):
    text = str(error).rstrip(".")
    return text[:1].lower() + text[1:]


def write_idx(path, array):
    """Write an array as an IDX file, gzip if the name ends in .gz; it appears whole or not at all, its folder with it.

    Parameters
    ----------
    path : str or Path
    array : array of uint8, int8, int16, int32, float32 or float64, of at most 255 dimensions of at most 2³² − 1 each

    Raises
    ------
    IDXError
        If IDX has no such type or size.
    """
    path, array = Path(path), np.asarray(array)
    dtype = array.dtype.newbyteorder(">")
    if dtype not in CODES:
        raise IDXError(f"{path}: IDX cannot hold {array.dtype}, expected uint8, int8, int16, int32, float32 or float64")
    if any(size >= 1 << 32 for size in array.shape):
        raise IDXError(f"{path}: IDX cannot hold the shape {_times(array.shape)}, expected sizes below 2³²")
    header = struct.pack(f">HBB{array.ndim}I", 0, CODES[dtype], array.ndim, *array.shape)
    data = np.ascontiguousarray(array, dtype).data
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        if path.suffix == ".gz":
            with gzip.GzipFile(
                "", "wb", fileobj=file, mtime=0
            ) as packed:  # no name, no time: the same array, the same bytes
                packed.write(header)
                packed.write(data)
        else:
            file.write(header)
            file.write(data)
