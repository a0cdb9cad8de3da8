"""Layers that remember in `forward` what their `backward` needs.

Every layer maps (B, I) to (B, O). `backward` takes the derivative of the loss with respect to the layer's output,
writes the derivatives with respect to its parameters, and returns the one with respect to its input. No formula breaks
on complex numbers (no `abs`, no `where` on a sign), so that the same code can be differentiated by a complex step.
"""

import itertools
import math

import numpy as np


def softplus(a):
    """log(1 + eᵃ) = max(a, 0) + log(1 + e^−|a|), which neither overflows nor loses the tail; of arrays or numbers."""
    a = as_floats(a)
    y = np.negative(a, out=np.empty_like(a))
    np.minimum(a, y, out=y)  # −|a|; complex numbers are ordered by their real parts, as a complex step needs it
    above = a - y
    above *= 0.5  # max(a, 0) = (a + |a|) / 2, exact, and quicker than np.maximum with a scalar
    np.exp(y, out=y)
    np.log1p(y, out=y)
    y += above
    return y[()]


def sigmoid(a):
    """1 / (1 + e⁻ᵃ) = (1 + tanh(a/2)) / 2: the derivative of softplus; saturates without overflow."""
    a = as_floats(a)
    y = np.multiply(a, 0.5, out=np.empty_like(a))
    np.tanh(y, out=y)
    y += 1
    y *= 0.5
    return y[()]


def as_floats(a):
    """`a` as an array that can hold fractions; floats and complex numbers as they are."""
    a = np.asanyarray(a)
    return a if a.dtype.kind in "fc" else a.astype(float)


class Dense:
    """y = x W + b.

    Parameters
    ----------
    parameters : Parameters
        Holds `{name}.W` (I, O) and `{name}.b` (O,), of which `W` and `b` are views, and `d_W` and `d_b` of their
        derivatives.
    name : str
    """

    def __init__(self, parameters, name):
        self.parameters, self.name = parameters, name

    # asked for anew each time, so that a layer that was copied or pickled has the views of its own parameters
    W = property(lambda self: self.parameters[f"{self.name}.W"])
    b = property(lambda self: self.parameters[f"{self.name}.b"])
    d_W = property(lambda self: self.parameters.d(f"{self.name}.W"))
    d_b = property(lambda self: self.parameters.d(f"{self.name}.b"))

    def initialize(self, rng, one_hot=0):
        """W and b uniform within ±1/√I: the sum over I inputs then starts where an activation is steep.

        Of the last inputs, `one_hot` of them, only one is ever on: their weights are uniform within ±1.
        """
        bound = 1 / math.sqrt(len(self.W))
        for array in (self.W, self.b):
            array[...] = rng.uniform(-bound, bound, array.shape)
        self.W[len(self.W) - one_hot :] /= bound

    def forward(self, x):  # (B, I) -> (B, O)
        self.x = x
        y = x @ self.W
        y += self.b
        return y

    def backward(self, d_y, need_d_x=True):  # (B, O) -> (B, I)
        """Overwrite `d_W` and `d_b`; return d_x, or None where nothing before this layer needs it."""
        np.matmul(self.x.T, d_y, out=self.d_W)
        np.sum(d_y, axis=0, out=self.d_b)
        return d_y @ self.W.T if need_d_x else None


class Tanh:
    """y = tanh(x), dy/dx = 1 − y²."""

    def forward(self, x):
        self.y = np.tanh(x)
        return self.y

    def backward(self, d_y):
        d_x = self.y * self.y
        np.subtract(1, d_x, out=d_x)
        d_x *= d_y
        return d_x


class ReLU:
    """y = max(x, 0), dy/dx = 1 where x > 0, else 0."""

    def forward(self, x):
        self.mask = x.real > 0  # the real part, so that a complex step does not move the kink
        return x * self.mask

    def backward(self, d_y):
        return d_y * self.mask


class Softplus:
    """y = log(1 + eˣ), dy/dx = 1 / (1 + e⁻ˣ)."""

    def forward(self, x):
        self.x = x
        return softplus(x)

    def backward(self, d_y):
        d_x = sigmoid(self.x)
        d_x *= d_y
        return d_x


ACTIVATIONS = {"tanh": Tanh, "relu": ReLU, "softplus": Softplus}


class MLP:
    """Dense layers with an activation between each two; the last one is linear.

    Parameters
    ----------
    parameters : Parameters
        Holds the arrays that `MLP.shapes(name, sizes)` lists.
    name : str
        The i-th dense layer's arrays are `{name}.{i}.W` and `{name}.{i}.b`.
    sizes : sequence of int
        Units of the input, of each hidden layer, and of the output.
    activation : str
        A key of `ACTIVATIONS`.
    """

    def __init__(self, parameters, name, sizes, activation):
        self.layers = [Dense(parameters, f"{name}.0")]
        for i in range(1, len(sizes) - 1):
            self.layers += [ACTIVATIONS[activation](), Dense(parameters, f"{name}.{i}")]

    @staticmethod
    def shapes(name, sizes):
        """The arrays that the layers need: a dict of name to shape."""
        shapes = {}
        for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            shapes |= {f"{name}.{i}.W": (inputs, outputs), f"{name}.{i}.b": (outputs,)}
        return shapes

    def initialize(self, rng, one_hot=0):
        """Draw all parameters; `one_hot` of the inputs, the last ones, are a label."""
        first, *rest = self.layers[::2]
        first.initialize(rng, one_hot)
        for dense in rest:
            dense.initialize(rng)

    def forward(self, x):  # (B, sizes[0]) -> (B, sizes[-1])
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, d_y, need_d_x=True):  # (B, sizes[-1]) -> (B, sizes[0])
        first, *rest = self.layers
        for layer in reversed(rest):
            d_y = layer.backward(d_y)
        return first.backward(d_y, need_d_x)
