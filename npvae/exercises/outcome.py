"""What comes of a call: named arrays, or what stopped it; and whether that of two calls is the same."""

import contextlib
import copy
import itertools
import traceback
from dataclasses import dataclass

import numpy as np

from npvae.exercises.course import Case
from npvae.exercises.source import TEXT


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


class OutOfTime(BaseException):
    """The time limit is over."""


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
        return Outcome(None, what, details, message=text_of(error))
    changed = [
        argument
        for argument, value in case.arguments.items()
        if argument not in spec.overwrites and not equal(value, arguments[argument])
    ]
    if changed:
        return Outcome(None, f"changes its argument {changed[0]}", (), shapes=True)
    if expected is None or expected.values is None:
        return Outcome(flat(tuple(result) if isinstance(result, list) else result, spec.outputs))
    try:
        return Outcome(fitted(result, spec.outputs, expected.values), returned=result)
    except Wrong as error:
        return Outcome(None, error.args[0], error.args[1:], shapes=True, returned=result)
    except Exception as error:  # of an object with ideas of its own
        return Outcome(None, f"returns what cannot be read: {type(error).__name__}", (), shapes=True)


def reordered(outcome, order, spec, expected):
    """What the outcome would be with the things that were returned in another order; None if it cannot be had."""
    if not isinstance(outcome.returned, (tuple, list)) or len(outcome.returned) != len(order):
        return None
    try:
        values = fitted(tuple(outcome.returned[i] for i in order), spec.outputs, expected.values)
    except Wrong:
        return None
    return Outcome(values, single=outcome.single)


def stopped(error):
    """(what, where): an exception in words."""
    if isinstance(error, SystemExit):
        what = f"it ends Python, by sys.exit({'' if error.code is None else error.code!r})"
    elif isinstance(error, RecursionError):
        what = "RecursionError: it calls itself without an end"
    else:
        what = type(error).__name__
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if of_a_learner(frame.filename)]
    message = text_of(error).splitlines()
    details = [message[0][:300]] if message and not isinstance(error, (SystemExit, RecursionError)) else []
    if frames:
        line = f", `{frames[-1].line}`" if frames[-1].line else ""
        place = f"in line {frames[-1].lineno} of {_short(frames[-1].filename)}{line}"
        details.append(place)
    if isinstance(error, NotImplementedError) and not message:
        return "NotImplementedError", ()
    return what, tuple(details)


def text_of(error):
    """What an exception says; nothing if it cannot."""
    try:
        return str(error)
    except Exception:
        return ""


def names_of(function):
    """The names that a function looks up, its module's; also of a partial, a method, or an object with `__call__`."""
    function = getattr(function, "func", function)
    function = getattr(function, "__func__", function)
    names = getattr(function, "__globals__", None) or getattr(vars(type(function)).get("__call__"), "__globals__", {})
    return names if isinstance(names, dict) else {}


def of_a_learner(filename):
    """Whether a frame is of a learner's code, and not of npvae, NumPy or Python."""
    ours = (TEXT, "npvae/exercises", "npvae\\exercises", "site-packages", "lib/python", "lib\\python")
    return not any(part in filename for part in ours)


def _short(filename):
    if filename.startswith("<") or "ipykernel" in filename:
        return "its cell"
    return filename.replace("\\", "/").split("/")[-1]


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
    shapes = list(map(np.shape, expected.values()))
    if isinstance(result, np.ndarray) and len(shapes) > 1 and [np.shape(row) for row in result] == shapes:
        result = tuple(result)  # of a few arrays of one shape, stacked
    if result is None:
        raise Wrong("returns None", "Is a `return` missing?")
    several = len(outputs) > 1
    if several and not (isinstance(result, tuple) and len(result) == len(outputs)):
        raise Wrong(f"returns {described(result)}, expected {len(outputs)} things: {', '.join(outputs)}")
    alone = len(outputs) == 1 and not isinstance(expected[outputs[0]], tuple)
    if alone and isinstance(result, tuple) and len(result) == 1:
        raise Wrong(f"returns a tuple of one thing, expected {outputs[0]} itself", "Is there a comma too many?")
    if not outputs and not isinstance(result, dict):
        raise Wrong(f"returns {described(result)}, expected a dict with the names {', '.join(expected)}")
    if several:
        for name, value in zip(outputs, result, strict=True):
            if any(key.startswith(f"{name}[") for key in expected) and not isinstance(value, dict):
                raise Wrong(f"returns {described(value)} for {name}, expected a dict")
    found = flat(result, outputs)
    missing = [name for name in expected if name not in found]
    if missing:
        raise Wrong(f"{missing[0]} is missing in what it returns")
    return {name: _fitted(name, found[name], value) for name, value in expected.items()}


def _fitted(name, value, expected):
    if isinstance(expected, tuple) and isinstance(value, (tuple, list)):
        if not all(isinstance(item, (int, np.integer)) for item in value):
            raise Wrong(f"{name} is {value!r:.80}, expected whole numbers")
        return tuple(value)
    if isinstance(expected, (str, bool)) or (isinstance(expected, tuple) and not isinstance(value, np.ndarray)):
        return value
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.asarray(value, object)
    if array.dtype.kind not in "biuf":
        kind = "complex numbers" if array.dtype.kind == "c" else described(value)
        raise Wrong(f"{name} is {kind}, expected {'numbers' if np.ndim(expected) else 'a number'}")
    if array.shape != np.shape(expected):
        hint = ["Is it transposed?"] if array.shape == np.shape(expected)[::-1] else []
        raise Wrong(f"{name} has the shape {array.shape}, expected {np.shape(expected)}", *hint)
    wanted = np.asarray(expected).dtype
    if wanted == np.uint8 and array.dtype != wanted:
        raise Wrong(f"{name} is of dtype {array.dtype}, expected {wanted}")
    return array


def described(value):
    """What kind of thing a value is, in words."""
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
        return same and (not a.shapes or alike_of_any_shape(a.returned, b.returned))
    single = a.single or b.single
    return all(name in a.values and alike_values(a.values[name], value, single) for name, value in b.values.items())


def alike_of_any_shape(a, b):
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(itertools.starmap(alike_of_any_shape, zip(a, b, strict=True)))
    numbers = (np.ndarray, float, int, np.number)
    if isinstance(a, list) and isinstance(b, numbers):
        with contextlib.suppress(ValueError):
            a = np.asarray(a)
    return alike_values(a, b) if isinstance(a, numbers) and isinstance(b, numbers) else type(a) is type(b)


def alike_values(a, b, single=False):
    if isinstance(a, (str, tuple)) or isinstance(b, (str, tuple)):
        return type(a) is type(b) and a == b
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return False
    if a.dtype.kind not in "fiub" or b.dtype.kind not in "fiub":
        return bool(np.all(a == b))
    finite = np.isfinite(b)
    single = single or b.dtype == np.float32
    a, b = a.astype(float), b.astype(float)
    if not (np.array_equal(finite, np.isfinite(a)) and np.array_equal(a[~finite], b[~finite], equal_nan=True)):
        return False
    size = np.abs(b[finite])
    of_each, of_largest, always = (1e-4, 3e-6, 1e-7) if single else (1e-9, 1e-12, 1e-14)
    allowed = of_each * size + of_largest * size.max(initial=0) + always
    return bool((np.abs(a[finite] - b[finite]) <= allowed).all())


def identical(a, b):
    """Whether two outcomes have the same bits."""
    if a.values is None or b.values is None:
        return a.stopped == b.stopped
    return all(equal(value, b.values[name]) for name, value in a.values.items())


def equal(a, b):
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        numbers = a.dtype.kind in "fc"
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=numbers)
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(equal(*pair) for pair in zip(a, b, strict=True))
    if isinstance(a, (np.random.Generator, np.ndarray)):
        return True
    return a == b or (a != a and b != b)
