"""Files that are either whole or not there."""

import contextlib
import os
import secrets
from pathlib import Path


@contextlib.contextmanager
def replacing(path):
    """Open a temporary binary file beside `path`; put it in the place of `path` when the block ends without an error.

    A reader sees the old file or the new one, never a part of one. Two processes that write at once do no harm: each
    has a temporary file of its own, and the last to finish wins. The folder is made if it is not there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(part, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
