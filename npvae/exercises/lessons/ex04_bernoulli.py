"""Exercise 4: the Bernoulli log-likelihood from logits."""

import numpy as np

from npvae.exercises.course import Case, Function, Mistake

READ = "notebook 4, “Let pixels be Bernoulli”"
NATS = "notebook 1, “Measure in nats”"
MUSEUM = "notebook 10, “{}”"
OVERFLOW = "e¹⁰⁰⁰ is inf. Take the large part out: softplus(a) = max(a, 0) + log(1 + e^−|a|)."
rng = np.random.default_rng(4)
a = 2 * rng.normal(size=(3, 5))
x, logits = rng.uniform(size=(4, 6)), 2 * rng.normal(size=(4, 6))
MEDIUM = np.linspace(-15, 15, 31)[None]
LARGE = np.array([[-1000.0, -40.0, 0.0, 40.0, 1000.0]])
CASES = [
    Case("in a typical case", x=x, logits=logits),
    Case("with one example", x=x[:1], logits=logits[:1]),
    Case("with black and white pixels", x=np.round(x), logits=logits),
    Case("with L = 3 draws", x=x, logits=2 * rng.normal(size=(3, 4, 6))),
    Case("where it saturates, with logits of ±1000", x=np.array([[0, 1, 0, 1, 1.0]]), logits=LARGE),
    Case(
        "in float32, with logits of ±20",
        x=np.array([[1, 0, 1, 0]], np.float32),
        logits=np.array([[20, -20, -20, 20]], np.float32),
    ),
]

FUNCTIONS = {
    "softplus": Function(
        outputs=("softplus(a)",),
        read=READ,
        cases=[
            Case("in a typical case", a=a),
            Case("with one example", a=a[:1]),
            Case("with a between ±15", a=MEDIUM),
            Case("with a of ±1000", a=LARGE),
            Case("in float32, with a of ±100", a=np.array([[-100, -20, 0, 20, 100]], np.float32)),
        ],
        mistakes=[
            Mistake(
                "log(1 + eᵃ) is written as it is",
                OVERFLOW,
                ("np.maximum(a, 0) + np.log1p(np.exp(-np.abs(a)))", "np.log(1 + np.exp(a))"),
            ),
            Mistake("max(a, 0) is forgotten", "log(1 + e^−|a|) is only the small part.", ("np.maximum(a, 0) + ", "")),
            Mistake(
                "the absolute value is missing",
                "The identity takes the larger of a and 0 out, so what is left in the exponent is −|a|.",
                ("-np.abs(a)", "-a"),
            ),
            Mistake(
                "|a| is in the place of max(a, 0)",
                "For negative a nothing is taken out: max(a, 0) is 0 there.",
                ("np.maximum(a, 0)", "np.abs(a)"),
            ),
            Mistake(
                "the exponent is +|a|", "e^|a| overflows, and the identity is with e^−|a|.", ("-np.abs(a)", "np.abs(a)")
            ),
            Mistake(
                "the 1 is missing", "log(eᵃ) is a itself.", ("np.maximum(a, 0) + np.log1p(np.exp(-np.abs(a)))", "a + 0")
            ),
            Mistake(
                "the sign of a is turned round",
                "softplus(a) grows with a; log(1 + e⁻ᵃ) is softplus(−a).",
                ("np.maximum(a, 0)", "np.maximum(-a, 0)"),
            ),
            Mistake(
                "a is clipped before the exponential",
                "The clip changes the values of large logits: softplus(1000) is 1000.",
                ("np.maximum(a, 0) + np.log1p(np.exp(-np.abs(a)))", "np.log1p(np.exp(np.clip(a, -500, 500)))"),
            ),
            Mistake("it is a ReLU", "softplus is the smooth one: log 2 at 0.", (" + np.log1p(np.exp(-np.abs(a)))", "")),
            Mistake(
                "it is the logarithm to base 2",
                "Nats are natural logarithms.",
                (
                    "np.maximum(a, 0) + np.log1p(np.exp(-np.abs(a)))",
                    "(np.maximum(a, 0) + np.log1p(np.exp(-np.abs(a)))) / np.log(2)",
                ),
            ),
        ],
        hints=[
            "What is e¹⁰⁰⁰ in floating point? And what is softplus(1000)?",
            "For a > 0: log(1 + eᵃ) = a + log(1 + e⁻ᵃ), in which nothing can overflow. For a < 0 the form as it is does.",
            "np.maximum(a, 0) + np.log1p(np.exp(-np.abs(a)))",
        ],
    ),
    "sigmoid": Function(
        outputs=("sigmoid(a)",),
        read=READ,
        cases=[
            Case("in a typical case", a=a),
            Case("with one example", a=a[:1]),
            Case("with a between ±15", a=MEDIUM),
            Case("with a of ±1000", a=LARGE),
        ],
        mistakes=[
            Mistake(
                "eᵃ / (1 + eᵃ) is written as it is",
                "e¹⁰⁰⁰ is inf, and inf / inf is nan.",
                ("(1 + np.tanh(a / 2)) / 2", "np.exp(a) / (1 + np.exp(a))"),
            ),
            Mistake(
                "the sign in the exponent is turned round",
                "1 / (1 + eᵃ) is the probability of *no* ink.",
                ("np.tanh(a / 2)", "np.tanh(-a / 2)"),
            ),
            Mistake(
                "it is the softplus",
                "The softplus is the integral of the sigmoid; it exceeds 1 from a = 0.54 on, which no probability does.",
                ("(1 + np.tanh(a / 2)) / 2", "np.logaddexp(0, a)"),
                read=MUSEUM.format("13. Softplus taken for a sigmoid when sampling"),
            ),
            Mistake("the ½ of a is missing", "sigmoid(a) = (1 + tanh(a / 2)) / 2.", ("a / 2", "a")),
            Mistake(
                "it is tanh",
                "tanh goes from −1 to 1, a probability from 0 to 1.",
                ("(1 + np.tanh(a / 2)) / 2", "np.tanh(a)"),
            ),
            Mistake(
                "it is tanh of a / 2",
                "tanh goes from −1 to 1, a probability from 0 to 1: shift and halve it.",
                ("(1 + np.tanh(a / 2)) / 2", "np.tanh(a / 2)"),
            ),
            Mistake(
                "the outer ½ is missing",
                "1 + tanh goes from 0 to 2.",
                ("(1 + np.tanh(a / 2)) / 2", "1 + np.tanh(a / 2)"),
            ),
            Mistake("it is 1 + e⁻ᵃ, not 1 / (1 + e⁻ᵃ)", "", ("(1 + np.tanh(a / 2)) / 2", "1 + np.exp(-a)")),
            Mistake(
                "a is clipped to ±10",
                "A clip changes the values: a sure pixel then costs what it should not.",
                ("np.tanh(a / 2)", "np.tanh(np.clip(a, -10, 10) / 2)"),
            ),
        ],
        hints=[
            "1 / (1 + e⁻ᵃ), but mind a = −1000.",
            "The sigmoid is a shifted and scaled tanh, and np.tanh never overflows.",
            "(1 + np.tanh(a / 2)) / 2",
        ],
    ),
    "bernoulli_log_density": Function(
        outputs=("log p(x)",),
        read=READ,
        cases=CASES,
        mistakes=[
            Mistake(
                "pixels are averaged, not summed",
                "log p of an image is the sum over its pixels. With a mean it is 784 times too small beside the KL, which is then 784 times too heavy.",
                (".sum(axis=-1)", ".mean(axis=-1)"),
                read=MUSEUM.format("6. A mean where a sum belongs"),
            ),
            Mistake(
                "the sign is turned round",
                "This is log p, which is never positive for pixels; the loss has the minus.",
                ("(x * logits - softplus(logits))", "(softplus(logits) - x * logits)"),
            ),
            Mistake(
                "the (1 − x) term is missing",
                "x log y pays for ink where it should be, and nothing for ink anywhere else.",
                ("x * logits - softplus(logits)", "x * (logits - softplus(logits))"),
                read=MUSEUM.format("8. The (1 − x) term is missing"),
            ),
            Mistake(
                "everything is summed, examples too",
                "Each example has a number of its own: sum over the last axis.",
                (".sum(axis=-1)", ".sum()"),
            ),
            Mistake("it is summed over the examples", "Pixels are the last axis.", (".sum(axis=-1)", ".sum(axis=0)")),
            Mistake(
                "it is summed over axis 1",
                "With L draws logits are (L, B, D), and axis 1 is the examples. Pixels are the last axis, −1.",
                (".sum(axis=-1)", ".sum(axis=1)"),
            ),
            Mistake("nothing is summed", "log p of an image is the sum over its pixels.", (".sum(axis=-1)", "")),
            Mistake(
                "softplus is forgotten",
                "x a is only one of the two terms of x a − log(1 + eᵃ).",
                (" - softplus(logits)", ""),
            ),
            Mistake(
                "the probabilities are taken for logits",
                "x a − softplus(a) is with the logit a itself, not with y = sigmoid(a).",
                ("x * logits - softplus(logits)", "x * sigmoid(logits) - softplus(sigmoid(logits))"),
            ),
            Mistake(
                "y is computed and its logarithm taken",
                "Where y is exactly 0 or 1, log 0 is −inf and 0 · inf is nan. From logits there is nothing to take the logarithm of.",
                (
                    "x * logits - softplus(logits)",
                    "x * np.log(sigmoid(logits)) + (1 - x) * np.log(1 - sigmoid(logits))",
                ),
            ),
            Mistake(
                "y is clipped to 1e-8 and 1 − 1e-8",
                "Where a clip does something, it changes the value; and in float32 1 − 1e-8 is exactly 1, so that it does nothing there: log 0 again.",
                (
                    "return (x * logits - softplus(logits))",
                    "y = np.clip(sigmoid(logits), 1e-8, 1 - 1e-8)\n    return (x * np.log(y) + (1 - x) * np.log(1 - y))",
                ),
                read=MUSEUM.format("10. A clip that float32 cannot hold"),
            ),
            Mistake(
                "y is kept 1e-7 away from 0 and 1 by a clip",
                "A sure and wrong pixel then costs 16 nats at most, and has no derivative any more.",
                (
                    "return (x * logits - softplus(logits))",
                    "y = np.clip(sigmoid(logits), 1e-7, 1 - 1e-7)\n    return (x * np.log(y) + (1 - x) * np.log(1 - y))",
                ),
            ),
            Mistake(
                "1e-8 is added inside the logarithms",
                "It changes the value of every sure pixel. From logits nothing needs to be added.",
                (
                    "x * logits - softplus(logits)",
                    "x * np.log(sigmoid(logits) + 1e-8) + (1 - x) * np.log(1 - sigmoid(logits) + 1e-8)",
                ),
            ),
            Mistake(
                "it is a squared error",
                "That is a Gaussian's log density up to constants, and of y, not a Bernoulli's.",
                ("x * logits - softplus(logits)", "-((x - sigmoid(logits)) ** 2)"),
            ),
        ],
        hints=[
            "Two terms for each pixel, x log y and (1 − x) log(1 − y). What are log y and log(1 − y) in terms of the logit?",
            "log y = a − softplus(a), log(1 − y) = −softplus(a). What is left of the two terms together?",
            "(x * logits - softplus(logits)).sum(axis=-1)",
        ],
    ),
    "bernoulli_log_density_gradient": Function(
        outputs=("d_logits",),
        read=READ,
        cases=CASES,
        mistakes=[
            Mistake(
                "the sign is turned round",
                "This is the derivative of log p, x − y; that of the loss is y − x.",
                ("x - sigmoid(logits)", "sigmoid(logits) - x"),
            ),
            Mistake(
                "the derivative of the sigmoid is multiplied in once more",
                "In x − y it has cancelled already: (x/y − (1 − x)/(1 − y)) · y (1 − y) = x − y.",
                ("x - sigmoid(logits)", "(x - sigmoid(logits)) * sigmoid(logits) * (1 - sigmoid(logits))"),
                read=MUSEUM.format("9. An extra y (1 − y)"),
            ),
            Mistake(
                "the (1 − x) term is missing",
                "d/da of x log y alone is x (1 − y).",
                ("x - sigmoid(logits)", "x * (1 - sigmoid(logits))"),
                read=MUSEUM.format("8. The (1 − x) term is missing"),
            ),
            Mistake(
                "the logits are taken for probabilities",
                "y = sigmoid(a): x − y, not x − a.",
                ("sigmoid(logits)", "logits"),
            ),
            Mistake(
                "it is divided by the number of pixels",
                "log p is summed over pixels, so its derivative has no 1/D.",
                ("x - sigmoid(logits)", "(x - sigmoid(logits)) / x.shape[-1]"),
            ),
            Mistake(
                "it is divided by the number of examples",
                "Here each image has a loss of its own; the average over the batch comes later, once.",
                ("x - sigmoid(logits)", "(x - sigmoid(logits)) / len(x)"),
            ),
            Mistake(
                "it is summed over the pixels",
                "Each logit has a derivative of its own: the shape is that of logits.",
                ("x - sigmoid(logits)", "(x - sigmoid(logits)).sum(axis=-1)"),
            ),
            Mistake(
                "the softplus is not differentiated",
                "d softplus(a) / da is sigmoid(a).",
                ("sigmoid(logits)", "softplus(logits)"),
            ),
            Mistake(
                "x is forgotten", "The derivative of x a is x.", ("x - sigmoid(logits)", "0 * x - sigmoid(logits)")
            ),
            Mistake(
                "it is x/y − (1 − x)/(1 − y), the derivative with respect to y",
                "The derivative asked for is that with respect to the logits: multiply by dy/da = y (1 − y), and most of it cancels.",
                ("x - sigmoid(logits)", "x / sigmoid(logits) - (1 - x) / (1 - sigmoid(logits))"),
            ),
            Mistake(
                "it is (x/y − (1 − x)/(1 − y)) · y (1 − y), without being simplified",
                "Where y is 0 or 1 it divides by zero. On paper it is x − y.",
                (
                    "x - sigmoid(logits)",
                    "(x / sigmoid(logits) - (1 - x) / (1 - sigmoid(logits))) * sigmoid(logits) * (1 - sigmoid(logits))",
                ),
            ),
        ],
        hints=[
            "Differentiate x a − softplus(a). What is the derivative of softplus?",
            "softplus′ is the sigmoid. What remains is a difference of two things that both lie between 0 and 1.",
            "x - sigmoid(logits)",
        ],
    ),
}
