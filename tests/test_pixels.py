"""Batches and labels; binarization: what is drawn, with which probability, and what is the same for everyone."""

import hashlib

import numpy as np
import pytest

from npvae.data.datasets import Dataset, load
from npvae.data.pixels import BINARIZATIONS, batch, binarize, draw_binary, one_hot


def test_a_batch_is_the_rows_over_255_in_float32():
    images = np.arange(256, dtype=np.uint8).reshape(64, 4)
    rows = np.random.default_rng(0).permutation(64)
    x = batch(images, rows)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, (images.astype(float) / 255)[rows].astype(np.float32))  # the nearest float32
    assert (x.min(), x.max()) == (0, 1)


def test_a_batch_holds_the_rows_that_were_asked_for_in_order():
    images = np.arange(10, dtype=np.uint8)[:, None]
    np.testing.assert_array_equal(np.rint(255 * batch(images, [7, 0, 7])), [[7], [0], [7]])
    np.testing.assert_array_equal(np.rint(255 * batch(images, slice(2, 4))), [[2], [3]])
    np.testing.assert_array_equal(images[:, 0], range(10))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
def test_a_batch_is_float32_of_whatever_whole_numbers(dtype):
    x = batch(np.array([[0, 255, 51]], dtype))
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, [[0, 1, 0.2]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, bool])
def test_a_batch_of_what_are_no_bytes_is_refused_with_what_to_do(dtype):
    with pytest.raises(
        ValueError, match=rf"images are {np.dtype(dtype)}, expected uint8 bytes 0…255: .*astype\(np.uint8\)"
    ):
        batch(np.ones((3, 4), dtype))


def test_one_hot_rows_pick_the_column_of_the_label():
    labels = np.array([2, 0, 1, 2], np.uint8)
    np.testing.assert_array_equal(one_hot(labels, [0, 1, 3], 3), [[0, 0, 1], [1, 0, 0], [0, 0, 1]])
    assert one_hot(labels, [0], 3).dtype == np.float32
    assert one_hot(None, [0], 0) is None


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (np.array([0.0, 1.0]), "labels are float64, expected whole numbers from 0 to 2"),
        (np.array([True, False]), "labels are bool, expected whole numbers from 0 to 2"),
        (None, "labels are object, expected whole numbers from 0 to 2"),
        (np.array([0, 3, 9], np.uint8), "a label is 3, expected whole numbers from 0 to 2"),
        (np.array([-1, 0]), "a label is -1, expected whole numbers from 0 to 2"),
    ],
)
def test_labels_that_have_no_column_are_refused(labels, says):
    with pytest.raises(ValueError, match=says):
        one_hot(labels, slice(None), 3)


def test_binary_draws_have_the_grey_value_as_their_mean(rng):
    images = np.tile(np.array([0, 1, 100, 128, 254, 255], np.uint8), (40_000, 1))
    drawn = draw_binary(images, rng)
    assert drawn.dtype == np.uint8
    assert set(np.unique(drawn)) == {0, 255}
    means, p = (drawn == 255).mean(axis=0), images[0] / 255
    assert (np.abs(means - p) <= 5 * np.sqrt(p * (1 - p) / 40_000)).all()  # exactly 0 and 1 at both ends


def test_binary_draws_of_neighbouring_pixels_are_independent(rng):
    drawn = draw_binary(np.full((20_000, 4), 128, np.uint8), rng)
    assert np.abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 0.04


@pytest.fixture
def grey(rng):
    images = rng.integers(0, 256, (200, 12), np.uint8)
    return Dataset("some", "of a test", (3, 4), images[:150], None, images[150:], None)


def test_threshold_is_at_one_half(grey):
    binary = binarize(grey, "threshold")
    np.testing.assert_array_equal(batch(binary.train_images), batch(grey.train_images) >= 0.5)
    np.testing.assert_array_equal(batch(binary.test_images), batch(grey.test_images) >= 0.5)


def test_test_sets_are_drawn_once_and_fixed_and_dynamic_share_theirs(grey):
    protocols = {how: binarize(grey, how) for how in BINARIZATIONS}
    for how, dataset in protocols.items():
        np.testing.assert_array_equal(binarize(grey, how).test_images, dataset.test_images)
        np.testing.assert_array_equal(binarize(grey, how).train_images, dataset.train_images)
    assert set(np.unique(protocols["fixed"].train_images)) == set(np.unique(protocols["fixed"].test_images)) == {0, 255}
    np.testing.assert_array_equal(protocols["dynamic"].test_images, protocols["fixed"].test_images)
    np.testing.assert_array_equal(protocols["dynamic"].train_images, grey.train_images)  # drawn for each batch
    np.testing.assert_array_equal(protocols["none"].test_images, grey.test_images)


def test_fixed_binarization_is_the_same_for_everyone(data_dir):
    """On every machine, with every NumPy: runs of different people are then about the same test set."""
    binary = binarize(load("strokes", str(data_dir)), "fixed")
    digests = [hashlib.sha256(images).hexdigest()[:16] for images in (binary.train_images, binary.test_images)]
    assert digests == ["569c0f77d765e271", "0fc39b632ab1f3df"]
