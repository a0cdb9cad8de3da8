"""Exercises that together are a VAE, and verdicts that name the mistake; see `python -m npvae.exercises --help`.

`check` and `expect` are for notebooks: they look at what is given to them, and return a verdict.
"""

import contextlib
import signal
import threading

import numpy as np

TIME_LIMIT = 10.0  # seconds


def check(function, name=None):
    """The verdict on one of your functions, by its name: what is wrong with it, and which mistake it is.

    Parameters
    ----------
    function : callable
        In place of a function of the exercises, such as `gaussian_kl`.
    name : str, optional
        The exercise's name for it, if yours has another.

    Returns
    -------
    Verdict
        Shown by itself at the end of a cell; `passed` says whether it is right.

    Raises
    ------
    TypeError
        If it is not a function.
    ValueError
        If no exercise has a function of this name.
    """
    from npvae.exercises.course import WRITTEN, exercise, solved
    from npvae.exercises.judge import judge
    from npvae.exercises.outcome import OutOfTime
    from npvae.exercises.verdict import Verdict

    if not callable(function):
        raise TypeError(f"check takes a function, as in check(gaussian_kl), not {function!r}")
    if name is not None and not isinstance(name, str):
        raise TypeError("check takes one function, and if need be its name in the exercises")
    name = name or getattr(function, "__name__", type(function).__name__)
    tasks = [exercise(number) for number in range(1, len(WRITTEN) + 1)]
    task = next((task for task in tasks if name in task.functions), None)
    if task is None:
        names = ", ".join(name for task in tasks for name in task.functions)
        raise ValueError(f"no exercise has a function {name!r}; check(function, name) with one of {names}")
    try:
        with time_limit():
            return judge(function, name, task, solved(), siblings=True)
    except OutOfTime:
        return Verdict(
            name, False, f"does not come to an end within {TIME_LIMIT:g} seconds", ["Is there an endless loop?"]
        )


def expect(answer, right, mistakes=None, within=1e-6):
    """The verdict on an answer: a number, an array, or a function without arguments that returns one.

    Parameters
    ----------
    answer : number, array, callable or None
        None, or a function that raises NotImplementedError, is no answer yet.
    right : number or array
    mistakes : dict of str to number or array
        A sentence about a mistake → the answer that it leads to.
    within : float
        How far an answer may be off, relative to the largest entry.

    Returns
    -------
    Verdict
    """
    from npvae.exercises.outcome import OutOfTime, stopped
    from npvae.exercises.verdict import Verdict

    try:
        with time_limit():
            answer = answer() if callable(answer) else answer
    except NotImplementedError:
        answer = None
    except OutOfTime:
        return Verdict("your answer", False, f"does not come to an end within {TIME_LIMIT:g} seconds")
    except Exception as error:
        what, details = stopped(error)
        return Verdict("your answer", False, f"stops: {what}", list(details))
    if answer is None or answer is ...:
        return Verdict("your answer", False, "not answered yet")

    if equal(answer, right, within):
        return Verdict("your answer", True, "right")
    sentence = next((sentence for sentence, value in (mistakes or {}).items() if equal(answer, value, within)), None)
    if sentence is not None:
        return Verdict("your answer", False, "not right", [sentence])
    with contextlib.suppress(ValueError):
        if np.shape(answer) != np.shape(right):
            return Verdict("your answer", False, f"has the shape {np.shape(answer)}, expected {np.shape(right)}")
    shown = " ".join(np.array2string(np.asarray(answer, object), threshold=12).split())
    return Verdict("your answer", False, f"{shown}, expected something else")


def equal(answer, value, within):
    """Whether an answer is a value, up to so much of its largest entry."""
    try:
        a, b = np.asarray(answer), np.asarray(value)
    except ValueError:  # lists of several lengths
        return False
    if a.dtype.kind not in "biuf" or b.dtype.kind not in "biuf":
        return bool(np.array_equal(a, b))
    return a.shape == b.shape and bool(np.all(np.abs(a - b.astype(float)) <= within * np.abs(b).max(initial=0)))


@contextlib.contextmanager
def time_limit():
    """Raise `OutOfTime` when the limit is over; where a thread or a system knows no alarm, there is no limit."""
    from npvae.exercises.outcome import OutOfTime

    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        return

    def out_of_time(number, frame):
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, out_of_time)
    signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
