"""Exercise 3: the activation between two layers."""

import numpy as np

from npvae.exercises.course import Case, Function, Mistake

READ = "notebook 2, “Go forward, one operation a line”"
BACKWARD = "notebook 2, “Mirror it backwards”"
rng = np.random.default_rng(3)
a = rng.normal(size=(4, 3))

FUNCTIONS = {
    "tanh": Function(
        outputs=("h",),
        read=READ,
        cases=[
            Case("in a typical case", a=a),
            Case("with one example", a=a[:1]),
            Case("with an array of three axes", a=rng.normal(size=(3, 2, 4))),
            Case("with a between ±15", a=np.linspace(-15, 15, 31)[None]),
            Case("where it saturates, with a of ±1000", a=np.array([[-1000.0, -30.0, 0.0, 30.0, 1000.0]])),
        ],
        mistakes=[
            Mistake(
                "it is the sigmoid",
                "The sigmoid goes from 0 to 1, tanh from −1 to 1: tanh(a) = 2 sigmoid(2a) − 1.",
                ("np.tanh(a)", "(1 + np.tanh(a / 2)) / 2"),
            ),
            Mistake(
                "the 2 in the exponent is missing",
                "tanh(a) = (e²ᵃ − 1) / (e²ᵃ + 1), with 2a.",
                ("np.tanh(a)", "np.tanh(a / 2)"),
            ),
            Mistake("the sign is turned round", "", ("np.tanh(a)", "-np.tanh(a)")),
            Mistake(
                "nothing is done to a",
                "Two linear layers behind each other are one linear layer: the activation must be returned.",
                ("np.tanh(a)", "a"),
            ),
            Mistake(
                "(eᵃ − e⁻ᵃ) / (eᵃ + e⁻ᵃ) is written as it is",
                "e¹⁰⁰⁰ is inf, and inf / inf is nan. np.tanh knows about that.",
                ("np.tanh(a)", "(np.exp(a) - np.exp(-a)) / (np.exp(a) + np.exp(-a))"),
            ),
            Mistake(
                "(e²ᵃ − 1) / (e²ᵃ + 1) is written as it is",
                "e²⁰⁰⁰ is inf, and inf / inf is nan. np.tanh knows about that.",
                ("np.tanh(a)", "(np.exp(2 * a) - 1) / (np.exp(2 * a) + 1)"),
            ),
            Mistake("it is a ReLU", "max(a, 0) is another activation.", ("np.tanh(a)", "np.maximum(a, 0)")),
            Mistake("it is the tangent of the angle a", "The hyperbolic tangent is np.tanh.", ("np.tanh", "np.tan")),
        ],
        hints=["NumPy has it.", "If you write it with exp, mind what e¹⁰⁰⁰ is.", "np.tanh(a)"],
    ),
    "tanh_backward": Function(
        outputs=("d_a",),
        read=BACKWARD,
        cases=[
            Case("in a typical case", d_h=rng.normal(size=(4, 3)), h=np.tanh(a)),
            Case("with one example", d_h=rng.normal(size=(1, 3)), h=np.tanh(a[:1])),
            Case("where it saturates, with h of ±1", d_h=np.ones((1, 3)), h=np.array([[-1.0, 0.0, 1.0]])),
        ],
        mistakes=[
            Mistake(
                "the derivative is taken at tanh(h)",
                "You are given h = tanh(a), not a: the derivative is 1 − h².",
                ("1 - h**2", "1 - np.tanh(h) ** 2"),
            ),
            Mistake("the square is missing", "tanh′(a) = 1 − tanh(a)².", ("h**2", "h")),
            Mistake(
                "d_h is forgotten",
                "The chain rule multiplies by what comes from behind.",
                ("d_h * (1 - h**2)", "1 - h**2"),
            ),
            Mistake("d_h is added, not multiplied", "The chain rule multiplies.", ("d_h * (", "d_h + (")),
            Mistake(
                "it is the derivative of the sigmoid",
                "h (1 − h) belongs to the sigmoid; that of tanh is 1 − h².",
                ("(1 - h**2)", "h * (1 - h)"),
            ),
            Mistake(
                "there is a plus for the minus",
                "tanh′ = 1 − tanh²: it is largest at 0, and 0 where tanh saturates.",
                ("1 - h**2", "1 + h**2"),
            ),
            Mistake(
                "d_h is passed on as it is",
                "The activation is skipped on the way back: its derivative, 1 − h², must be multiplied in.",
                ("d_h * (1 - h**2)", "d_h * 1"),
            ),
            Mistake("1 − h² is turned into h² − 1", "", ("1 - h**2", "h**2 - 1")),
            Mistake("it is 1 − d_h h²", "The brackets: d_h (1 − h²).", ("d_h * (1 - h**2)", "1 - d_h * h**2")),
            Mistake("the brackets are missing", "d_h * 1 - h**2 is d_h − h².", ("d_h * (1 - h**2)", "d_h * 1 - h**2")),
        ],
        hints=[
            "The derivative of tanh can be written with tanh itself. Which value do you have already?",
            "tanh′(a) = 1 − tanh(a)²; the chain rule multiplies it by d_h, element by element.",
            "d_a = d_h * (1 - h**2)",
        ],
    ),
}
