"""One flat vector of parameters, one flat gradient, and named views into both."""

import itertools
import math

import numpy as np


class Parameters:
    """All parameters of a model in one vector: an optimizer is a loop over one array, a checkpoint is one array.

    Parameters
    ----------
    shapes : dict of str to tuple of int
        The arrays, in the order in which they lie in the vector.
    dtype : NumPy dtype
        float32 to train; float64 and complex128 to check derivatives.

    Attributes
    ----------
    values, gradient : (P,) arrays
        The parameters, and the derivative of the loss with respect to each. Both start at zero.

    The arrays that `parameters[name]` and `parameters.d(name)` return are views into `values` and `gradient`:
    write into them (`W[...] = 0`), never rebind them. Copies and pickles have views of their own.
    """

    def __init__(self, shapes, dtype=np.float32):
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        size = sum(math.prod(shape) for shape in self.shapes.values())
        self.bind(np.zeros(size, dtype), np.zeros(size, dtype))

    def bind(self, values, gradient):
        """Take these two vectors, (P,), for `values` and `gradient`, and cut the views anew."""
        self.values, self.gradient = values, gradient
        self.views, self.d_views = self.cut(values), self.cut(gradient)

    @property
    def parts(self):
        """Where each array lies in the vector: a dict of name to slice."""
        ends = itertools.accumulate(math.prod(shape) for shape in self.shapes.values())
        return {
            name: slice(end - math.prod(shape), end)
            for (name, shape), end in zip(self.shapes.items(), ends, strict=True)
        }

    def cut(self, vector):
        """Named, reshaped views of a vector that is laid out like `values`, (P,): a dict."""
        return {name: vector[part].reshape(self.shapes[name]) for name, part in self.parts.items()}

    def __getitem__(self, name):
        """The view of `values` that holds the array `name`."""
        return self.views[name]

    def d(self, name):
        """The view of `gradient` that holds the derivative with respect to `name`."""
        return self.d_views[name]

    def __getstate__(self):  # what is copied and pickled: a view would come back as an array of its own
        return self.shapes, self.values, self.gradient

    def __setstate__(self, state):
        self.shapes, values, gradient = state
        self.bind(values, gradient)
