import contextlib
import gzip
import hashlib
import os
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

FILE = gzip.compress(np.random.default_rng(0).bytes(300_000), mtime=0)  # many chunks
SHA256 = hashlib.sha256(FILE).hexdigest()
HALF = len(FILE) // 2
WEB_PAGE = b"<!DOCTYPE html>\n<title>Welcome to the hotel</title>"
NAME = "a-file.gz"


class Mirror(BaseHTTPRequestHandler):
    """Serves FILE at /good/…, and goes wrong at every other address in the way that the address says."""

    def do_GET(self):
        getattr(self, self.path.split("/")[1])()

    def start(self, status=200, length=len(FILE), **headers):
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
        for i in range(0, len(FILE), 30_001):
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
        self.server.release.wait(30)

    def stalled_before_headers(self):
        self.server.release.wait(30)

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
    "truncated_without_length": f"{len(FILE) - 1} bytes with SHA-256 .*, expected {SHA256[:8]}",
    "corrupted": f"{len(FILE)} bytes with SHA-256 .*, expected {SHA256[:8]}",
    "too_long": f"{len(FILE) + 1} bytes with SHA-256",
    "empty": "0 bytes with SHA-256",
    "web_page": f"{len(WEB_PAGE)} bytes with SHA-256",
    "not_http": "the connection broke off",
    "forbidden": "403 Forbidden",
    "missing": "404 Not Found",
    "failing": "500 Internal Server Error",
    "endless_redirect": "TooManyRedirects",
    "redirect_to_missing": "404 Not Found",
    "stalled": "no answer in time",
    "stalled_before_headers": "no answer in time",
    "dropped": "the connection broke off",
    "reset": "the connection broke off",
}


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


@pytest.mark.parametrize("behaviour", ["good", "without_length", "in_pieces", "labelled_as_packed", "redirect"])
def test_the_file_arrives_as_it_was_published(tmp_path, url, behaviour):
    download([url(behaviour)], str(tmp_path / "new" / "folder" / NAME), SHA256)
    assert files(tmp_path / "new" / "folder") == {NAME: FILE}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_mirror_is_followed_by_the_next(tmp_path, url, fault):
    download([url(fault), url("good"), url("missing")], tmp_path / NAME, SHA256, timeout_for(fault, 1.5))
    assert files(tmp_path) == {NAME: FILE}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("old", [None, b"an older file"])
def test_a_fault_is_told_in_one_line_and_leaves_what_was_there(tmp_path, server, url, fault, old):
    if old:
        (tmp_path / NAME).write_bytes(old)
    with pytest.raises(DownloadError) as error:
        download([url(fault)], tmp_path / NAME, SHA256, timeout_for(fault, 0.2))
    assert files(tmp_path) == ({NAME: old} if old else {})
    message = str(error.value)
    assert NAME in message
    assert f"127.0.0.1:{server.server_port}: " in message
    assert "\n" not in message
    if fault == "reset":  # the system may throw away what arrived before, the headers too
        message = message.replace("no connection", FAULTS["reset"])
    pytest.raises(AssertionError) if False else None
