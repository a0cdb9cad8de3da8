import os
from pathlib import Path

import numpy as np
import pytest

from npvae.data.datasets import FILES, load
from npvae.data.idx import write_idx


def pytest_collection_modifyitems(items):
    if not (os.environ.get("NPVAE_DATA") and Path(os.environ["NPVAE_DATA"], "mnist").is_dir()):
        for item in items:
            if item.get_closest_marker("mnist"):
                item.add_marker(pytest.mark.skip(reason="no MNIST files in $NPVAE_DATA/mnist"))


@pytest.fixture
def rng():
    return np.random.default_rng(20131220)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A data folder that holds the built-in digits."""
    folder = tmp_path_factory.mktemp("data")
    load("strokes", str(folder))
    return folder


@pytest.fixture(scope="session")
def few_digits(data_dir, tmp_path_factory):
    """A folder with four IDX files of 600 training and 200 test digits, for training in a moment."""
    folder = tmp_path_factory.mktemp("few")
    digits = load("strokes", str(data_dir))
    arrays = [digits.train_images[:600].reshape(-1, 28, 28), digits.train_labels[:600]]
    arrays += [digits.test_images[:200].reshape(-1, 28, 28), digits.test_labels[:200]]
    for file, array in zip(FILES, arrays, strict=True):
        write_idx(folder / file, array)
    return folder
