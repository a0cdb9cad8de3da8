"""A learner's folder: written once, and checked file by file, each in a process that a time limit can end."""

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from npvae.commands import UserError
from npvae.exercises.course import MODULES, SOLUTIONS, exercise
from npvae.exercises.judge import Verdict
from npvae.files import replacing

TIME_LIMIT = 5.0  # seconds for each function
STARTING = 60.0  # seconds that Python and NumPy may take to start on a busy machine
HINTS = ".hints.json"


@dataclass
class Result:
    """What was found in one file.

    Attributes
    ----------
    exercise : Exercise
    functions : list of Verdict
        On every function; empty if there is a problem.
    problem : Verdict or None
        What is wrong with the file as a whole.
    untouched : bool
        Whether the file is as it was at the start.
    """

    exercise: object
    functions: list
    problem: Verdict | None = None
    untouched: bool = False

    @property
    def passed(self):
        return self.problem is None and all(verdict.passed for verdict in self.functions)

    @property
    def verdicts(self):
        """What a learner is told: the problem, or what is found of each function."""
        return [self.problem] if self.problem else self.exercise.told(self.functions)

    @property
    def graded(self):
        """What counts: a verdict for each thing that is asked, also where the file as a whole has a problem."""
        if self.problem is None:
            return self.verdicts
        first, *rest = self.problem.lines()
        return [Verdict(name, False, f"not run: {first}", rest) for name in self.exercise.told_of]


def start(folder, seed):
    """Write the files that are not there; returns their names, and those of the files that were there."""
    texts = {exercise(number).file: exercise(number).start(seed) for number in range(1, len(MODULES) + 1)}
    texts["train.py"] = (SOLUTIONS / "train.py").read_text(encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    written, kept = [], []
    for name, text in texts.items():
        path = folder / name
        try:
            with open(path, "x", encoding="utf-8", newline="\n") as file:
                try:
                    file.write(text)
                    file.flush()
                except BaseException:
                    path.unlink()  # nothing half-written
                    raise
        except FileExistsError:
            kept.append(name)
        else:
            written.append(name)
    return written, kept


def check(folder, numbers, time_limit=TIME_LIMIT):
    """Check these exercises, in their order; yields a `Result` for each."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        yield from pool.map(lambda number: check_file(folder, number, time_limit), numbers)


def check_file(folder, number, time_limit=TIME_LIMIT):
    """Check one exercise in a copy of the folder: what its functions do to files is done to the copy."""
    task = exercise(number)
    try:
        text = (folder / task.file).read_bytes()
    except OSError:
        return Result(task, [], Verdict(task.file, False, "is not there", ["`start` writes it again."]))
    with tempfile.TemporaryDirectory(prefix="npvae-exercise-", ignore_cleanup_errors=True) as copy:
        for name in MODULES[: number - 1]:
            with contextlib.suppress(OSError):
                shutil.copyfile(folder / f"{name}.py", Path(copy) / f"{name}.py")
        (Path(copy) / task.file).write_bytes(text)
        found, problem = {}, None
        while problem is None and len(found) < len(task.functions):
            problem = _run(task, copy, found, time_limit)
    functions = [found[name] for name in task.functions] if problem is None else []
    return Result(task, functions, problem, task.untouched(text.decode(errors="replace").replace("\r\n", "\n")))


def _run(task, copy, found, time_limit):
    """Check the functions that were not `found` yet, in one process; returns the problem of the whole file, if any."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), environment.get("PYTHONPATH", "")])
    environment["PYTHONUTF8"] = "1"
    process = subprocess.Popen(
        [sys.executable, "-m", "npvae.exercises.child", str(task.number), *found],
        cwd=copy,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=os.name == "posix",
    )
    lines = queue.Queue()
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    current, deadline, ready = None, time.monotonic() + STARTING, False
    try:
        while True:
            try:
                line = lines.get(timeout=max(deadline - time.monotonic(), 0))
            except queue.Empty:
                return _end(
                    task,
                    found,
                    current,
                    f"does not come to an end within {time_limit:g} seconds",
                    ["Is there an endless loop?"],
                )
            if line is None:
                code = process.wait()
                if code == 0 and len(found) == len(task.functions):
                    return None
                if not ready:
                    raise UserError(f"the process that checks {task.file} ended with {code} before it began")
                return _end(task, found, current, f"ends Python, with exit code {code}", [])
            message = json.loads(line)
            if "ready" in message:
                ready, deadline = True, time.monotonic() + time_limit
            elif "begin" in message:
                current, deadline = message["begin"], time.monotonic() + time_limit
            elif "ran" in message:
                deadline = time.monotonic() + STARTING
            elif "problem" in message:
                return Verdict(**message["problem"])
            else:
                found[message["verdict"]["function"]] = Verdict(**message["verdict"])
                current = None
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()
        process.wait()


def _read(stream, lines):
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)


def _end(task, found, current, headline, details):
    """A function, or the file as a whole, that did not let the process go on."""
    if current is None:
        return Verdict(task.file, False, f"{headline}, when it is imported", details)
    found[current] = Verdict(current, False, headline, details)
    return None


def is_folder(path):
    """Whether a path is a folder with exercises in it."""
    return any((path / f"{name}.py").is_file() for name in MODULES)


def next_hint(folder, number, name, count):
    """Which of `count` hints on a function comes next, from 0; kept in the folder, so that each call gives one more."""
    path = folder / HINTS
    key = f"{number}.{name}"
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        last = given[key] if isinstance(given.get(key), int) else -1
    except (OSError, ValueError, AttributeError, KeyError):
        given, last = {}, -1
    which = min(max(last, -1) + 1, count - 1)
    if count:
        with replacing(path) as file:
            file.write(json.dumps(given | {key: which} if isinstance(given, dict) else {key: which}).encode())
    return which
