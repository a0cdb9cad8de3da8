"""Fetch a file over HTTP so that it is either whole and what was published, or not there."""

import contextlib
import hashlib
import queue
import socket
import threading
import time
from http.client import responses
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from tqdm import tqdm

from npvae.files import remove_stale, replacing

CHUNK = 1 << 16  # bytes
WAITING = 16  # chunks that have arrived and are not written yet, at most
TIMEOUT = (5, 20)  # seconds to connect, seconds without a byte
PATIENCE, SLOWEST = 30, 5_000  # seconds, and from then on bytes per second on average, or the next mirror is tried
REDIRECTS = 5


class DownloadError(Exception):
    """No mirror had the file; the message is one line that says what each answered."""


def download(urls, path, size, sha256, timeout=TIMEOUT, patience=PATIENCE, progress=None):
    """Fetch a file from the first mirror that has it.

    Parameters
    ----------
    urls : list of str
        Mirrors, tried in order.
    path : str or Path
        Appears only when the file is whole and its hash is right; until then the bytes lie in a temporary file beside
        it, which goes when this fails or is interrupted. Its folder is made.
    size : int
        Bytes of the file; what is longer is given up.
    sha256 : str
        Hash of the file, in hexadecimal.
    timeout : (float, float)
        Seconds to connect, and seconds without a byte before the next mirror is tried.
    patience : float
        Seconds after which a mirror must keep up with `SLOWEST`: so every download ends.
    progress : bool, optional
        Show a bar; by default only on a terminal.

    Raises
    ------
    DownloadError
        If no mirror has the file, whole, in time.
    OSError
        If it cannot be written.
    """
    path = Path(path)
    failures = []
    for url in urls:
        try:
            return _fetch(_received(url, timeout, patience), path, size, sha256, progress)
        except DownloadError as error:
            failures.append(f"{urlsplit(url).netloc}: {error}")
    raise DownloadError(f"{path.name} could not be downloaded ({'; '.join(failures)})")


def _fetch(chunks, path, size, sha256, progress):
    """Write the chunks of a file to `path`, if they are what they should be."""
    disable = None if progress is None else not progress  # None: a bar on a terminal only
    digest = hashlib.sha256()
    with contextlib.closing(chunks):
        next(chunks)
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(path.parent)
        with (
            replacing(path) as file,
            tqdm(total=size, desc=path.name, unit="B", unit_scale=True, disable=disable, leave=False) as bar,
        ):
            for chunk in chunks:
                if file.tell() + len(chunk) > size:
                    raise DownloadError(f"more than the {size:,} bytes that were published")
                file.write(chunk)
                digest.update(chunk)
                bar.update(len(chunk))
            if digest.hexdigest() != sha256:
                raise DownloadError(
                    f"{file.tell()} bytes with SHA-256 {digest.hexdigest()[:8]}…, expected {sha256[:8]}…"
                )


def _received(url, timeout, patience):
    """The chunks of a file as they arrive, the first, an empty one, when the mirror has said that it has the file.

    A thread waits for them: a mirror that sends a byte now and then is never late for the time limit of a socket. When
    it is given up, its connections are shut down, and it ends.
    """
    arrived, given_up, connections = queue.Queue(WAITING), threading.Event(), []

    def connected(connection):
        connections.append(connection)
        if given_up.is_set():  # while it connected
            _shut_down(connection)

    def receive():
        try:
            for chunk in _chunks(url, timeout, connected):
                arrived.put(chunk)
                if given_up.is_set():
                    return
            arrived.put(None)
        except Exception as error:  # whatever a server, or what claims to be one, leads to
            arrived.put(DownloadError(_reason(error)))

    began, count = time.monotonic(), 0
    threading.Thread(target=receive, daemon=True).start()
    try:
        while True:
            left = patience + count / SLOWEST - (time.monotonic() - began)
            item = arrived.get(timeout=max(left, 0))
            if item is None:
                return
            if isinstance(item, DownloadError):
                raise item
            count += len(item)
            yield item
    except queue.Empty:
        raise DownloadError(f"too slow: {count:,} bytes in {time.monotonic() - began:.0f} s") from None
    finally:
        given_up.set()
        for connection in connections:
            _shut_down(connection)
        with contextlib.suppress(queue.Empty):
            while True:  # so that the thread, if it waits for room, goes on to its end
                arrived.get_nowait()


def _shut_down(connection):
    with contextlib.suppress(OSError):  # it is closed already
        connection.shutdown(socket.SHUT_RDWR)


class _Adapter(requests.adapters.HTTPAdapter):
    """What requests connects with; tells `connected` of each socket."""

    def __init__(self, connected):
        super().__init__()
        self.connected = connected

    def get_connection_with_tls_context(self, *arguments, **options):
        pool, connected = super().get_connection_with_tls_context(*arguments, **options), self.connected

        class Connection(pool.ConnectionCls):
            def connect(self):
                super().connect()
                connected(self.sock)

        pool.ConnectionCls = Connection
        return pool


class _Session(requests.Session):
    """A session that follows no redirects: in following one, requests reads its body, however long, into memory."""

    def __init__(self, connected):
        super().__init__()
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(connected))

    def get_redirect_target(self, resp):
        return None


def _chunks(url, timeout, connected):
    """The chunks of the answer's body, after an empty one for its head; nothing but a body that is wanted is read."""
    # a server that packs what it sends would change the bytes of a .gz: ask for them as they are, do not decode
    headers = {"Accept-Encoding": "identity"}
    for _ in range(REDIRECTS + 1):
        with (
            _Session(connected) as session,
            session.get(url, headers=headers, stream=True, timeout=timeout) as response,
        ):
            if response.is_redirect:
                url = urljoin(url, response.headers["Location"])
                continue
            code = response.status_code
            if code != 200:
                raise DownloadError(f"{code} {responses.get(code, '')}".rstrip())
            yield b""
            yield from response.raw.stream(CHUNK, decode_content=False)
            return
    raise DownloadError(f"more than {REDIRECTS} redirects")


def _reason(error):
    """What went wrong, without the layers of wrapping."""
    if isinstance(error, DownloadError):
        return str(error)
    if isinstance(error, requests.ConnectionError) and isinstance(error.args[0], urllib3.exceptions.ProtocolError):
        error = error.args[0]  # connected, and then dropped before the answer
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
        return "no answer in time"
    if isinstance(error, (urllib3.exceptions.ProtocolError, requests.exceptions.ChunkedEncodingError)):
        return "the connection broke off"
    if isinstance(error, (requests.exceptions.SSLError, urllib3.exceptions.SSLError)):
        return "no secure connection"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return f"not an answer that makes sense ({type(error).__name__})"
