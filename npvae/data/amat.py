"""Binary images in text, in each line the pixels of one, as in the MNIST of Larochelle & Murray (2011)."""

import numpy as np

from npvae.commands import UserError
from npvae.files import open_regular

ROWS, COLUMNS = 28, 28
LINE = 1 << 16  # bytes at most that are read at once, however far the next end of a line is
AS_BYTES = bytes.maketrans(b"01", b"\x00\xff")


def read_amat(path):
    """Read a text file with 784 digits 0 or 1 in each line, spaces between them: (N, 28, 28) uint8, 0 or 255.

    Raises
    ------
    UserError
        If there is anything else in it; the message names the line. Empty lines do no harm.
    OSError
        If it cannot be opened or read.
    """
    images = bytearray()
    with open_regular(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(LINE), b""), 1):
            digits = line.split()
            wrong = set(digits) - {b"0", b"1"}
            if wrong:
                found = ascii(min(wrong)[:20].decode("latin-1"))
                raise UserError(f"{path}: line {number} has {found}, expected digits 0 and 1 with spaces between them")
            if len(digits) not in (0, ROWS * COLUMNS):
                raise UserError(
                    f"{path}: line {number} has {len(digits)} digits, expected {ROWS * COLUMNS}: fetch the file again"
                )
            images += b"".join(digits).translate(AS_BYTES)
    if not images:
        raise UserError(f"{path}: no images, expected a line of {ROWS * COLUMNS} digits for each")
    return np.frombuffer(images, np.uint8).reshape(-1, ROWS, COLUMNS)
