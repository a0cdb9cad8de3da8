"""A learner's folder: written once, and checked file by file, each in a process that a time limit can end."""

import contextlib
import errno
import json
import os
import shlex
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from npvae.exercises.course import MODULES, SOLUTIONS, exercise
from npvae.exercises.processes import Processes
from npvae.exercises.verdict import Verdict
from npvae.files import replacing

TIME_LIMIT = 5.0  # seconds for each function
HINTS = ".hints.json"
LARGEST, LARGEST_NUMBER = 1 << 20, 100  # of files with a learner's code: bytes, and how many


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
    text : str
        Of the file.
    """

    exercise: object
    functions: list
    problem: Verdict | None = None
    text: str = ""

    @property
    def passed(self):
        return self.problem is None and all(verdict.passed for verdict in self.functions)

    @property
    def verdicts(self):
        """What a learner is told: the problem, or what is found of each function."""
        return [self.problem] if self.problem else self.exercise.told(self.functions, self.text)

    @property
    def untouched(self):
        """Whether the file is as it was at the start."""
        return self.exercise.untouched(self.text)

    @property
    def graded(self):
        """What counts: a verdict for each thing that is asked, also where the file as a whole has a problem."""
        if self.problem is None:
            return self.verdicts[: len(self.exercise.told_of)]
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
    """Check these exercises, several at once; yields a `Result` for each, in their order."""
    processes, pool = Processes(), ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        yield from pool.map(lambda number: check_file(folder, number, time_limit, processes), numbers)
    finally:  # also at Ctrl-C
        processes.end()
        pool.shutdown(cancel_futures=True)


def check_file(folder, number, time_limit, processes):
    """Check one exercise in a copy of the folder: what its functions do to files is done to the copy."""
    task = exercise(number)
    path = folder / task.file
    try:
        text = contents(path)
    except OSError as error:
        again = f"`python -m npvae.exercises start {shlex.quote(str(folder))}` writes it again."
        there = os.path.lexists(path)
        said = f"cannot be read: {error.strerror}" if there else "is not there"
        return Result(task, [], Verdict(task.file, False, said, [] if there else [again]))
    with tempfile.TemporaryDirectory(prefix="npvae-exercise-", ignore_cleanup_errors=True) as copy:
        for other in sorted(folder.glob("*.py"))[:LARGEST_NUMBER]:  # a learner's own modules, too
            with contextlib.suppress(OSError):
                (Path(copy) / other.name).write_bytes(contents(other))
        (Path(copy) / task.file).write_bytes(text)
        found, problem = {}, None
        while problem is None and len(found) < len(task.functions):
            problem = processes.run(task, copy, found, time_limit)
    functions = [found[name] for name in task.functions] if problem is None else []
    return Result(task, functions, problem, text.decode(errors="replace").replace("\r\n", "\n"))


def contents(path):
    """The bytes of a file; an OSError where it is no ordinary one, or too large to be an exercise."""
    stat = path.stat()
    if not S_ISREG(stat.st_mode):
        raise OSError(errno.EINVAL, "it is not a file", str(path))
    if stat.st_size > LARGEST:
        raise OSError(errno.EFBIG, f"it has {stat.st_size:,} bytes", str(path))
    return path.read_bytes()


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
    except (OSError, ValueError, AttributeError, KeyError, RecursionError):
        given, last = {}, -1
    which = min(max(last, -1) + 1, count - 1)
    with contextlib.suppress(OSError):  # a folder that cannot be written to: the first hint, each time
        with replacing(path) as file:
            file.write(json.dumps(given | {key: which} if isinstance(given, dict) else {key: which}).encode())
    return which
