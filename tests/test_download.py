import contextlib
import gzip
import hashlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import requests

from npvae.data.download import DownloadError, download
from tests.conftest import heeding

FILE = gzip.compress(np.random.default_rng(0).bytes(300_000), mtime=0)  # many chunks
SHA256 = hashlib.sha256(FILE).hexdigest()
WHOLE, HALF = len(FILE), len(FILE) // 2
WEB_PAGE = b"<!DOCTYPE html>\n<title>Welcome to the hotel</title>"
NAME = "a-file.gz"


class Mirror(BaseHTTPRequestHandler):
    """Serves FILE at /good/…, and goes wrong at every other address in the way that the address says."""

    def do_GET(self):
        getattr(self, self.path.split("/")[1])()

    def start(self, status=200, length=WHOLE, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def send(self, content, **headers):
        self.start(length=len(content), **headers)
        self.wfile.write(content)

    def good(self):
        self.send(FILE)

    def without_length(self):
        self.start(length=None)
        self.wfile.write(FILE)

    def in_pieces(self):
        self.start()
        for i in range(0, WHOLE, 30_001):
            self.wfile.write(FILE[i : i + 30_001])
            time.sleep(0.01)

    def labelled_as_packed(self):
        self.send(FILE, Content_Encoding="gzip", Content_Type="application/x-gzip")

    def redirect(self):
        self.start(302, 0, Location=f"/good/{NAME}")

    def both_at_once(self):
        self.start()
        self.wfile.write(FILE[:HALF])
        with contextlib.suppress(threading.BrokenBarrierError):
            self.server.barrier.wait(20)  # both clients have half of the file
        self.wfile.write(FILE[HALF:])

    def truncated(self):
        self.start()
        self.wfile.write(FILE[:-1])

    def truncated_without_length(self):
        self.start(length=None)
        self.wfile.write(FILE[:-1])

    def corrupted(self):
        self.send(FILE[:HALF] + bytes([FILE[HALF] ^ 1]) + FILE[HALF + 1 :])

    def too_long(self):
        self.send(FILE + b"\0")

    def empty(self):
        self.send(b"")

    def web_page(self):
        self.send(WEB_PAGE, Content_Type="text/html")

    def not_http(self):
        self.wfile.write(b"220 mail.example.org ESMTP\r\n\r\n")

    def forbidden(self):
        self.send_error(403)

    def missing(self):
        self.send_error(404)

    def failing(self):
        self.send_error(500)

    def endless_redirect(self):
        self.start(302, 0, Location=self.path)

    def redirect_to_missing(self):
        self.start(302, 0, Location=f"/missing/{NAME}")

    def stalled(self):
        self.start()
        self.wfile.write(FILE[:HALF])
        self.server.release.wait(10)

    def stalled_before_headers(self):
        self.server.release.wait(10)

    def trickling(self):
        self.start()
        with contextlib.suppress(OSError):
            while not self.server.release.wait(0.05):
                self.wfile.write(b".")

    def endless_continue(self):
        self.connection.settimeout(1)  # a client that was shut down may stop to read without a word
        with contextlib.suppress(OSError):
            while not self.server.release.is_set():
                self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)

    def endless(self):
        self.start(length=None)
        with contextlib.suppress(OSError):
            while not self.server.release.is_set():
                self.wfile.write(bytes(1 << 20))

    def endless_body_of_a_redirect(self):
        self.start(302, None, Location=f"/good/{NAME}")
        with contextlib.suppress(OSError):
            while not self.server.release.is_set():
                self.wfile.write(bytes(1 << 20))

    def redirect_to_nonsense(self):
        self.start(302, 0, Location="http://[")

    def redirect_to_a_file(self):
        self.start(302, 0, Location="file:///etc/hostname")

    def negative_length(self):
        self.start(length=-5)

    def length_of_5000_digits(self):
        self.start(length="9" * 5000)

    def rude(self):
        self.send_response(404, "\x1b[2J\x1b]0;Gotcha\x07")
        self.end_headers()

    def dropped(self):
        self.close_connection = True

    def reset(self):
        self.start()
        self.wfile.write(FILE[:HALF])
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()  # holds the socket open
        self.connection.close()

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = False  # so that server_close waits for the handlers

    def handle_error(self, *_):
        pass  # clients that go away are the point


FAULTS = {  # what the message says of each
    "truncated": "the connection broke off",
    "truncated_without_length": f"{WHOLE - 1} bytes with SHA-256 .*, expected {SHA256[:8]}",
    "corrupted": f"{WHOLE} bytes with SHA-256 .*, expected {SHA256[:8]}",
    "too_long": f"more than the {WHOLE:,} bytes that were published",
    "empty": "0 bytes with SHA-256",
    "web_page": f"{len(WEB_PAGE)} bytes with SHA-256",
    "not_http": "the connection broke off",
    "forbidden": "403 Forbidden",
    "missing": "404 Not Found",
    "failing": "500 Internal Server Error",
    "endless_redirect": "more than 5 redirects",
    "redirect_to_missing": "404 Not Found",
    "trickling": r"too slow: \d+ bytes in \d+ s",
    "endless_continue": r"too slow: 0 bytes in \d+ s",
    "endless": "more than the 300,.* bytes that were published",
    "redirect_to_nonsense": "not an answer that makes sense",
    "redirect_to_a_file": "not an answer that makes sense",
    "negative_length": "0 bytes with SHA-256",
    "length_of_5000_digits": "not an answer that makes sense|0 bytes",
    "rude": "404 Not Found",
    "stalled": "no answer in time",
    "stalled_before_headers": "no answer in time",
    "dropped": "the connection broke off",
    "reset": "the connection broke off",
}
SLOW = ("trickling", "endless_continue")  # never late for the time limit of a socket


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(("127.0.0.1", 0), Mirror) as server:
        server.release, server.barrier = threading.Event(), threading.Barrier(2)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.release.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def url(server):
    return lambda behaviour: f"http://127.0.0.1:{server.server_port}/{behaviour}/{NAME}"


@pytest.fixture
def closed_port():
    """A port that is taken, so that nobody else listens there, and where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def timeout_for(fault, short):
    return (20, short) if "stalled" in fault else (20, 20)


@pytest.mark.parametrize(
    "behaviour",
    ["good", "without_length", "in_pieces", "labelled_as_packed", "redirect", "endless_body_of_a_redirect"],
)
def test_the_file_arrives_as_it_was_published(tmp_path, url, behaviour):
    download([url(behaviour)], str(tmp_path / "new" / "folder" / NAME), WHOLE, SHA256)
    assert files(tmp_path / "new" / "folder") == {NAME: FILE}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_mirror_is_followed_by_the_next(tmp_path, url, fault):
    patience = 2 if fault in SLOW else 30
    download([url(fault), url("good"), url("missing")], tmp_path / NAME, WHOLE, SHA256, timeout_for(fault, 1), patience)
    assert files(tmp_path) == {NAME: FILE}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("old", [None, b"an older file"])
def test_a_fault_is_told_in_one_line_and_leaves_what_was_there(tmp_path, server, url, fault, old):
    if old:
        (tmp_path / NAME).write_bytes(old)
    patience = 0.6 if fault in SLOW else 30
    with pytest.raises(DownloadError) as error:
        download([url(fault)], tmp_path / NAME, WHOLE, SHA256, timeout_for(fault, 0.2), patience)
    assert files(tmp_path) == ({NAME: old} if old else {})
    message = str(error.value)
    assert NAME in message
    assert f"127.0.0.1:{server.server_port}: " in message
    assert message.isprintable()
    assert re.search(FAULTS[fault], message)


@pytest.mark.parametrize("fault", [*SLOW, "stalled_before_headers"])
def test_nothing_waits_for_a_mirror_that_was_given_up(tmp_path, url, fault):
    before = set(threading.enumerate())
    with pytest.raises(DownloadError, match="too slow"):
        download([url(fault)], tmp_path / NAME, WHOLE, SHA256, timeout=(20, 20), patience=0.6)
    workers = [thread for thread in set(threading.enumerate()) - before if thread.daemon]  # the server's are not
    for thread in workers:
        thread.join(5)
    assert not any(thread.is_alive() for thread in workers)


def test_a_port_where_nobody_listens_is_told_and_skipped(tmp_path, url, closed_port):
    closed = f"http://127.0.0.1:{closed_port}/{NAME}"
    with pytest.raises(DownloadError, match=f"^{NAME} .*127.0.0.1:{closed_port}: no connection"):
        download([closed], tmp_path / NAME, WHOLE, SHA256)
    assert files(tmp_path) == {}
    download([closed, url("good")], tmp_path / NAME, WHOLE, SHA256)
    assert files(tmp_path) == {NAME: FILE}


def test_a_secure_connection_that_fails_is_told_as_such(tmp_path, url):
    with pytest.raises(DownloadError, match=r"127.0.0.1:\d+: no secure connection"):
        download([url("good").replace("http:", "https:")], tmp_path / NAME, WHOLE, SHA256)


def test_the_message_says_what_each_mirror_answered(tmp_path, url, closed_port):
    with pytest.raises(DownloadError, match=r"403 Forbidden; .*404 Not Found; .*no connection") as error:
        download([url("forbidden"), url("missing"), f"http://127.0.0.1:{closed_port}/"], tmp_path / NAME, WHOLE, SHA256)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_written_is_not_blamed_on_the_mirror(tmp_path, url):
    (tmp_path / "a-file-in-place-of-the-folder").touch()
    with pytest.raises(OSError, match="a-file-in-place") as error:
        download([url("good")], tmp_path / "a-file-in-place-of-the-folder" / NAME, WHOLE, SHA256)
    assert not isinstance(error.value, requests.RequestException)


@pytest.mark.parametrize("progress", [True, False])
def test_progress_is_shown_when_asked_for(tmp_path, url, capfd, progress):
    download([url("good")], tmp_path / NAME, WHOLE, SHA256, progress=progress)
    assert (NAME in capfd.readouterr().err) == progress


@contextlib.contextmanager
def in_another_process(url, path):
    """Python that downloads `url` to `path`; Ctrl-C works in it even where the tests run in the background."""
    code = (
        "import sys; from npvae.data.download import download; url, path, size, sha256 = sys.argv[1:]\n"
        "download([url], path, int(size), sha256, (20, 60))"
    )
    command = [sys.executable, "-c", code, url, str(path), str(WHOLE), SHA256]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, preexec_fn=heeding, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def test_two_processes_that_fetch_the_same_file_at_once_both_succeed(tmp_path, server, url):
    with (
        in_another_process(url("both_at_once"), tmp_path / NAME) as one,
        in_another_process(url("both_at_once"), tmp_path / NAME) as other,
    ):
        assert [one.communicate(), other.communicate()] == [(None, ""), (None, "")]
        assert (one.returncode, other.returncode) == (0, 0)
    assert not server.barrier.broken  # they did overlap
    assert files(tmp_path) == {NAME: FILE}


@pytest.mark.parametrize("old", [None, b"an older file"])
@pytest.mark.parametrize("interruption", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_download_leaves_what_was_there(tmp_path, url, interruption, old):
    if old:
        (tmp_path / NAME).write_bytes(old)
    with in_another_process(url("stalled"), tmp_path / NAME) as process:
        while process.poll() is None and not any(name.endswith(".part") for name in os.listdir(tmp_path)):
            time.sleep(0.01)
        process.send_signal(interruption)
        stderr = process.communicate()[1]
    assert process.returncode == -interruption, stderr
    found = files(tmp_path)
    if interruption == signal.SIGKILL:  # gives no chance to tidy up: the part stays, under a name of its own
        found = {name: content for name, content in found.items() if not name.endswith(".part")}
    assert found == ({NAME: old} if old else {})
