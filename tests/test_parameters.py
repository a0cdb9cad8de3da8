import copy
import pickle

import numpy as np
import pytest

from npvae import VAE, Adam
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


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda model: pickle.loads(pickle.dumps(model))}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_a_model_learns_as_the_model_does_and_leaves_it_alone(how, rng):
    x = (rng.uniform(size=(20, 12)) < 0.5).astype(np.float32)
    noise = rng.standard_normal((50, 1, 20, 3), np.float32)
    model = VAE(12, (7,), 3, rng=rng)

    def train(vae):
        adam = Adam(vae.parameters, 1e-2)
        losses = []
        for eps in noise:
            losses.append(vae.loss(x, eps))
            vae.backward()
            adam.step()
        return losses

    model.loss(x, noise[0])
    other, before = COPIES[how](model), model.parameters.values.copy()
    losses = train(other)
    assert losses[-1] < losses[0] - 1
    np.testing.assert_array_equal(model.parameters.values, before)
    assert train(model) == losses
    np.testing.assert_array_equal(model.parameters.values, other.parameters.values)


def test_a_model_and_its_optimizer_that_are_copied_together_stay_together(rng):
    model = VAE(12, (7,), 3, rng=rng)
    vae, adam = copy.deepcopy((model, Adam(model.parameters)))
    assert adam.parameters is vae.parameters
