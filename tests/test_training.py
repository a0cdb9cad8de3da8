"""The training loop: what it gives to the model and to the optimizer in each step, and what it says of them."""

import numpy as np
import pytest

from npvae import train
from npvae.config import Config
from npvae.data.datasets import load
from npvae.data.pixels import one_hot
from npvae.evaluate import loss_terms
from npvae.training import INITIAL_PARAMETERS, NOISE, ORDER, Training
from tests.conftest import dataset_of, nearest_neighbour


def record(training, epochs):
    """Train without a run folder; returns what each step was given: lists of x, eps, y and beta."""
    seen, loss = [], training.vae.loss

    def spy(*arguments):
        seen.append(arguments)
        return loss(*arguments)

    training.vae.loss = spy
    for _ in range(epochs):
        for _ in training.steps():
            pass
        training.end_epoch()
    return zip(*seen, strict=True)


def test_training_draws_fresh_standard_normal_noise_at_each_step(rng):
    config = Config(hidden=(4,), latent=8, batch_size=500, samples=2)
    _, noise, _, _ = record(Training(config, dataset_of(rng.integers(0, 256, (2000, 9), np.uint8))), epochs=2)
    values = np.stack(noise).reshape(len(noise), -1)  # (8, 8000)
    assert values.mean() == pytest.approx(0, abs=0.02)
    assert values.var() == pytest.approx(1, abs=0.03)
    assert (values**4).mean() == pytest.approx(3, abs=0.2)  # 1.8 if it were uniform
    correlation = np.corrcoef(values) - np.eye(len(values))
    assert np.abs(correlation).max() < 0.06


def test_each_epoch_goes_through_all_images_in_another_order():
    images = np.arange(250, dtype=np.uint8)[:, None] * np.ones((1, 4), np.uint8)
    batches, *_ = record(Training(Config(hidden=(4,), latent=2, batch_size=60), dataset_of(images)), epochs=3)
    orders = np.rint(np.concatenate(batches)[:, 0] * 255).reshape(3, 250)
    assert (np.sort(orders, axis=1) == np.arange(250)).all()
    assert len(np.unique(orders, axis=0)) == 3
    assert (orders != np.arange(250)).any(axis=1).all()


def test_labels_stay_with_their_images(rng):
    labels = rng.integers(0, 5, 200).astype(np.uint8)
    labels[0] = 4
    images = labels[:, None] * np.full((1, 3), 40, np.uint8)  # an image shows its label
    training = Training(Config(hidden=(4,), latent=2, batch_size=60, conditional=True), dataset_of(images, labels))
    xs, _, ys, _ = record(training, epochs=1)
    for x, y in zip(xs, ys, strict=True):
        assert y.shape == (len(x), 5)
        np.testing.assert_array_equal(y.argmax(axis=1), np.rint(x[:, 0] * 255 / 40))


def test_a_conditional_model_draws_the_digit_that_it_is_asked_for(data_dir):
    digits = load("strokes", str(data_dir))
    training = Training(Config(hidden=(200,), latent=3, conditional=True), digits)
    record(training, epochs=5)
    z = np.random.default_rng(0).standard_normal((30, 3), np.float32)  # the same for each digit
    drawn = [training.vae.decode(z, one_hot(np.full(30, digit), slice(None), 10)) for digit in range(10)]
    images = np.rint(255 * np.concatenate(drawn)).astype(np.uint8)  # (300, 784)
    read = nearest_neighbour(digits.train_images[:4000], digits.train_labels[:4000], images).reshape(10, 30)
    right = (read == np.arange(10)[:, None]).mean(axis=1)
    assert right.mean() > 0.75  # 0.1 if the label were ignored
    assert right.min() > 0.5


def test_dynamic_binarization_draws_anew_in_every_epoch_and_the_others_do_not():
    images = np.full((50, 40), 128, np.uint8)
    for how, differ in (("none", False), ("dynamic", True)):
        config = Config(hidden=(4,), latent=2, batch_size=50, binarize=how)
        (one, other), *_ = record(Training(config, dataset_of(images)), epochs=2)
        assert (one != other).any() == differ
        assert set(np.unique(one)) == ({0, 1} if differ else {np.float32(128 / 255)})
    assert one.mean() == pytest.approx(0.5, abs=0.06)
    assert np.abs(np.corrcoef([one.ravel(), other.ravel()])[0, 1]) < 0.1


def test_kl_warm_up_is_linear_over_its_epochs_and_then_stays():
    config = Config(hidden=(4,), latent=2, batch_size=25, beta=4.0, kl_warmup=1.5)
    *_, betas = record(Training(config, dataset_of(np.zeros((100, 4), np.uint8))), epochs=2)
    np.testing.assert_allclose(betas, np.minimum(4, 4 * np.arange(8) / 6))


def test_learning_rate_changes_at_its_stages(monkeypatch):
    config = Config(hidden=(4,), latent=2, learning_rate=0.1, learning_rate_schedule=("1:0.05", "3:1e-2"))
    training = Training(config, dataset_of(np.zeros((100, 4), np.uint8)))
    seen, step = [], training.optimizer.step

    def spy():
        seen.append(training.optimizer.learning_rate)
        step()

    monkeypatch.setattr(training.optimizer, "step", spy)
    record(training, epochs=5)
    assert seen == [0.1, 0.05, 0.05, 0.01, 0.01]


def test_constants_of_adam_reach_it():
    config = Config(hidden=(4,), latent=2, adam_beta1=0.5, adam_beta2=0.9, adam_epsilon=1e-4)
    adam = Training(config, dataset_of(np.zeros((10, 4), np.uint8))).optimizer
    assert (adam.beta1, adam.beta2, adam.epsilon) == (0.5, 0.9, 1e-4)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_output_bias_starts_the_decoder_at_the_mean_of_the_data(likelihood, rng):
    images = rng.integers(0, 256, (100, 6), np.uint8) * np.array([0, 1, 1, 1, 1, 1], np.uint8)
    images[:, 1] = 255
    config = Config(hidden=(4,), latent=2, output_bias="mean", likelihood=likelihood)
    vae = Training(config, dataset_of(images)).vae
    vae.parameters["decoder.1.W"][...] = 0
    expected = np.clip(images.mean(axis=0) / 255, 0.001, 0.999)  # a pixel that is always black would need −∞
    np.testing.assert_allclose(vae.decode(np.zeros((1, 2), np.float32))[0], expected, rtol=1e-4)


def test_weights_order_and_noise_of_a_seed_are_not_the_same_random_numbers():
    training = Training(Config(hidden=(4,), latent=2), dataset_of(np.zeros((10, 4), np.uint8)))
    streams = [training.stream(*purpose) for purpose in ((INITIAL_PARAMETERS,), (NOISE,), (ORDER, 0), (ORDER, 1))]
    streams += [np.random.default_rng(seed) for seed in (0, 1, 2)]
    assert len({stream.random() for stream in streams}) == 7


def test_training_terms_are_means_over_the_examples_of_the_epoch(few_digits, tmp_path):
    dataset = load(str(few_digits))
    config = Config(dataset=str(few_digits), hidden=(20,), latent=3, batch_size=256, learning_rate=1e-12, samples=3)
    training = Training(config, dataset)
    expected = loss_terms(training.vae, dataset.train_images, samples=50)  # of the model that hardly moves
    for _ in training.steps():
        pass
    training.rows = [{"seconds": 100}]
    row = train.measure(training, dataset)
    for name, values in expected.items():
        assert row[f"train_{name}"] == pytest.approx(values.mean(), rel=1e-3)
    for name, values in loss_terms(training.vae, dataset.test_images, samples=3).items():
        assert row[f"test_{name}"] == values.mean()
    assert row["seconds"] > 100
