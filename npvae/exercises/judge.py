"""The verdict on one function: whether it runs, what it returns, and which mistake gives just these numbers.

The function is tried on each case. What it returned is compared with what the solution returns, and where it is wrong,
with what the solution returns with each of the typical mistakes in it, with any two of them, and with any single
operator changed. Where none fits, the verdict gives the element, and what the numbers look like.
"""

import contextlib
import copy
import io
import itertools
import sys
import time
import traceback
import warnings
from dataclasses import asdict, dataclass, field

import numpy as np

from npvae.diagnosis import diagnose
from npvae.exercises.course import Case, Mistake
from npvae.exercises.source import edited, loaded, mutants

SEARCH = 3.0  # seconds of the processor, for which mistakes are tried
NOTHING_YET = ("not written yet", "not answered yet")
PRINTED = 200  # so many characters of what a function prints are shown


@dataclass
class Verdict:
    """What is to be said about one function.

    Attributes
    ----------
    function : str
    passed : bool
    headline : str
        What is the matter, in a few words; 'right' if nothing is.
    details : list of str
        Where, and how far off.
    mistake : str
        Which mistake it is, if it is known; why that is one, follows in `why`.
    read : str
        What to read about it.
    notes : list of str
        What is not wrong, but worth to know.
    """

    function: str
    passed: bool
    headline: str
    details: list = field(default_factory=list)
    mistake: str = ""
    why: str = ""
    read: str = ""
    notes: list = field(default_factory=list)
    seconds: float = 0.0

    def as_dict(self):
        return asdict(self)

    @property
    def mark(self):
        """✓, ✗, or · where there is nothing to judge yet."""
        return "✓" if self.passed else "·" if self.headline in NOTHING_YET else "✗"

    def lines(self):
        """The verdict in lines of text, without a mark."""
        said = [f"Exactly what comes out when {self.mistake}."] if self.mistake else []
        read = [f"Read: {self.read}."] if self.read else []
        return [
            f"{self.function}: {self.headline}",
            *self.details,
            *said,
            *filter(None, [self.why]),
            *read,
            *self.notes,
        ]

    def __str__(self):
        first, *rest = self.lines()
        return "\n".join([f"{self.mark} {first}", *(f"  {line}" for line in rest)])

    __repr__ = __str__

    def _repr_html_(self):
        from npvae.exercises.report import as_html

        return as_html(self)


class Wrong(Exception):
    """What a function returned, or did, that cannot be compared; the message is the verdict."""


@dataclass
class Outcome:
    """What came of one call: named arrays, or what stopped it."""

    values: dict | None
    stopped: str = ""  # the error's type, or what is wrong with the shapes
    details: tuple = ()
    shapes: bool = False  # whether something of a wrong shape or type was returned
    returned: object = None  # that
    single: bool = False  # whether it came of float32 arrays
    message: str = ""  # of the error, if one stopped it


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
        given = [extended(case, spec, function) for case in cases]
        with replaced(function, vars(solved), replace):
            found = [attempt(function, spec, case, expected) for case, expected in zip(given, right, strict=True)]
            again = attempt(function, spec, given[0], right[0])
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
        headline, details = f"wrong {case.name}", difference(outcome, right[failing], case)
    compared = [i for i, case in enumerate(cases) if case.typical or i == failing]
    mistake = named(name, exercise, others, spec, cases, right, found, compared)
    if mistake is None:
        return Verdict(name, False, headline, details + looks_like(outcome, right[failing]), "", "", spec.read, notes)
    return Verdict(name, False, headline, details, mistake.what, mistake.why, mistake.read or spec.read, notes)


def extended(case, spec, function):
    """The case with what a learner's other functions add to its arguments, where they do and can."""
    if spec.extended is None:
        return case
    try:
        names = getattr(function, "__globals__", {})
        return Case(case.name, **spec.extended(names, **copy.deepcopy(case.arguments)))
    except (KeyboardInterrupt, OutOfTime):
        raise
    except BaseException:
        return case


@contextlib.contextmanager
def replaced(function, solved, names):
    """Let what `function` calls by these names be the solution's."""
    place = getattr(function, "__globals__", {})
    before = {name: place.get(name) for name in names}
    place.update({name: solved[name] for name in names})
    try:
        yield
    finally:
        place.update(before)
        for name in names:
            if before[name] is None:  # it was not there
                del place[name]


# one call


def attempt(function, spec, case, expected=None):
    """Call the function; the outcome, in the names and shapes of `expected` where that is given."""
    outcome = _attempt(function, spec, case, expected)
    outcome.single = any(getattr(value, "dtype", None) == np.float32 for value in _leaves(case.arguments))
    return outcome


def _leaves(arguments):
    for value in arguments.values():
        yield from _leaves(value) if isinstance(value, dict) else [value]


def _attempt(function, spec, case, expected):
    arguments = copy.deepcopy(case.arguments)
    try:
        with np.errstate(all="ignore") if expected is None else contextlib.nullcontext():
            result = spec.probe(function, **arguments) if spec.probe else function(*arguments.values())
    except Wrong as error:
        return Outcome(None, error.args[0], error.args[1:], shapes=True)
    except (KeyboardInterrupt, OutOfTime):
        raise
    except BaseException as error:  # SystemExit, too
        what, details = stopped(error)
        if expected is not None and expected.stopped in [base.__name__ for base in type(error).__mro__]:
            what = expected.stopped  # a learner's own kind of ValueError is one
        return Outcome(None, what, details, message=str(error))
    changed = [
        argument
        for argument, value in case.arguments.items()
        if argument not in spec.overwrites and not _equal(value, arguments[argument])
    ]
    if changed:
        return Outcome(None, f"changes its argument {changed[0]}", (), shapes=True)
    if expected is None or expected.values is None:
        return Outcome(flat(tuple(result) if isinstance(result, list) else result, spec.outputs))
    try:
        return Outcome(fitted(result, spec.outputs, expected.values))
    except Wrong as error:
        return Outcome(None, error.args[0], error.args[1:], shapes=True, returned=result)


class OutOfTime(BaseException):
    """The time limit is over."""


def stopped(error):
    """(what, where): an exception in words."""
    if isinstance(error, SystemExit):
        what = f"it ends Python, by sys.exit({'' if error.code is None else error.code!r})"
    elif isinstance(error, RecursionError):
        what = "RecursionError: it calls itself without an end"
    else:
        what = type(error).__name__
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _of_a_learner(frame.filename)]
    message = str(error).splitlines()
    details = [message[0][:300]] if message and not isinstance(error, (SystemExit, RecursionError)) else []
    if frames:
        line = f", `{frames[-1].line}`" if frames[-1].line else ""
        place = f"in line {frames[-1].lineno} of {_short(frames[-1].filename)}{line}"
        details.append(place)
    if isinstance(error, NotImplementedError) and not message:
        return "NotImplementedError", ()
    return what, tuple(details)


def _of_a_learner(filename):
    return not any(part in filename for part in ("npvae/exercises", "npvae\\exercises", "site-packages", "lib/python"))


def _short(filename):
    return (
        "this cell"
        if filename.startswith("<") or "ipykernel" in filename
        else filename.replace("\\", "/").split("/")[-1]
    )


def flat(result, outputs):
    """What the solution returned, as a dict of name → array."""
    if isinstance(result, dict):
        return {str(key): value for key, value in result.items()}
    if isinstance(result, tuple) and len(outputs) > 1:
        values = {}
        for name, value in zip(outputs, result, strict=True):
            nested = flat(value, ()) if isinstance(value, dict) else {"": value}
            values |= {f"{name}[{key!r}]" if key else name: item for key, item in nested.items()}
        return values
    return {outputs[0] if outputs else "the result": result}


def fitted(result, outputs, expected):
    """What a learner's function returned, by the names of what is `expected`; `Wrong` where it does not fit."""
    if isinstance(result, list) and len(outputs) > 1:
        result = tuple(result)
    if isinstance(result, np.ndarray) and len(outputs) > 1 and len(result) == len(outputs):
        result = tuple(result)
    if result is None:
        raise Wrong("returns None", "Is a `return` missing?")
    several = len(outputs) > 1
    if several and not (isinstance(result, tuple) and len(result) == len(outputs)):
        raise Wrong(f"returns {_kind(result)}, expected {len(outputs)} things: {', '.join(outputs)}")
    if (
        not several
        and outputs
        and isinstance(result, tuple)
        and len(result) == 1
        and not isinstance(expected[outputs[0]], tuple)
    ):
        raise Wrong(f"returns a tuple of one thing, expected {outputs[0]} itself", "Is there a comma too many?")
    if not outputs and not isinstance(result, dict):
        raise Wrong(f"returns {_kind(result)}, expected a dict with the names {', '.join(expected)}")
    if several:
        for name, value in zip(outputs, result, strict=True):
            if any(key.startswith(f"{name}[") for key in expected) and not isinstance(value, dict):
                raise Wrong(f"returns {_kind(value)} for {name}, expected a dict")
    found = flat(result, outputs)
    missing = [name for name in expected if name not in found]
    if missing:
        raise Wrong(f"{missing[0]} is missing in what it returns")
    return {name: _fitted(name, found[name], value) for name, value in expected.items()}


def _fitted(name, value, expected):
    if isinstance(expected, (str, bool)) or (isinstance(expected, tuple) and not isinstance(value, np.ndarray)):
        return tuple(value) if isinstance(value, list) else value
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.asarray(value, object)
    if array.dtype.kind not in "biuf":
        kind = "complex numbers" if array.dtype.kind == "c" else _kind(value)
        raise Wrong(f"{name} is {kind}, expected {'numbers' if np.ndim(expected) else 'a number'}")
    if array.shape != np.shape(expected):
        hint = ["Is it transposed?"] if array.shape == np.shape(expected)[::-1] else []
        raise Wrong(f"{name} has the shape {array.shape}, expected {np.shape(expected)}", *hint)
    wanted = np.asarray(expected).dtype
    if wanted == np.uint8 and array.dtype != wanted:
        raise Wrong(f"{name} is of dtype {array.dtype}, expected {wanted}")
    return array


def _kind(value):
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, (tuple, list)):
        return f"{len(value)} things"
    return "None" if value is None else f"a {type(value).__name__}"


def in_float32(case):
    """The case with all its arrays in float32, the precision of training."""

    def convert(value):
        if isinstance(value, dict):
            return {name: convert(item) for name, item in value.items()}
        floats = isinstance(value, np.ndarray) and value.dtype == np.float64
        return value.astype(np.float32) if floats else value

    return Case("in float32", **{name: convert(value) for name, value in case.arguments.items()})


# comparing outcomes


def alike(a, b):
    """Whether two outcomes are the same as far as their precision allows."""
    if a.values is None or b.values is None:
        same = a.values is b.values and a.stopped == b.stopped and a.shapes == b.shapes
        return same and (not a.shapes or _alike_of_any_shape(a.returned, b.returned))
    single = a.single or b.single
    return all(name in a.values and _alike(a.values[name], value, single) for name, value in b.values.items())


def _alike_of_any_shape(a, b):
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(itertools.starmap(_alike_of_any_shape, zip(a, b, strict=True)))
    numbers = (np.ndarray, float, int, np.number)
    if isinstance(a, list) and isinstance(b, numbers):
        with contextlib.suppress(ValueError):
            a = np.asarray(a)
    return _alike(a, b) if isinstance(a, numbers) and isinstance(b, numbers) else type(a) is type(b)


def _alike(a, b, single=False):
    if isinstance(a, (str, tuple)) or isinstance(b, (str, tuple)):
        return type(a) is type(b) and a == b
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return False
    if a.dtype.kind not in "fiub" or b.dtype.kind not in "fiub":
        return bool(np.all(a == b))
    finite = np.isfinite(b)
    single = single or np.float32 in (a.dtype, b.dtype)
    a, b = a.astype(float), b.astype(float)
    if not (np.array_equal(finite, np.isfinite(a)) and np.array_equal(a[~finite], b[~finite], equal_nan=True)):
        return False
    size = np.abs(b[finite])
    of_each, of_largest = (1e-4, 3e-6) if single else (1e-9, 1e-12)
    allowed = of_each * size + of_largest * size.max(initial=0)
    return bool((np.abs(a[finite] - b[finite]) <= allowed).all())


def identical(a, b):
    """Whether two outcomes have the same bits."""
    if a.values is None or b.values is None:
        return a.stopped == b.stopped
    return all(_equal(value, b.values[name]) for name, value in a.values.items())


def _equal(a, b):
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        numbers = a.dtype.kind in "fc"
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=numbers)
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(_equal(*pair) for pair in zip(a, b, strict=True))
    if isinstance(a, (np.random.Generator, np.ndarray)):
        return True
    return a == b or (a != a and b != b)


# where it is wrong, and what it looks like


def difference(outcome, right, case):
    """What of the result is furthest off, as a list of lines."""
    right_ones = [name for name, value in right.values.items() if _alike(outcome.values[name], value, right.single)]
    name = next(name for name in right.values if name not in right_ones)
    a, b = outcome.values[name], right.values[name]
    also = [f"{', '.join(right_ones)}: right."] if 0 < len(right_ones) <= 4 else []
    if len(right_ones) > 4:
        also = [
            "All else is right."
            if len(right_ones) == len(right.values) - 1
            else f"{len(right_ones)} other things are right."
        ]
    if not isinstance(a, np.ndarray) or not isinstance(b, (np.ndarray, float, np.floating)) or a.dtype.kind == "b":
        return [f"{name}: {_shown(a)}, expected {_shown(b)}", *also]
    a, b = a.astype(float), np.asarray(b, float)
    with np.errstate(all="ignore"):
        off = np.where(np.isfinite(a) & np.isfinite(b), np.abs(a - b), np.where(a == b, 0, np.inf))
    place = np.unravel_index(np.argmax(off), off.shape)
    where = f"{name}[{', '.join(map(str, map(int, place)))}]" if a.ndim else name
    digits = next((n for n in (6, 9, 12) if f"{a[place]:.{n}g}" != f"{b[place]:.{n}g}"), 17)
    return [f"{where} is {a[place]:.{digits}g}, expected {b[place]:.{digits}g}", *also]


def looks_like(outcome, right):
    """What a wrong result has in common with the right one, where they are arrays of numbers that can be compared."""
    if outcome.values is None or right.values is None:
        return []
    name = next(name for name, value in right.values.items() if not _alike(outcome.values[name], value, right.single))
    a, b = outcome.values[name], right.values[name]
    if not isinstance(a, np.ndarray) or not isinstance(b, (np.ndarray, float, np.floating)):
        return []
    a, b = a.astype(float), np.asarray(b, float)
    if not a.size or not np.isfinite(a).all() or not np.isfinite(b).all() or not b.any():
        return []
    bad = np.abs(a - b) > 1e-9 * np.abs(b).max()
    others = {
        other: np.asarray(value, float)
        for other, value in right.values.items()
        if other != name and isinstance(value, np.ndarray) and value.dtype.kind == "f"
    }
    found = diagnose(a, b, bad, np.zeros_like(b), others, None, "the right one")
    return [f"{name}: {found[0]}{'' if found[1:] else '.'}", *(f"{line}." for line in found[1:])]


def _number(value):
    return f"{value:.6g}"


def _shown(value):
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return _shown(value[()])
    if isinstance(value, (float, np.floating)):
        return _number(value)
    text = (
        " ".join(str(value).split())
        if not isinstance(value, np.ndarray)
        else " ".join(np.array2string(value, precision=4, threshold=12).split())
    )
    return text if len(text) < 160 else text[:157] + "…"


# which mistake it is


def named(name, exercise, others, spec, cases, right, found, compared):
    """The mistake that gives just what was found in the cases to be compared, or None."""
    if all(_trivial(found[i]) for i in compared):
        return None
    began = time.process_time()

    def fits(function, which):
        telling = False  # an error of one kind has many causes: numbers must agree somewhere, or what the error says
        for i in which:
            outcome = attempt(function, spec, cases[i], right[i])
            if not alike(found[i], outcome):
                return False
            numbers = found[i].values is not None or found[i].shapes
            telling |= not alike(found[i], right[i]) and (numbers or found[i].message == outcome.message)
        return telling

    def single():
        return ((mistake, edited(exercise.solution, name, mistake.changes)) for mistake in spec.mistakes)

    def pairs():
        for one, other in itertools.combinations(spec.mistakes, 2):
            what, why = f"two things are wrong: {one.what}, and {other.what}", f"{one.why} {other.why}".strip()
            yield Mistake(what, why, read=one.read), edited(exercise.solution, name, [*one.changes, *other.changes])

    def operators():
        for (before, after), source in mutants(exercise.solution, name):
            yield Mistake(f"`{before}`, in npvae's solution, is written as `{after}`", ""), source

    with np.errstate(all="ignore"), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for candidates in (single(), pairs(), operators()):
            fitting = [
                (mistake, function)
                for mistake, source in candidates
                if time.process_time() - began < SEARCH
                and source
                and (function := function_in(source, name, exercise, others))
                and fits(function, compared)
            ]
            for (
                mistake,
                function,
            ) in fitting:  # of two that fit, that which also does in the cases that were not compared
                if fits(function, range(len(cases))):
                    return mistake
            if fitting:
                return fitting[0][0]
    return None


def function_in(source, name, exercise, others):
    try:
        return getattr(loaded(source, exercise.module, others), name)
    except Exception:
        return None


def _trivial(outcome):
    """Whether an outcome tells nothing of how it came about: nothing but zeros."""
    return outcome.values is not None and all(
        isinstance(value, np.ndarray) and value.dtype.kind in "fiu" and not value.any()
        for value in outcome.values.values()
    )


# what a function does beside its work


class Watch:
    """What a function prints, warns of, and changes in NumPy, while it runs; changes are undone."""

    def __enter__(self):
        self.printed, self.changed = Printed(), []
        self.streams = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = self.printed
        self.warnings = warnings.catch_warnings(record=True)
        self.caught = self.warnings.__enter__()
        warnings.simplefilter("always")
        self.errors, self.options = np.geterr(), np.get_printoptions()
        self.state, self.names = np.random.get_state(), dict(np.__dict__)  # noqa: NPY002
        return self

    def __exit__(self, *error):
        sys.stdout, sys.stderr = self.streams
        self.warnings.__exit__(*error)
        if np.geterr() != self.errors:
            np.seterr(**self.errors)
            self.changed = ["changes NumPy's settings, by np.seterr", "What runs after it gets other warnings."]
        if np.get_printoptions() != self.options:
            np.set_printoptions(**self.options)
            self.changed = ["changes NumPy's settings, by np.set_printoptions"]
        if not _equal(list(self.state), list(np.random.get_state())):  # noqa: NPY002
            np.random.set_state(self.state)  # noqa: NPY002
            self.changed = [
                "draws from NumPy's global random numbers, or seeds them",
                "Noise, or a generator to draw it from, is an argument: the same arguments must give the same result.",
            ]
        for key, value in self.names.items():
            if np.__dict__.get(key) is not value:
                setattr(np, key, value)
                self.changed = [f"replaces np.{key}"]

    def notes(self):
        """What is worth to know, though it is not wrong."""
        notes = [f"It prints: {self.printed}"] if self.printed.count else []
        messages = [str(warning.message).splitlines()[0] for warning in self.caught]
        if messages:
            notes.append(f"NumPy or Python warns: {messages[0]}")
        return notes


class Printed(io.TextIOBase):
    """A stream that keeps the beginning of what is written to it."""

    def __init__(self):
        self.text, self.count = "", 0

    def writable(self):
        return True

    def write(self, text):
        self.count += len(text)
        self.text += text[: max(PRINTED - len(self.text), 0)]
        return len(text)

    def __str__(self):
        first = " ".join("".join(c if c.isprintable() else " " for c in self.text).split())
        return first if self.count <= PRINTED else f"{first}… ({self.count:,} characters)"
