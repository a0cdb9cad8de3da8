import numpy as np

from npvae.parameters import Parameters


def test_views_cover_the_vector_once_and_in_order():
    parameters = Parameters({"W": (3, 4), "b": (4,), "c": ()})
    assert parameters.values.size == parameters.gradient.size == 3 * 4 + 4 + 1
    for name in parameters.shapes:
        parameters[name][...] += 1
        parameters.d(name)[...] += 2
    np.testing.assert_array_equal(parameters.values, 1)
    np.testing.assert_array_equal(parameters.gradient, 2)
    parameters["W"][...] = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(parameters.values[:12], range(12))
