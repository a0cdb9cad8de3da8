"""Processes that check a file each, and that a time limit, or Ctrl-C, can end; `child.py` is what they run."""

import contextlib
import json
import os
import queue
import secrets
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from npvae.commands import UserError
from npvae.exercises.verdict import Verdict

CHILD = Path(__file__).with_name("child.py")
STARTING = 60.0  # seconds that Python and NumPy may take to start, and a mistake to be found, on a busy machine
LINE = 1 << 20  # no message is longer


class Processes:
    """Those that run; `end` ends them all, and none begins after it."""

    def __init__(self):
        self.running, self.ended, self.lock = set(), False, threading.Lock()

    def end(self):
        with self.lock:
            self.ended = True
            for process in self.running:
                _kill(process)

    def run(self, task, folder, found, time_limit):
        """Check the functions of a file that were not `found` yet.

        Each verdict goes into `found`. The process, and with it the call, comes to its end when all functions have one,
        or when a function lets it go on no more; returns the problem of the file as a whole, if it has one.
        """
        current, ready = None, False
        with self._started(task, folder, found) as (process, lines):
            deadline = time.monotonic() + STARTING
            while True:
                try:
                    line = lines.get(timeout=max(deadline - time.monotonic(), 0))
                except queue.Empty:
                    said = f"does not come to an end within {time_limit:g} seconds", "Is there an endless loop?"
                    return _stuck(task, found, current, *said)
                if line is None:
                    if len(found) == len(task.functions):
                        return None
                    try:
                        code = process.wait(max(deadline - time.monotonic(), 0))
                    except subprocess.TimeoutExpired:
                        return _stuck(task, found, current, f"does not come to an end within {time_limit:g} seconds")
                    if not ready:
                        raise UserError(f"the process that checks {task.file} ended with {code} before it began")
                    return _stuck(task, found, current, f"ends Python, with exit code {code}")
                message = json.loads(line)
                if "problem" in message:
                    return Verdict(**message["problem"])
                if "verdict" in message:
                    found[message["verdict"]["function"]] = Verdict(**message["verdict"])
                ready, current = True, message.get("begin", current)
                deadline = time.monotonic() + (STARTING if "ran" in message else time_limit)

    @contextlib.contextmanager
    def _started(self, task, folder, found):
        """(the process, a queue of the messages that it writes and None at their end)."""
        threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | threads | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}
        token = secrets.token_hex(8)  # what a learner's code writes into our pipe is not taken for a message
        with self.lock:
            if self.ended:
                raise InterruptedError("no process begins any more")
            process = subprocess.Popen(
                [sys.executable, str(CHILD), token, str(task.number), *found],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=os.name == "posix",  # so that what it starts can be ended with it
            )
            self.running.add(process)
        lines = queue.Queue()
        threading.Thread(target=_read, args=(process.stdout, token.encode(), lines), daemon=True).start()
        try:
            yield process, lines
        finally:
            with self.lock:
                self.running.remove(process)
                _kill(process)
            process.wait()


def _kill(process):
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _read(stream, token, lines):
    with stream:
        while line := stream.readline(LINE):
            if line.startswith(token):
                lines.put(line[len(token) :])
    lines.put(None)


def _stuck(task, found, current, headline, *details):
    """A function, or the file as a whole, that did not let the process go on."""
    if current is None or current in found:
        return Verdict(task.file, False, f"{headline}, when it is imported", list(details))
    found[current] = Verdict(current, False, headline, list(details))
    return None
