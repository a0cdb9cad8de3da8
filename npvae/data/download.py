"""Fetch a file over HTTP so that it is either whole and what was published, or not there."""

import hashlib
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3
from tqdm import tqdm

from npvae.files import replacing

CHUNK = 1 << 16  # bytes
TIMEOUT = (5, 20)  # seconds to connect, seconds without a byte


class DownloadError(Exception):
    """No mirror had the file; the message is one line that says what each answered."""


def download(urls, path, sha256, timeout=TIMEOUT, progress=None):
    """Fetch a file from the first mirror that has it.

    Parameters
    ----------
    urls : list of str
        Mirrors, tried in order.
    path : str or Path
        Appears only when the file is whole and its hash is right; until then the bytes lie in a temporary file beside
        it, which goes when this fails or is interrupted.
    sha256 : str
        Hash of the file, in hexadecimal.
    timeout : (float, float)
        Seconds to connect, and seconds without a byte before the next mirror is tried.
    progress : bool, optional
        Show a bar; by default only on a terminal.

    Raises
    ------
    DownloadError
        If no mirror has the file.
    OSError
        If it cannot be written.
    """
    path = Path(path)
    failures = []
    for url in urls:
        try:
            return _fetch(url, path, sha256, timeout, progress)
        except (requests.RequestException, urllib3.exceptions.HTTPError, DownloadError) as error:
            failures.append(f"{urlsplit(url).netloc}: {_reason(error)}")
    raise DownloadError(f"{path.name} could not be downloaded ({'; '.join(failures)})")


def _fetch(url, path, sha256, timeout, progress):
    # a server that packs what it sends would change the bytes of a .gz: ask for them as they are, do not decode
    headers = {"Accept-Encoding": "identity"}
    disable = None if progress is None else not progress  # None: a bar on a terminal only
    digest = hashlib.sha256()
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
        if response.status_code != 200:
            raise DownloadError(f"{response.status_code} {response.reason}")
        size = response.headers.get("Content-Length", "")
        total = int(size) if size.isdecimal() else None
        with (
            replacing(path) as file,
            tqdm(total=total, desc=path.name, unit="B", unit_scale=True, disable=disable, leave=False) as bar,
        ):
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                file.write(chunk)
                digest.update(chunk)
                bar.update(len(chunk))
            if digest.hexdigest() != sha256:
                raise DownloadError(
                    f"{file.tell()} bytes with SHA-256 {digest.hexdigest()[:8]}…, expected {sha256[:8]}…"
                )


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
    return f"{type(error).__name__}"
