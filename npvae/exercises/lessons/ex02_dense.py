"""Exercise 2: a dense layer."""

import numpy as np

from npvae.exercises.course import Case, Function, Mistake

READ = "notebook 2, “Go forward, one operation a line”"
BACKWARD = "notebook 2, “Mirror it backwards”"
rng = np.random.default_rng(2)


def layer(name, count, inputs, outputs):
    return Case(
        name, x=rng.normal(size=(count, inputs)), W=rng.normal(size=(inputs, outputs)), b=rng.normal(size=outputs)
    )


def backward(name, count, inputs, outputs):
    return Case(
        name,
        d_y=rng.normal(size=(count, outputs)),
        x=rng.normal(size=(count, inputs)),
        W=rng.normal(size=(inputs, outputs)),
    )


FUNCTIONS = {
    "dense": Function(
        outputs=("y",),
        read=READ,
        cases=[
            layer("in a typical case", 5, 3, 2),
            layer("in a typical case, with as many inputs as outputs and examples", 4, 4, 4),
            layer("with one example", 1, 3, 2),
            layer("with one input and one output", 5, 1, 1),
        ],
        mistakes=[
            Mistake(
                "W is transposed",
                "W is (I, O): its rows belong to inputs, its columns to outputs.",
                ("x @ W", "x @ W.T"),
            ),
            Mistake(
                "the order of the product is turned round",
                "Examples are rows here, so x is on the left: x W, not W x.",
                ("x @ W", "(W @ x)"),
            ),
            Mistake(
                "b is forgotten",
                "Without b every output is 0 where the input is 0. A test with b = 0 cannot see this.",
                (" + b", ""),
            ),
            Mistake("b is subtracted", "", ("+ b", "- b")),
            Mistake(
                "b is added only to the first example",
                "b belongs to every row.",
                ("x @ W + b", "x @ W + np.outer(np.arange(len(x)) == 0, b)"),
            ),
            Mistake(
                "`*` is written in place of `@`",
                "`*` multiplies element by element; a matrix product is `@`.",
                ("x @ W", "x * W"),
            ),
            Mistake("b is multiplied by W as well", "y = x W + b, not (x + b) W.", ("x @ W + b", "(x + b) @ W")),
            Mistake(
                "the sum over inputs is a mean",
                "A layer sums x_i W_ij over i; nothing is divided by their number.",
                ("x @ W", "x @ W / x.shape[1]"),
            ),
        ],
        hints=[
            "Write down the shapes: (B, I), (I, O), (O,). Which product of two of them is (B, O)?",
            "A matrix product does the sum over the inputs; NumPy adds a vector (O,) to every row of a (B, O) array by itself.",
            "y = x @ W + b",
        ],
    ),
    "dense_backward": Function(
        outputs=("d_x", "d_W", "d_b"),
        read=BACKWARD,
        cases=[
            backward("in a typical case", 5, 3, 2),
            backward("in a typical case, with as many inputs as outputs and examples", 4, 4, 4),
            backward("with one example", 1, 3, 2),
            backward("with one input and one output", 5, 1, 1),
        ],
        mistakes=[
            Mistake(
                "d_W is divided by the number of examples",
                "d_y holds the 1/B of a mean loss already: it came in where the loss was averaged, once.",
                ("x.T @ d_y", "x.T @ d_y / len(x)"),
            ),
            Mistake(
                "d_b is a mean over the examples",
                "b is used by every example, so the derivatives add up. The 1/B of a mean loss is in d_y already.",
                ("d_y.sum(axis=0)", "d_y.mean(axis=0)"),
            ),
            Mistake(
                "d_W and d_b are both means over the examples",
                "Contributions of examples add up. The 1/B of a mean loss is in d_y already.",
                ("x.T @ d_y", "x.T @ d_y / len(x)"),
                ("d_y.sum(axis=0)", "d_y.mean(axis=0)"),
            ),
            Mistake(
                "W is not transposed in d_x",
                "The way back goes from outputs to inputs: d_y (B, O) times Wᵀ (O, I).",
                ("d_y @ W.T", "d_y @ W"),
            ),
            Mistake(
                "d_W is transposed", "d_W has the shape of W, (I, O): xᵀ d_y, not d_yᵀ x.", ("x.T @ d_y", "d_y.T @ x")
            ),
            Mistake(
                "x is not transposed in d_W",
                "The sum is over the examples: xᵀ (I, B) times d_y (B, O).",
                ("x.T @ d_y", "x @ d_y"),
            ),
            Mistake(
                "d_b is summed over everything",
                "b has an entry for each output; sum over the examples only.",
                ("d_y.sum(axis=0)", "d_y.sum()"),
            ),
            Mistake(
                "d_b is summed over the outputs", "The examples are axis 0.", ("d_y.sum(axis=0)", "d_y.sum(axis=1)")
            ),
            Mistake(
                "d_b is not summed over the examples",
                "b is used by every example; the derivatives add up.",
                ("d_y.sum(axis=0)", "d_y"),
            ),
            Mistake(
                "d_b is only that of the first example",
                "b is used by every example; the derivatives add up.",
                ("d_y.sum(axis=0)", "d_y[0]"),
            ),
            Mistake(
                "the sign is turned round",
                "A derivative is not a step: the minus of descent belongs to the optimizer.",
                ("d_y @ W.T", "-d_y @ W.T"),
                ("x.T @ d_y", "-x.T @ d_y"),
                ("d_y.sum(axis=0)", "-d_y.sum(axis=0)"),
            ),
            Mistake(
                "d_x and d_W are returned in the wrong order",
                "The order is d_x, d_W, d_b.",
                ("return d_x, d_W, d_b", "return d_W, d_x, d_b"),
            ),
        ],
        hints=[
            "Each of the three has the shape of the thing that it is the derivative with respect to. Which products of d_y, x and W have these shapes?",
            "One element at a time: y[n, j] = Σᵢ x[n, i] W[i, j] + b[j]. So d_W[i, j] = Σₙ x[n, i] d_y[n, j]: a sum over examples.",
            "d_x = d_y @ W.T,  d_W = x.T @ d_y,  d_b = d_y.sum(axis=0)",
        ],
    ),
}
