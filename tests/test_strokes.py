import numpy as np
import pytest

from npvae.data.datasets import load
from npvae.data.strokes import TEMPLATES, draw_digits
from tests.conftest import nearest_neighbour


@pytest.fixture(scope="module")
def digits():
    images, labels = draw_digits(2000, np.random.default_rng(7))
    return images, labels


def test_same_seed_same_digits_and_another_seed_others():
    first, again, other = (draw_digits(50, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("count", [0, 1, 14, 65])
def test_classes_are_equally_frequent_for_any_count(count):
    images, labels = draw_digits(count, np.random.default_rng(3))
    assert images.shape == (count, 28, 28)
    assert images.dtype == labels.dtype == np.uint8
    frequency = np.bincount(labels, minlength=10)
    assert frequency.max() - frequency.min() <= 1


def test_ink_fills_a_box_of_20_pixels(digits):
    images, _ = digits
    extents = []
    for axis in (1, 2):
        inked = images.max(axis=axis) > 0  # (N, 28)
        extents.append(28 - inked.argmax(axis=1) - inked[:, ::-1].argmax(axis=1))
    longest = np.maximum(*extents)
    assert longest.max() <= 20
    assert np.median(longest) == 20


def centres_of_mass(images):
    """Rows and columns, counted from 0, (2, N)."""
    mass = images.sum(axis=(1, 2), dtype=float)
    return np.stack([images.sum(axis=axis) @ np.arange(28) / mass for axis in (2, 1)])


def test_centre_of_mass_is_within_half_a_pixel_of_the_middle(digits):
    off = np.abs(centres_of_mass(digits[0]) - 14)
    assert np.mean(off <= 0.5 + 1e-2) > 0.95  # moved by whole pixels; a long tail is kept from the border instead


@pytest.mark.mnist
def test_centre_of_mass_is_where_mnist_has_it(digits):
    ours, theirs = (centres_of_mass(images.reshape(-1, 28, 28)) for images in (digits[0], load("mnist").test_images))
    np.testing.assert_allclose(ours.mean(axis=1), theirs.mean(axis=1), atol=0.1)


def test_no_two_digits_are_alike(digits):
    images, _ = digits
    assert len(np.unique(images.reshape(2000, -1), axis=0)) == 2000


def test_every_class_has_several_templates():
    assert len(TEMPLATES) == 10
    assert min(map(len, TEMPLATES)) >= 3


def test_a_classifier_that_learned_on_some_digits_reads_others(digits):
    images, labels = digits
    flat = images.reshape(2000, -1)
    read = nearest_neighbour(flat[:1500], labels[:1500], flat[1500:])
    assert np.mean(read == labels[1500:]) > 0.85


@pytest.mark.mnist
@pytest.mark.slow
def test_a_classifier_that_learned_on_mnist_reads_most_digits_of_every_class(digits):
    images, labels = digits
    mnist = load("mnist")
    read = nearest_neighbour(mnist.train_images[:20_000], mnist.train_labels[:20_000], images.reshape(2000, -1))
    right = [np.mean(read[labels == digit] == digit) for digit in range(10)]
    assert min(right) > 0.75
    assert np.mean(right) > 0.9


@pytest.mark.mnist
def test_digits_have_the_grey_levels_of_mnist(digits):
    images, _ = digits
    mnist = load("mnist").test_images
    for statistic in (np.mean, np.std, lambda pixels: np.mean(pixels == 0), lambda pixels: np.mean(pixels > 250)):
        assert statistic(images) == pytest.approx(statistic(mnist), rel=0.1)
