"""Files that are either whole or not there, that are never waited for, and locks that end with their process."""

import contextlib
import errno
import os
import re
import secrets
import stat
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there, and no temporary file known to be stale
    fcntl = None

PART = re.compile(r"\..+\.[0-9a-f]{8}\.part")  # the name of a temporary file
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)  # of file systems that know of none


class Locked(Exception):
    """Another process holds the lock; the message says which."""


@contextlib.contextmanager
def replacing(path):
    """Open a temporary binary file beside `path`; put it in the place of `path` when the block ends without an error.

    A reader sees the old file or the new one, never a part of one; file and name are flushed, so that this also holds
    after a power failure where a flush reaches the disk. Two writers at once do no harm: each has a temporary file of
    its own, and the last to finish wins. The folder must be there.
    """
    path = Path(path)
    part = path.with_name(f".{path.name[:50]}.{secrets.token_hex(4)}.part")
    try:
        with open(_locked(part, os.O_EXCL), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(part, path)
        _flush_names(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)  # a full disk does not say which file has no room
        raise
    finally:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            part.unlink()


def _flush_names(folder):
    """Have the names of the files in a folder on the disk."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with contextlib.suppress(OSError):  # file systems that cannot have written the name in their own way
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_stale(path):
    """Whether this is a temporary file that no process is writing any more."""
    if fcntl is None or not PART.fullmatch(path.name):
        return False
    try:
        os.close(_locked(path, create=False))
    except (Locked, OSError):
        return False
    return True


def remove_stale(*folders):
    """Remove the temporary files that killed processes have left in folders."""
    for folder in folders:
        for path in Path(folder).glob(".*.part"):
            if is_stale(path):
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def lock(path):
    """Hold a lock, which is a file at `path` as long as it is held; `Locked` if another process does.

    Yields a function that tells whether the file is still there, or was removed with its folder. The kernel lets go of
    the lock when the process ends, however it ends: what a killed one leaves is taken over.
    """
    descriptor = _locked(path)
    try:
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield lambda: _is_file_at(descriptor, path)
    finally:
        if _is_file_at(descriptor, path):
            os.unlink(path)
        os.close(descriptor)


def _locked(path, flags=0, create=True):
    """The descriptor of a file at `path` that is locked until it is closed; `Locked` where another process has it."""
    flags |= os.O_RDWR | os.O_CREAT * create | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    while True:
        descriptor = os.open(path, flags, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(f"{path} is not a regular file")
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_file_at(descriptor, path):
                return descriptor
        except BlockingIOError as error:
            holder = os.read(descriptor, 20).decode(errors="replace").strip()
            os.close(descriptor)
            raise Locked(f"process {holder}" if holder.isdecimal() else "another process") from error
        except OSError as error:
            if error.errno in NO_LOCKS:
                return descriptor
            os.close(descriptor)
            raise
        os.close(descriptor)  # whoever held it has removed it meanwhile: once more


def _is_file_at(descriptor, path):
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
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
