"""The verdict on one function: whether it runs, what it returns, and which mistake gives just these numbers.

The function is tried on each case. What it returned is compared with what the solution returns, and where it is wrong,
with what the solution returns with each of the typical mistakes in it, with any two of them, and with any single
operator changed. Where none fits, the verdict gives the element, and what the numbers look like.
"""

import contextlib
import copy
import io
import itertools
import time
import warnings

import numpy as np

from npvae.diagnosis import diagnose
from npvae.exercises.course import Case, Mistake
from npvae.exercises.outcome import (
    OutOfTime,
    alike,
    alike_values,
    attempt,
    identical,
    in_float32,
    names_of,
    reordered,
)
from npvae.exercises.source import edited, loaded, mutants
from npvae.exercises.verdict import Verdict
from npvae.exercises.watch import Watch

SEARCH = 3.0  # seconds of the processor, for which mistakes are tried


def judge(function, name, exercise, others=(), siblings=False, ran=lambda: None):
    """The verdict on a learner's function; never raises.

    Parameters
    ----------
    function : callable
    name : str
        Its name in the exercise.
    exercise : Exercise
    others : dict of str to module
        What the exercise imports: the solutions of earlier ones.
    siblings : bool
        Whether the exercise's other functions, which this one may call, are replaced by the solution's: a function is
        then not blamed for another's mistake.
    ran : callable
        Called when the function has been run for the last time.
    """
    began = time.perf_counter()
    verdict = _judge(function, name, exercise, dict(others), siblings, ran)
    verdict.seconds = round(time.perf_counter() - began, 3)
    return verdict


def _judge(function, name, exercise, others, siblings, ran):
    spec = exercise.functions[name]
    if not callable(function):
        return Verdict(name, False, f"is {type(function).__name__}, not a function")
    solved = loaded(exercise.solution, exercise.module, others)
    solution = getattr(solved, name)
    cases = list(spec.cases)
    if spec.float32:
        cases.append(in_float32(spec.cases[0]))
    right = [attempt(solution, spec, case) for case in cases]
    watch = Watch()
    replace = [other for other in exercise.functions if siblings and other != name]
    with watch:
        arguments = [extended(case, spec, function) for case in cases]
        with replaced(function, vars(solved), replace):
            found = []
            for case, expected in zip(arguments, right, strict=True):
                found.append(attempt(function, spec, case, expected))
                watch.printed.first_call = False
            again = attempt(function, spec, arguments[0], right[0])
    ran()
    if found[0].stopped == "NotImplementedError" and not found[0].details:
        return Verdict(name, False, "not written yet")
    notes = watch.notes()
    if watch.changed:
        return Verdict(name, False, watch.changed[0], watch.changed[1:], read=spec.read, notes=notes)
    failing = next((i for i in range(len(cases)) if not alike(found[i], right[i])), None)
    if failing is None:
        return Verdict(name, True, "right", notes=notes)
    if not identical(found[0], again):
        why = "The same arguments must give the same result: the noise, or the generator, is an argument."
        return Verdict(name, False, "gives other numbers at each call", [why], read=spec.read, notes=notes)
    return wrong(name, exercise, others, cases, right, found, failing, notes)


def wrong(name, exercise, others, cases, right, found, failing, notes):
    """The verdict on a function that does not do what it should in the case number `failing`."""
    spec, outcome, case = exercise.functions[name], found[failing], cases[failing]
    if outcome.shapes:
        headline, details = f"{outcome.stopped} {case.name}", list(outcome.details)
    elif outcome.values is None:
        expected = f", expected a {right[failing].stopped}" if right[failing].values is None else ""
        headline, details = f"stops {case.name}: {outcome.stopped}{expected}", list(outcome.details)
    elif right[failing].values is None:
        returned = _shown(next(iter(outcome.values.values())))
        headline, details = f"returns {returned} {case.name}, expected a {right[failing].stopped}", []
    else:
        headline, details = f"wrong {case.name}", difference(outcome, right[failing], case, spec.probe is not None)
    compared = [i for i, case in enumerate(cases) if case.typical or i == failing]
    mistake = named(name, exercise, others, spec, cases, right, found, compared)
    if mistake is None:
        details += looks_like(outcome, right[failing], case)
        return Verdict(name, False, headline, details, "", "", spec.read, notes)
    mistake, everywhere = mistake
    read = mistake.read or spec.read
    return Verdict(name, False, headline, details, mistake.what, mistake.why, read, notes, everywhere)


def extended(case, spec, function):
    """The case with what a learner's other functions add to its arguments, where they do and can."""
    if spec.extended is None:
        return case
    try:
        return Case(case.name, **spec.extended(names_of(function), **copy.deepcopy(case.arguments)))
    except (KeyboardInterrupt, OutOfTime):
        raise
    except BaseException:
        return case


@contextlib.contextmanager
def replaced(function, solved, names):
    """Let what `function` calls by these names be the solution's."""
    place = names_of(function)
    before = {name: place.get(name) for name in names}
    place.update({name: solved[name] for name in names})
    try:
        yield
    finally:
        place.update(before)
        for name in names:
            if before[name] is None:  # it was not there
                del place[name]


# where it is wrong, and what it looks like


def first_wrong(outcome, right):
    """The name of the first value that is wrong; those on the way to a result come before the result."""
    wrong = [
        name for name, value in right.values.items() if not alike_values(outcome.values[name], value, right.single)
    ]
    return min(wrong, key=lambda name: "[" not in name), wrong


def difference(outcome, right, case, asked):
    """What of the result is furthest off, as a list of lines; `asked` are values that are told one by one."""
    name, wrong = first_wrong(outcome, right)
    a, b = outcome.values[name], right.values[name]
    right_ones = [other for other in right.values if other not in wrong]
    groups = {} if asked else {"Also wrong": [other for other in wrong if other != name], "Right": right_ones}
    also = [f"{what}: {', '.join(names)}." for what, names in groups.items() if 0 < len(names) <= 8]
    if not isinstance(a, np.ndarray) or not isinstance(b, (np.ndarray, float, np.floating)) or a.dtype.kind == "b":
        return [f"{name}: {_shown(a)}, expected {_shown(b)}", *also]
    a, b = a.astype(float), np.asarray(b, float)
    with np.errstate(all="ignore"):
        off = np.where(np.isfinite(a) & np.isfinite(b), np.abs(a - b), np.where(a == b, 0, np.inf))
    place = np.unravel_index(np.argmax(off), off.shape)
    where = f"{name}[{', '.join(map(str, map(int, place)))}]" if a.ndim else name
    found, expected = a[place] + 0.0, b[place] + 0.0  # −0 is 0
    digits = next((n for n in (6, 9, 12) if f"{found:.{n}g}" != f"{expected:.{n}g}"), 17)
    return [f"{where} is {found:.{digits}g}, expected {expected:.{digits}g}{given(case, place, b.shape)}", *also]


def given(case, place, shape):
    """The arguments that an element comes from, in words: the rows of its example, or the elements of its place."""
    shown = []
    for name, value in case.arguments.items():
        if not isinstance(value, np.ndarray) or not value.ndim or not shape or value.dtype.kind != "f":
            continue
        if value.shape == shape and len(shape) > 1:
            shown.append(f"{name}[{', '.join(map(str, map(int, place)))}] = {_number(value[place])}")
        elif value.ndim == 2 and len(shape) == 1 and len(value) == shape[0] and value.shape[1] <= 6:
            row = " ".join(map(_number, value[place[0]]))
            shown.append(f"{name}[{int(place[0])}] = [{row}]")
    return f", where {', '.join(shown)}" if 0 < len(shown) <= 3 else ""


def looks_like(outcome, right, case):
    """What a wrong result has in common with the right one, where they are arrays of numbers that can be compared."""
    if outcome.values is None or right.values is None:
        return []
    name, _ = first_wrong(outcome, right)
    a, b = outcome.values[name], right.values[name]
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        return []
    a, b = a.astype(float), np.asarray(b, float)
    if a.size < 2 or not np.isfinite(a).all() or not np.isfinite(b).all() or not b.any():
        return []
    bad = np.abs(a - b) > 1e-9 * np.abs(b).max()
    if not bad.any():
        return []
    others = {
        other: np.asarray(value, float)
        for other, value in right.values.items()
        if other != name and isinstance(value, np.ndarray) and value.dtype.kind == "f"
    }
    arguments = case.arguments | case.arguments.get("p", {})
    theta = np.asarray(arguments.get(name.removeprefix("d_"), np.zeros_like(b)), float)
    theta = theta if theta.shape == b.shape else np.zeros_like(b)
    found = diagnose(a, b, bad, theta, others, None, "the right one", "for")
    if not (name.startswith("d_") or "values" in case.arguments):  # the guesses are about derivatives
        found = found[:1]
    first, *rest = (f"{line[0].upper()}{line[1:]}{'' if line.endswith('?') else '.'}" for line in found)
    return [f"{name}: {first[0].lower()}{first[1:]}", *rest]


def _number(value):
    return f"{value:.6g}"


def _shown(value):
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return _shown(value[()])
    if isinstance(value, (float, np.floating)):
        return _number(value)
    text = np.array2string(value, precision=4, threshold=12) if isinstance(value, np.ndarray) else str(value)
    text = " ".join(text.split())
    return text if len(text) < 160 else text[:157] + "…"


# which mistake it is


def named(name, exercise, others, spec, cases, right, found, compared):
    """(mistake, whether it fits in all cases) that gives what was found in the cases to be compared, or None."""
    if all(_trivial(found[i]) for i in compared):
        return None
    began = time.process_time()

    def fits(source, which, listed):
        """Whether the solution with a mistake gives what was found."""
        function = source and function_in(source, name, exercise, others)
        telling = False  # an error of one kind has many causes: numbers must agree somewhere, or what the error says
        for i in which if function else ():
            outcome = attempt(function, spec, cases[i], right[i])
            if not alike(found[i], outcome):
                return False
            numbers = found[i].shapes or (found[i].values is not None and (listed or _finite(found[i], right[i])))
            telling |= not alike(found[i], right[i]) and (numbers or found[i].message == outcome.message)
        return telling

    def first(candidates, listed=False):
        """The first mistake that fits; rather one that also fits in the cases that are not compared."""
        in_time = itertools.takewhile(lambda _: time.process_time() - began < SEARCH, candidates)
        fitting = [(mistake, source) for mistake, source in in_time if fits(source, compared, listed)]
        everywhere = ((mistake, True) for mistake, source in fitting if fits(source, range(len(cases)), listed))
        return next(everywhere, (fitting[0][0], False)) if fitting else None

    with np.errstate(all="ignore"), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return (
            first(listed(exercise, name, spec), listed=True)
            or wrong_order(spec, right, found, compared)
            or first(pairs(exercise, name, spec))
            or first(operators(exercise, name))
        )


def listed(exercise, name, spec):
    """(mistake, source): each typical mistake."""
    return ((mistake, edited(exercise.solution, name, mistake.changes)) for mistake in spec.mistakes)


def pairs(exercise, name, spec):
    """Any two of the typical mistakes."""
    for one, other in itertools.combinations(spec.mistakes, 2):
        what, why = f"two things are wrong: {one.what}, and {other.what}", f"{one.why} {other.why}".strip()
        yield Mistake(what, why, read=one.read), edited(exercise.solution, name, [*one.changes, *other.changes])


def operators(exercise, name):
    """Any one operator, number or name of the solution changed."""
    for (before, after), source in mutants(exercise.solution, name):
        yield Mistake(f"there is `{after}` where npvae has `{before}`", ""), source


def wrong_order(spec, right, found, compared):
    """The right things, returned in another order than was asked for; or None."""
    for order in itertools.permutations(range(len(spec.outputs))):
        turned = [reordered(found[i], order, spec, right[i]) for i in compared]
        if all(outcome and alike(outcome, right[i]) for i, outcome in zip(compared, turned, strict=True)):
            returned = ", ".join(output for _, output in sorted(zip(order, spec.outputs, strict=True)))
            why = f"The order is {', '.join(spec.outputs)}."
            return Mistake(f"they are returned in the order {returned}", why), True
    return None


def function_in(source, name, exercise, others):
    try:
        return getattr(loaded(source, exercise.module, others), name)
    except Exception:
        return None


def _finite(outcome, right):
    """Whether there is a number in what is wrong: nan comes about in many ways."""
    if right.values is None:
        return True
    wrong = [
        value for name, value in outcome.values.items() if not alike_values(value, right.values[name], right.single)
    ]
    numbers = [value for value in wrong if isinstance(value, np.ndarray) and value.dtype.kind == "f"]
    return len(numbers) < len(wrong) or any(np.isfinite(value).any() for value in numbers)


def _trivial(outcome):
    """Whether an outcome tells nothing of how it came about: nothing but zeros, or nothing but nan."""
    values = list((outcome.values or {}).values())
    numbers = [value for value in values if isinstance(value, np.ndarray) and value.dtype.kind in "fiu"]
    return bool(values) and len(numbers) == len(values) and not any(np.nan_to_num(value).any() for value in numbers)
