"""A loss and a gradient of named arrays, as `npvae.checker` asks them: functions of one flat vector."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from npvae.derivatives import GradientError, Refused, real_array, repeatable_value, scale_of, value_of
from npvae.parameters import Parameters

NEARBY = 0.1  # distance of a point nearby, in units of the scale of each array


class Point(NamedTuple):
    """A vector of parameters, the loss there, and the gradient in question."""

    theta: np.ndarray
    value: float
    gradient: np.ndarray


class Problem:
    """A loss and a gradient of named arrays, as functions of one flat vector."""

    def __init__(self, loss, gradient, parameters, dtype):
        self.single = not isinstance(parameters, Mapping)
        if isinstance(parameters, (list, tuple)):
            raise Refused(
                f"the parameters are a {type(parameters).__name__}: give one array, or a dict of names to arrays"
            )
        arrays = {"theta": parameters} if self.single else parameters
        if not arrays:
            raise Refused("there are no parameters")
        arrays = {name: real_array(array, name).astype(dtype) for name, array in arrays.items()}
        self.layout = Parameters({name: array.shape for name, array in arrays.items()}, dtype)
        self.shapes, self.parts = self.layout.shapes, self.layout.parts
        self.theta = np.concatenate([array.ravel() for array in arrays.values()])
        self.callers_loss, self.callers_gradient = loss, gradient

    def arrays(self, vector):
        """What the caller's functions are given: views of a vector."""
        arrays = self.layout.cut(vector)
        return arrays["theta"] if self.single else arrays

    def loss(self, vector):
        return self.callers_loss(self.arrays(vector))

    def gradient(self, vector):
        """The gradient in question as a flat vector; a `GradientError` where it has not the form of the parameters."""
        value_of(self.loss, vector)  # a backward pass may need what the forward pass has left
        given = vector.copy()
        found = self.callers_gradient(self.arrays(given)) if callable(self.callers_gradient) else self.callers_gradient
        if not np.array_equal(given, vector):
            raise Refused("the gradient function writes into the parameters: does it take a step of the optimizer?")
        found = {"theta": found} if self.single else found
        names = ", ".join(map(str, self.parts))
        if not isinstance(found, Mapping):
            raise GradientError(f"the gradient is of the type {type(found).__name__}, expected a dict with {names}")
        if set(found) != set(self.parts):
            raise GradientError(f"the gradient has the names {', '.join(map(str, found)) or 'none'}, expected {names}")
        return np.concatenate([self.in_form(name, found[name]).ravel() for name in self.parts]).astype(vector.dtype)

    def in_form(self, name, array):
        """The gradient of `name` as an array; a `GradientError` where it has not the form of the parameters."""
        shape = self.shapes[name]
        if not isinstance(array, (np.ndarray, np.number, int, float)):
            raise GradientError(f"the gradient of {name} is of the type {type(array).__name__}, expected an array")
        array = np.array(array)
        if array.shape != shape:
            transposed = ": transposed?" if array.shape == shape[::-1] else ""
            raise GradientError(f"the gradient of {name} has the shape {array.shape}, expected {shape}{transposed}")
        if array.dtype.kind not in "fiu":
            raise GradientError(f"the gradient of {name} is {array.dtype}, expected real numbers")
        if not np.isfinite(array).all():
            place = tuple(map(int, np.argwhere(~np.isfinite(array))[0]))
            raise GradientError(f"the gradient of {name} is {array[place]} at {list(place)}")
        return array

    def at(self, theta):
        """The `Point` with this theta; a `GradientError` if the gradient is another one at a second call."""
        value = repeatable_value(self.loss, theta)
        first, second = self.gradient(theta), self.gradient(theta)
        for name, part in self.parts.items():
            g1, g2 = first[part], second[part]
            if np.abs(g2 - g1).max() <= math.sqrt(np.finfo(theta.dtype).eps) * np.abs(g1).max():
                continue
            times = (g1 * g2).sum() / ((g1 * g1).sum() or np.nan)
            if times > 1 and np.allclose(g2, times * g1, rtol=1e-6):
                raise GradientError(
                    f"the gradient of {name} is {times:.4g} times as large at a second call with the same parameters: "
                    "it is accumulated, and never reset"
                )
            raise GradientError(
                f"the gradient of {name} changes between two calls with the same parameters: does the backward pass "
                "draw noise of its own?"
            )
        return Point(theta, value, first)

    def point_nearby(self, here, rng):
        """A random `Point` near another, or None, and a note on it."""
        if not callable(self.callers_gradient):
            return None, ["compared at the given parameters only: the gradient is not a function"]
        for distance in (NEARBY, NEARBY / 10, NEARBY / 100):
            theta = np.concatenate([nudged(here.theta[part], rng, distance) for part in self.parts.values()])
            try:
                with np.errstate(all="ignore"):
                    return self.at(theta), []
            except Exception:  # of whatever kind: nobody asked for this point, and the functions need not hold there
                continue
        return None, ["compared at the given parameters only: beside them loss or gradient fails"]


def nudged(array, rng, distance=NEARBY):
    """An array at random so far from another, in units of its scale."""
    return array + (distance * scale_of(array) * rng.standard_normal(array.shape)).astype(array.dtype)
