"""Checks one file in a process of its own: `python child.py TOKEN NUMBER [DONE…]`, in a copy of the folder.

What it finds goes to standard output, a line each, the token and JSON: {"ready": …}, {"begin": function},
{"ran": function}, {"verdict": …}; or {"problem": …} if the file as a whole cannot be used. Whatever the learner's code
prints goes nowhere, or into a verdict.
"""

import ast
import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import time
import types
from pathlib import Path

from npvae.exercises.course import exercise, solved
from npvae.exercises.judge import judge
from npvae.exercises.outcome import stopped
from npvae.exercises.verdict import Verdict
from npvae.exercises.watch import Watch

MEMORY = 4 << 30  # bytes of address space


def main():
    token, number, *done = sys.argv[1:]
    task = exercise(int(number))
    out, process, as_json = os.fdopen(os.dup(1), "w", encoding="utf-8"), os.getpid(), json.dumps
    with open(os.devnull, "r+b") as nowhere:
        for descriptor in (0, 1, 2):
            os.dup2(nowhere.fileno(), descriptor)

    def say(**message):
        if os.getpid() == process:  # and not one that a learner's code forked
            out.write(f"{token}{as_json(message)}\n")
            out.flush()

    others = {name: _with_helpers(module, name) for name, module in solved().items() if name < task.module}
    limit_resources()
    end_with_parent(os.getppid())
    say(ready=True)
    file = Path(task.file)
    module = types.ModuleType(task.module)
    module.__file__ = str(file.resolve())
    sys.modules.update(others)
    sys.modules[task.module] = module
    sys.path.insert(0, str(Path.cwd()))
    problem = read(file, module)
    if problem:
        say(problem=problem.as_dict())
        return
    for name in task.functions:
        if name in done:
            continue
        say(begin=name)
        if not hasattr(module, name):
            verdict = Verdict(name, False, "is not there any more", [f"The file has no function `{name}`."])
        else:
            verdict = judged(getattr(module, name), name, task, others, ran=lambda name=name: say(ran=name))
        say(verdict=verdict.as_dict())


def judged(function, name, task, others, ran):
    """The verdict; where the judge itself fails, one that says so."""
    try:
        return judge(function, name, task, others, siblings=True, ran=ran)
    except Exception as error:
        details = [
            f"{type(error).__name__}: {error}"[:300],
            "Either it does something very unusual, or npvae has a mistake.",
        ]
        return Verdict(name, False, "could not be judged", details)


def read(file, module):
    """Run the file as a module; the verdict on what is wrong with it as a whole, or None."""
    try:
        source = file.read_bytes()
        tree = ast.parse(source, filename=str(file.resolve()))
    except (SyntaxError, ValueError) as error:
        line, text = getattr(error, "lineno", None), (getattr(error, "text", None) or "").rstrip()
        where = [f"in line {line} of {file.name}" + (f": `{text}`" if text else "")] if line else []
        return Verdict(file.name, False, f"is not valid Python: {getattr(error, 'msg', error)}", where)
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if any(name.split(".")[0] == "npvae" and not name.startswith("npvae.data") for name in names):
            return Verdict(
                file.name, False, f"imports npvae, in line {node.lineno}", ["Write it by hand: that is the exercise."]
            )
    watch = Watch()
    with watch:
        try:
            exec(compile(tree, str(file.resolve()), "exec"), module.__dict__)
        except ModuleNotFoundError as error:
            what, details = stopped(error)
            more = "NumPy and the files of the exercises are all that is needed."
            return Verdict(file.name, False, f"imports {error.name}, which is not installed", [*details[1:], more])
        except BaseException as error:
            what, details = stopped(error)
            return Verdict(file.name, False, f"stops when it is imported: {what}", list(details))
    if watch.changed:
        return Verdict(file.name, False, f"{watch.changed[0]}, when it is imported", watch.changed[1:])
    return None


def _with_helpers(module, name):
    """The solution of an earlier exercise; what it does not have, a learner's own helper, is taken from his file."""
    copy = types.ModuleType(name)
    copy.__dict__.update(vars(module))
    own = {}

    def missing(attribute):
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        if not own:
            own["__name__"] = name
            with contextlib.suppress(Exception):
                exec(compile(Path(f"{name}.py").read_bytes(), f"{name}.py", "exec"), own)
        if attribute not in own:
            raise AttributeError(f"{name}.py has no `{attribute}`")
        return own[attribute]

    copy.__getattr__ = missing
    return copy


def end_with_parent(parent):
    """So that no endless loop is left when the command itself is killed."""

    def look():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()
    with contextlib.suppress(OSError, AttributeError):  # where Linux is, it also ends what never lets a thread run
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG


def limit_resources():
    """No file of more than 10 MB, no more memory than `MEMORY`; where the system knows of such limits."""
    try:
        import resource
    except ImportError:
        return
    for kind, amount in {"RLIMIT_AS": MEMORY, "RLIMIT_FSIZE": 10 << 20, "RLIMIT_CORE": 0}.items():
        with contextlib.suppress(ValueError, OSError, AttributeError):
            resource.setrlimit(getattr(resource, kind), (amount, amount))


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])  # not the folder of this file, whose names are npvae's own
    main()
    os._exit(0)  # whatever threads a learner's code has left
