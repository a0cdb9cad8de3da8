"""One flat vector of parameters, one flat gradient, and named views into both."""

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
    write into them (`W[...] = 0`), never rebind them.
    """

    def __init__(self, shapes, dtype=np.float32):
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        size = sum(math.prod(shape) for shape in self.shapes.values())
        self.values = np.zeros(size, dtype)  # (P,)
        self.gradient = np.zeros(size, dtype)  # (P,)

    def __getitem__(self, name):
        """The view of `values` that holds the array `name`."""
        return self.views(self.values)[name]

    def d(self, name):
        """The view of `gradient` that holds the derivative with respect to `name`."""
        return self.views(self.gradient)[name]

    def views(self, vector):
        """Cut a vector laid out like `values`, (P,), into a dict of named, reshaped views."""
        views, start = {}, 0
        for name, shape in self.shapes.items():
            stop = start + math.prod(shape)
            views[name] = vector[start:stop].reshape(shape)
            start = stop
        return views
