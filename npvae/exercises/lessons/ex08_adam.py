"""Exercise 8: Adam."""

import numpy as np

from npvae.exercises.course import Case, Function, Mistake

READ = "notebook 6, “Second idea: measure each parameter's scale”"
MOMENT = "notebook 10, “11. A moment that forgets”"
EPOCH = "notebook 10, “12. Bias correction by epoch”"
rng = np.random.default_rng(8)
SHAPE = (3, 2)


def step(name, t, scale=1.0, **constants):
    theta, gradient = rng.normal(size=SHAPE), scale * rng.normal(size=SHAPE)
    began = t > 1
    m = scale * rng.normal(size=SHAPE) * began
    v = scale**2 * rng.uniform(0.1, 1, SHAPE) * began
    return Case(name, theta=theta, gradient=gradient, m=m, v=v, t=t, **constants)


FUNCTIONS = {
    "adam_step": Function(
        outputs=("theta", "m", "v"),
        overwrites=("theta", "m", "v"),
        read=READ,
        cases=[
            step("in a typical case, the first step", 1),
            step("in a typical case, step 7", 7, learning_rate=0.01, beta1=0.8, beta2=0.99, epsilon=0.1),
            step("with the constants of the paper, step 1000", 1000),
            step("with gradients of 1e-7, where ε counts", 3, 1e-7),
            Case(
                "with a vector of one parameter",
                theta=np.ones(1),
                gradient=np.ones(1),
                m=np.zeros(1),
                v=np.zeros(1),
                t=1,
            ),
        ],
        mistakes=[
            Mistake(
                "β₁ · m is forgotten",
                "Then m forgets everything but the last gradient, and the steps are a tenth of what they should be. The first step is right all the same, since m begins at 0.",
                ("beta1 * m + (1 - beta1)", "(1 - beta1)"),
                read=MOMENT,
            ),
            Mistake(
                "β₂ · v is forgotten",
                "Then v forgets everything but the last gradient.",
                ("beta2 * v + (1 - beta2)", "(1 - beta2)"),
            ),
            Mistake(
                "the bias correction is missing",
                "m and v begin at 0 and are too small at first; dividing by 1 − βᵗ makes up for it.",
                ("m / (1 - beta1**t)", "m"),
                ("v / (1 - beta2**t)", "v"),
            ),
            Mistake("m is not corrected", "m begins at 0 and is too small at first.", ("m / (1 - beta1**t)", "m")),
            Mistake(
                "v is not corrected",
                "v begins at 0 and is too small at first, so the first steps are too long.",
                ("v / (1 - beta2**t)", "v"),
            ),
            Mistake(
                "the correction always is that of the first step",
                "1 − βᵗ goes to 1: t counts the steps. (By epoch, it hardly moves.)",
                ("beta1**t", "beta1**1"),
                ("beta2**t", "beta2**1"),
                read=EPOCH,
            ),
            Mistake(
                "the correction takes t + 1",
                "t is 1 in the first step already: β to the power t.",
                ("beta1**t", "beta1 ** (t + 1)"),
                ("beta2**t", "beta2 ** (t + 1)"),
            ),
            Mistake(
                "the correction is β · t in place of βᵗ",
                "A power, not a product.",
                ("beta1**t", "beta1 * t"),
                ("beta2**t", "beta2 * t"),
            ),
            Mistake(
                "the moments are corrected, and the corrected ones are returned",
                "m and v go on without correction; only the step takes m̂ and v̂. Corrected again at each step they grow.",
                ("return theta, m, v", "return theta, m_hat, v_hat"),
            ),
            Mistake("the gradient is not squared in v", "v is the mean of g².", ("gradient**2", "gradient")),
            Mistake(
                "the root is forgotten",
                "The step is m̂ / √v̂, which has no units: it does not depend on the scale of the loss.",
                ("np.sqrt(v_hat)", "v_hat"),
            ),
            Mistake(
                "ε is inside the root",
                "√(v̂ + ε) is another method when gradients are small; here it is √v̂ + ε.",
                ("np.sqrt(v_hat) + epsilon", "np.sqrt(v_hat + epsilon)"),
            ),
            Mistake(
                "ε is forgotten",
                "Where a gradient was always 0 (a pixel that never has ink), v̂ is 0, and 0/0 is nan.",
                ("np.sqrt(v_hat) + epsilon", "np.sqrt(v_hat)"),
            ),
            Mistake(
                "the step goes uphill",
                "Descent goes against the gradient.",
                ("theta - learning_rate", "theta + learning_rate"),
            ),
            Mistake(
                "(1 − β₁) is missing at the gradient",
                "m is an average: its weights, β₁ and 1 − β₁, add up to 1.",
                ("(1 - beta1) * gradient", "gradient"),
            ),
            Mistake(
                "(1 − β₂) is missing at the gradient",
                "v is an average: its weights, β₂ and 1 − β₂, add up to 1.",
                ("(1 - beta2) * gradient", "gradient"),
            ),
            Mistake(
                "β₁ and 1 − β₁ are swapped",
                "m keeps most of what it was: β₁ = 0.9 is the weight of the old.",
                ("beta1 * m + (1 - beta1) * gradient", "(1 - beta1) * m + beta1 * gradient"),
            ),
            Mistake(
                "β₂ and 1 − β₂ are swapped",
                "v keeps most of what it was: β₂ = 0.999 is the weight of the old.",
                ("beta2 * v + (1 - beta2) * gradient", "(1 - beta2) * v + beta2 * gradient"),
            ),
            Mistake(
                "β₁ and β₂ are swapped",
                "m has β₁, v has β₂.",
                ("beta1 * m + (1 - beta1)", "beta2 * m + (1 - beta2)"),
                ("beta2 * v + (1 - beta2)", "beta1 * v + (1 - beta1)"),
                ("beta1**t", "beta2**t"),
                ("beta2**t", "beta1**t"),
            ),
            Mistake(
                "the step takes the gradient itself, not m̂",
                "m̂ is the averaged gradient.",
                ("m_hat / (", "gradient / ("),
            ),
            Mistake("the learning rate is forgotten", "", ("learning_rate * ", "")),
            Mistake(
                "the step is returned, not the parameters after it",
                "θ ← θ − step.",
                ("theta - learning_rate", "0 * theta - learning_rate"),
            ),
            Mistake(
                "the constants are written out: 0.9, 0.999, 1e-8 and 1e-3",
                "They are arguments; a caller may give others.",
                ("beta1 * m + (1 - beta1)", "0.9 * m + (1 - 0.9)"),
                ("beta2 * v + (1 - beta2)", "0.999 * v + (1 - 0.999)"),
                ("beta1**t", "0.9**t"),
                ("beta2**t", "0.999**t"),
                ("learning_rate * m_hat / (np.sqrt(v_hat) + epsilon)", "1e-3 * m_hat / (np.sqrt(v_hat) + 1e-8)"),
            ),
            Mistake(
                "m is corrected with β₂ and v with β₁",
                "Each with its own β.",
                ("beta1**t", "beta2**t"),
                ("beta2**t", "beta1**t"),
            ),
        ],
        hints=[
            "Five lines, one for each formula at the top of the file, in their order.",
            "m and v that are returned are those without correction; m̂ and v̂ are used in the step only. βᵗ is beta1**t.",
            "m = beta1 * m + (1 - beta1) * gradient, v likewise with gradient**2; theta - learning_rate * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + epsilon)",
        ],
    ),
}
