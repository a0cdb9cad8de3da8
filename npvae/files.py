"""Files that are either whole or not there, that are never waited for, and that one process at a time writes."""

import contextlib
import os
import re
import secrets
import stat
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None

PART = re.compile(r"\..+\.(\d+)-[0-9a-f]{8}\.part")  # the name of a temporary file, with its process


@contextlib.contextmanager
def replacing(path):
    """Open a temporary binary file beside `path`; put it in the place of `path` when the block ends without an error.

    A reader sees the old file or the new one, never a part of one, also after a power failure. Two processes that write
    at once do no harm: each has a temporary file of its own, and the last to finish wins. The folder must be there.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with open(part, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)  # a full disk does not say which file has no room
        raise
    finally:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            part.unlink()


def _sync(folder):
    """Have the names in a folder on the disk, in this order, before anything else is written."""
    if hasattr(os, "O_DIRECTORY"):
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def is_stale(path):
    """Whether this is a temporary file whose process is no more; before this one has written any, its own too."""
    if not (path.name.startswith(".") and path.name.endswith(".part")):
        return False
    match = PART.fullmatch(path.name)
    return match is None or int(match[1]) == os.getpid() or not _is_alive(int(match[1]))


def remove_stale(*folders):
    """Remove the temporary files that killed processes have left in folders."""
    for folder in folders:
        for path in Path(folder).glob(".*.part"):
            if is_stale(path):
                path.unlink(missing_ok=True)


def _is_alive(process):
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


class Locked(Exception):
    """Another process holds the lock; the message says which."""


@contextlib.contextmanager
def lock(path):
    """Hold a lock, which is a file at `path` as long as it is held; `Locked` if another process does.

    The kernel lets go of it when the process ends, however it ends: what a killed one leaves is taken over.
    """
    if fcntl is None:
        yield
        return
    number = None
    while number is None:
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_file_at(number, path):  # whoever held it has removed it meanwhile
                os.close(number)
                number = None
        except BlockingIOError as error:
            holder = os.read(number, 20).decode(errors="replace").strip()
            os.close(number)
            raise Locked(f"process {holder}" if holder.isdecimal() else "another process") from error
    try:
        os.truncate(number, 0)
        os.write(number, f"{os.getpid()}\n".encode())
        yield
    finally:
        if _is_file_at(number, path):
            os.unlink(path)
        os.close(number)


def _is_file_at(number, path):
    try:
        return os.path.samestat(os.fstat(number), os.stat(path))
    except FileNotFoundError:
        return False


def open_regular(path):
    """Open a file to read its bytes; a pipe or a device, which might never end, is an OSError instead of a wait."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(f"{path} is not a regular file")
    return file


def read_text(path, most=10_000_000):
    """The text of a file of at most so many bytes; longer ones are a ValueError."""
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"more than {most:,} bytes")
    return data.decode("utf-8")
