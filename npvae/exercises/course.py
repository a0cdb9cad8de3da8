"""The course: its exercises in their order, and what each function of theirs is asked.

The solution of an exercise is a file of `solutions`, from which everything else is made: what the learner starts with
(the same file, its functions emptied), and the functions with a mistake in them (the same file, a few characters
changed). The cases, mistakes and hints are in the file of the same name in `lessons`.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from npvae.exercises.source import emptied, loaded

SOLUTIONS = Path(__file__).parent / "solutions"
WRITTEN = [
    "ex01_idx",
    "ex02_dense",
    "ex03_tanh",
    "ex04_bernoulli",
    "ex05_kl",
    "ex06_reparameterize",
    "ex07_vae",
    "ex08_adam",
    "ex09_train",
    "ex10_generate",
    "ex11_importance",
]
MODULES = [*WRITTEN, "ex12_find_the_bug", "ex13_find_the_bug"]


class Mistake:
    """A typical mistake: the solution with some text replaced.

    Parameters
    ----------
    what : str
        Completes "exactly what comes out when …".
    why : str
        A sentence or two of explanation.
    *changes : (str, str)
        Text of the solution's function, there exactly once, and what stands in its place.
    read : str
        The section of a notebook to read; that of the function if empty.
    """

    def __init__(self, what, why, *changes, read=""):
        self.what, self.why, self.changes, self.read = what, why, changes, read


class Case:
    """What a function is tried on.

    Parameters
    ----------
    name : str
        Completes "wrong …": "in a typical case", "with one example".
    **arguments
        In the order in which the function takes them.
    """

    def __init__(self, name, **arguments):
        self.name, self.arguments = name, arguments

    @property
    def typical(self):
        return self.name.startswith("in a typical case")


@dataclass(frozen=True)
class Function:
    """What a function of an exercise is tried on, and what can be wrong with it.

    Attributes
    ----------
    cases : list of Case
        The typical ones first.
    mistakes : list of Mistake
    hints : list of str
        From a nudge to the formula.
    read : str
        The section of a notebook that explains it.
    outputs : tuple of str
        What it returns, in words or symbols; for a dict its keys are taken.
    overwrites : tuple of str
        The arguments that it may change.
    probe : callable, optional
        probe(function, **arguments) runs it, and returns what is asked about it, name → value, where the returned
        arrays alone do not tell.
    float32 : bool
        Whether it is tried on float32 arrays as well.
    extended : callable, optional
        extended(names, **arguments) gives the arguments for a learner whose module has these `names`.
    """

    cases: list
    mistakes: list
    hints: list
    read: str
    outputs: tuple = ()
    overwrites: tuple = ()
    probe: Callable | None = None
    float32: bool = True
    extended: Callable | None = None


class Exercise:
    """One file: its number, its name without `.py`, and its functions by name.

    Attributes
    ----------
    solution : str
        The text of the file with everything right.
    """

    def __init__(self, number, module, functions, solution=None):
        self.number, self.module, self.functions = number, module, functions
        self.solution = solution or (SOLUTIONS / f"{module}.py").read_text(encoding="utf-8")

    @property
    def file(self):
        return f"{self.module}.py"

    @property
    def title(self):
        first = self.solution.split('"""')[1].splitlines()[0]
        return first.split(": ", 1)[1].rstrip(".")

    def start(self, seed):
        """The text of the file that a learner starts with."""
        return emptied(self.solution)

    def untouched(self, text):
        """Whether a file still has the text that it began with."""
        return text == self.start(0)

    @property
    def next_step(self):
        """What to do with the file as it is at the start."""
        return f"read {next(iter(self.functions.values())).read};\nthen open {self.file} and write its functions"

    @property
    def told_of(self):
        """What a learner gets verdicts on: the functions."""
        return list(self.functions)

    def told(self, verdicts, text=""):
        """What a learner is told of the verdicts on the functions of a file with this text."""
        return verdicts

    def hints(self, verdicts, text=""):
        """(what they are about, the hints from a nudge to the formula) for the first function that is not right."""
        name = next((verdict.function for verdict in verdicts if not verdict.passed), next(iter(self.functions)))
        return name, self.functions[name].hints


@cache
def solved():
    """The solutions as modules, by name: they stand in for a learner's earlier exercises while one is checked."""
    modules = {}
    for module in WRITTEN:
        modules[module] = loaded((SOLUTIONS / f"{module}.py").read_text(encoding="utf-8"), module, modules)
    return modules


@cache
def exercise(number):
    """The exercise of a number, 1 to 13."""
    module = MODULES[number - 1]
    if module not in WRITTEN:
        from npvae.exercises.bugs import FindTheBug

        return FindTheBug(number, module)
    return Exercise(number, module, importlib.import_module(f"npvae.exercises.lessons.{module}").FUNCTIONS)
