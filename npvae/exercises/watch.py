"""What a function does beside its work."""

import builtins
import io
import sys
import warnings

import numpy as np

from npvae.exercises.outcome import equal, text_of

PRINTED = 600  # so many characters of what a function prints are shown, and so many lines
LINES = 8


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
        self.state = np.random.get_state()  # noqa: NPY002
        self.names = [(module, dict(vars(module))) for module in (builtins, np)]
        return self

    def __exit__(self, *error):
        for module, names in self.names:  # first of all: what follows uses them
            for key in names:
                if vars(module).get(key) is not names[key] and key != "_":
                    setattr(module, key, names[key])
                    self.changed = [f"replaces {module.__name__}.{key}"]
        sys.stdout, sys.stderr = self.streams
        self.warnings.__exit__(*error)
        if np.geterr() != self.errors:
            np.seterr(**self.errors)
            self.changed = ["changes NumPy's settings, by np.seterr", "What runs after it gets other warnings."]
        if np.get_printoptions() != self.options:
            np.set_printoptions(**self.options)
            self.changed = ["changes NumPy's settings, by np.set_printoptions"]
        if not equal(list(self.state), list(np.random.get_state())):  # noqa: NPY002
            np.random.set_state(self.state)  # noqa: NPY002
            self.changed = [
                "draws from NumPy's global random numbers, or seeds them",
                "Noise, or a generator to draw it from, is an argument: the same arguments must give the same result.",
            ]

    def notes(self):
        """What is worth to know, though it is not wrong."""
        notes = self.printed.shown()
        if self.caught:
            message = text_of(self.caught[0].message).partition("\n")[0]
            notes.append(f"NumPy or Python warns: {message}")
        return notes


class Printed(io.TextIOBase):
    """A stream that keeps the beginning of what is written to it in the first call."""

    def __init__(self):
        self.text, self.count, self.first_call = "", 0, True

    def writable(self):
        return True

    def write(self, text):
        self.count += len(text)
        if self.first_call:
            self.text += text[: max(PRINTED + 1 - len(self.text), 0)]
        return len(text)

    def shown(self):
        """What was printed in the first call, in lines."""
        if not self.count:
            return []
        lines = "".join(c if c.isprintable() or c == "\n" else " " for c in self.text[:PRINTED]).splitlines()
        more = ["…"] if len(lines) > LINES or len(self.text) > PRINTED else []
        return [f"It prints {self.count:,} characters, and in the first case:", *lines[:LINES], *more]
