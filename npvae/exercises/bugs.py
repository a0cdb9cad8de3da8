"""Exercises 12 and 13, find the bug: a complete small VAE in one file, with a mistake of earlier exercises in it."""

import ast
from dataclasses import dataclass

import numpy as np

from npvae.exercises.course import SOLUTIONS, Exercise, exercise
from npvae.exercises.source import edited, function_source
from npvae.exercises.verdict import Verdict

PARTS = {
    "ex01_idx": ["scale"],
    "ex02_dense": ["dense", "dense_backward"],
    "ex03_tanh": ["tanh", "tanh_backward"],
    "ex04_bernoulli": ["softplus", "sigmoid", "bernoulli_log_density", "bernoulli_log_density_gradient"],
    "ex05_kl": ["gaussian_kl", "gaussian_kl_gradient"],
    "ex06_reparameterize": ["reparameterize", "reparameterize_gradient"],
    "ex07_vae": ["encode", "decode", "forward", "backward"],
    "ex08_adam": ["adam_step"],
    "ex09_train": ["initialize", "train_epoch"],
    "ex10_generate": ["sample"],
}

TEXT = '''"""Exercise {number}: Find the bug{where[0]}.

A complete small VAE in one file: it runs, its loss falls, and something is wrong. {where[1]}.
Run it (`python {module}.py`), read it, question it with what you have learned, and mend
it here. Some of the mistakes that are planted here were in programs that people have published.

The parameters p, W1 (D, H), b1 (H,), W2 (H, 2J), b2 (2J,), W3 (J, H), b3 (H,), W4 (H, D) and
b4 (D,), and all functions are those of the exercises before.
"""

import numpy as np


{functions}


if __name__ == "__main__":
    from npvae.data.datasets import load

    images, rng = load("strokes").train_images[:2000], np.random.default_rng(0)
    p = initialize(images.shape[1], 100, 10, rng)
    moments, t = {{name: (np.zeros_like(array), np.zeros_like(array)) for name, array in p.items()}}, 0
    for epoch in range(1, 11):
        loss, t = train_epoch(p, moments, t, images, 50, rng)
        print(f"epoch {{epoch:2}}: {{loss:.1f}} nats")
'''
WHERE = {  # in the title, in the text, and what to read
    12: (
        " in the way back",
        "A check of its\ngradient would see it",
        "notebook 5, “Find out that it is wrong”",
    ),
    13: (
        ", where no gradient check sees it",
        "No check of its\ngradient sees it: forward and backward agree about it, or it is elsewhere",
        "notebook 10, “Set up the three families of checks”",
    ),
}


@dataclass(frozen=True)
class Bug:
    """What is wrong in a file of exercise 12 or 13: a mistake of one function, or the same of two.

    Attributes
    ----------
    symptom : str
        The first hint: how it can be noticed.
    mistakes : dict of str to str
        The function → what is wrong there, the `what` of one of its mistakes.
    """

    symptom: str
    mistakes: dict


CHECK = (
    "Check the gradient: notebook 5, “Find out that it is wrong”. Which arrays are wrong, and where do they come in?"
)
BUGS = {
    12: [
        Bug(CHECK, {"gaussian_kl_gradient": "the ½ of d_logvar is missing"}),
        Bug(CHECK, {"backward": "the tanh of the encoder is skipped"}),
        Bug(CHECK, {"bernoulli_log_density_gradient": "the derivative of the sigmoid is multiplied in once more"}),
        Bug(CHECK, {"dense_backward": "d_b is a mean over the examples"}),
        Bug(CHECK, {"reparameterize_gradient": "the ½ of d_logvar is missing"}),
        Bug(CHECK, {"backward": "the 1/B of the KL is missing"}),
        Bug(CHECK, {"tanh_backward": "the derivative is taken at tanh(h)"}),
        Bug(CHECK, {"reparameterize_gradient": "it is the derivative with respect to σ"}),
        Bug(CHECK, {"gaussian_kl_gradient": "the −1 is missing"}),
        Bug(CHECK, {"backward": "the KL's derivative with respect to mu is forgotten"}),
        Bug(CHECK, {"backward": "the tanh of the decoder is skipped"}),
    ],
    13: [
        Bug(
            "Draw many z for one mu and logvar: what is their variance?",
            {
                "reparameterize": "exp(logvar), the variance, is used as the standard deviation",
                "reparameterize_gradient": "it is the derivative of a z with exp(logvar) as its standard deviation",
            },
        ),
        Bug(
            "Estimate the KL by drawing: the mean of log q(z) − log p(z).",
            {"gaussian_kl": "the ½ is missing", "gaussian_kl_gradient": "both are twice what they should be"},
        ),
        Bug(
            "Make two steps of the optimizer by hand, with two different gradients.",
            {"adam_step": "β₁ · m is forgotten"},
        ),
        Bug("Look at the noise: its mean, and its variance.", {"train_epoch": "noise is uniform"}),
        Bug(
            "Count how often each image is shown in an epoch.", {"train_epoch": "the images are drawn with replacement"}
        ),
        Bug("Which t does the optimizer see?", {"train_epoch": "t counts epochs, not steps"}),
        Bug(
            "How large is log p of an image of 784 pixels, each of which is a fair coin?",
            {
                "bernoulli_log_density": "pixels are averaged, not summed",
                "bernoulli_log_density_gradient": "it is divided by the number of pixels",
            },
        ),
        Bug(
            "Look at what the model draws: between which numbers are its pixels?",
            {"sample": "softplus is taken for a sigmoid"},
        ),
        Bug("Compare the largest pixel of a batch with what ink should be.", {"scale": "they are divided by 256"}),
        Bug("Look at the noise of two batches.", {"train_epoch": "noise is drawn once, and used for every batch"}),
        Bug(
            "Try log p of a pixel of which the decoder is very sure, in float32.",
            {"bernoulli_log_density": "y is clipped to 1e-8 and 1 − 1e-8"},
        ),
        Bug(
            "Count how often each image is shown in an epoch.",
            {"train_epoch": "every batch is the first one"},
        ),
    ],
}


class FindTheBug(Exercise):
    """Exercise 12 or 13: the file is complete from the start, and the functions are those of the exercises before."""

    def __init__(self, number, module):
        functions = {name: exercise(int(part[2:4])).functions[name] for part, names in PARTS.items() for name in names}
        super().__init__(number, module, functions, complete(number, module))

    def start(self, seed):
        bugs = BUGS[self.number]
        order = np.random.default_rng(self.number).permutation(len(bugs))
        return self.with_bug(bugs[order[seed % len(order)]])

    def untouched(self, text):
        return any(text == self.with_bug(bug) for bug in BUGS[self.number])

    @property
    def next_step(self):
        return f"read {WHERE[self.number][2]};\nthen open {self.file}, run it, find the bug, and mend it there"

    @property
    def told_of(self):
        return ["the model"]

    def with_bug(self, bug):
        source = self.solution
        for function in bug.mistakes:
            source = edited(source, function, self.mistake(bug, function).changes)
        return source

    def mistake(self, bug, function):
        return next(one for one in self.functions[function].mistakes if one.what == bug.mistakes[function])

    def found(self, verdicts, text):
        """What is planted in a file, from the verdicts on its functions: a Bug, or None if it is mended or unknown."""
        wrong = {verdict.function: verdict.mistake for verdict in verdicts if not verdict.passed}

        def there(bug):
            """How much of a bug is there: as text, or by the name of what is wrong."""
            names = [name for name in bug.mistakes if name in wrong]
            planted = sum(self.is_planted(bug, name, text) for name in names)
            return planted / len(bug.mistakes), sum(bug.mistakes[name] in wrong[name] for name in names)

        most = max(BUGS[self.number], key=there)
        return most if any(there(most)) else None

    def is_planted(self, bug, name, text):
        """Whether the text of a function still has what was planted, whatever else may be wrong with it."""
        try:
            source = function_source(text, name)
        except (SyntaxError, StopIteration):
            return False
        changes = self.mistake(bug, name).changes
        return all(new in source and (old not in source or old in new) for old, new in changes)

    def told(self, verdicts, text=""):
        """One verdict on the whole, as a check of it would say it: it does not give the planted bug away."""
        bug, wrong = self.found(verdicts, text), [verdict for verdict in verdicts if not verdict.passed]
        if not wrong:
            return [Verdict("the model", True, "nothing is wrong any more")]
        if bug is None:
            return [Verdict("the model", False, "what was planted is gone, but something else is wrong"), *wrong]
        mended = set(bug.mistakes) - {one.function for one in wrong}
        headline = "half of the bug is mended" if mended else "the bug is still there"
        seen = "A check of its gradient finds it." if self.number == 12 or mended else "A check of its gradient passes."
        planted = [one for one in wrong if one.function in bug.mistakes]
        more = any(one.mistake != bug.mistakes[one.function] for one in planted)
        details = [seen, "And something that was not planted is wrong near it."] if more else [seen]
        others = [one for one in wrong if one not in planted]
        return [Verdict("the model", False, headline, details, read=WHERE[self.number][2]), *others]

    def hints(self, verdicts, text=""):
        bug = self.found(verdicts, text)
        if bug is None:
            return super().hints(verdicts)
        functions = " and ".join(f"`{name}`" for name in bug.mistakes)
        why = self.mistake(bug, next(iter(bug.mistakes))).why
        whats = " ".join(f"In `{name}` {what}." for name, what in bug.mistakes.items())
        return "the model", [bug.symptom, f"It is in {functions}.", *filter(None, [why]), whats]


def complete(number, module):
    """The whole VAE in one file, with nothing wrong: the functions of the solutions, each with a line of docstring."""
    functions = []
    for part, names in PARTS.items():
        source = (SOLUTIONS / f"{part}.py").read_text(encoding="utf-8")
        lines = source.splitlines()
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef) and node.name in names:
                docstring = node.body[0]
                first = lines[docstring.lineno - 1].removesuffix('"""')
                body = lines[docstring.end_lineno : node.end_lineno]
                signature = lines[node.lineno - 1 : docstring.lineno - 1]
                functions.append("\n".join([*signature, f'{first}"""', *body]))
    return TEXT.format(number=number, module=module, where=WHERE[number], functions="\n\n\n".join(functions))
