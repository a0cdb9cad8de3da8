"""A run as a model that can be used: what `npvae.load` gives, and what it refuses."""

import re
import shutil

import numpy as np
import pytest

import npvae
from npvae import evaluate, plot
from npvae.commands import UserError
from npvae.config import Config
from npvae.data.datasets import FILES, load
from npvae.data.idx import read_idx, write_idx
from npvae.data.pixels import batch
from npvae.runs import Run
from npvae.training import Training
from tests.conftest import SMALL, run_train


def make_run(folder, dataset, **settings):
    """A run that is trained for no step."""
    run = Run.create(folder, Config(dataset=dataset.name, hidden=[5], latent=2, **settings))
    training = Training(run.config, dataset)
    training.save(run)
    return run, training.vae


@pytest.fixture
def without_data(few_digits, tmp_path):
    """The folder of a run whose images are gone, and the images."""
    shutil.copytree(few_digits, tmp_path / "data")
    arguments = ("--dataset", tmp_path / "data", *SMALL, "--epochs", 1, "--out", tmp_path / "run")
    assert run_train(*arguments).returncode == 0
    digits = load(str(tmp_path / "data"))
    shutil.rmtree(tmp_path / "data")
    return tmp_path / "run", digits


def test_a_loaded_model_reconstructs_and_samples_without_the_training_images(without_data):
    folder, digits = without_data
    vae = npvae.load(folder)
    np.testing.assert_array_equal(vae.parameters.values, Run.open(folder).load_checkpoint()["parameters"])
    assert vae.image_shape == (28, 28)
    assert vae.sample(16, np.random.default_rng(0)).reshape(16, *vae.image_shape).shape == (16, 28, 28)
    x = batch(digits.test_images)
    error = np.square(vae.reconstruct(x) - x).mean()
    assert error < np.square(x - x.mean()).mean()  # it has learned something


def test_a_loaded_conditional_model_knows_its_labels(few_digits, tmp_path):
    run, trained = make_run(tmp_path / "run", load(str(few_digits)), conditional=True, likelihood="gaussian")
    vae = npvae.load(str(run.folder))
    assert (vae.classes, vae.image_shape) == (10, (28, 28))
    np.testing.assert_array_equal(vae.parameters.values, trained.parameters.values)


def test_a_loaded_model_of_faces_has_their_shape(frey, tmp_path):
    run, _ = make_run(tmp_path / "run", load("frey", str(frey)))
    assert npvae.load(run.folder).image_shape == (28, 20)


@pytest.mark.parametrize("conditional", [False, True])
def test_a_checkpoint_of_an_older_version_asks_the_data_for_their_shape(conditional, few_digits, tmp_path):
    shutil.copytree(few_digits, tmp_path / "data")
    run, trained = make_run(tmp_path / "run", load(str(tmp_path / "data")), conditional=conditional)
    state = run.load_checkpoint()
    del state["image_shape"], state["classes"]
    run.save_checkpoint(state)
    vae = npvae.load(run.folder)
    assert (vae.image_shape, vae.classes) == ((28, 28), 10 * conditional)
    np.testing.assert_array_equal(vae.parameters.values, trained.parameters.values)
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "data"))):
        npvae.load(run.folder)


def test_what_is_not_a_run_is_not_loaded(tmp_path):
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UserError, match=f"^{re.escape(str(folder))} is not a run: it has no config.json$"):
            npvae.load(folder)
    Run.create(tmp_path / "run", Config())
    with pytest.raises(UserError, match=r"has no checkpoint.npz: the run stopped before it saved one$"):
        npvae.load(tmp_path / "run")


@pytest.mark.parametrize("shape", [np.array([0, 784]), np.array([784]), np.array([28.0, 28.0]), np.array([30, 30])])
def test_a_checkpoint_of_impossible_images_is_refused(shape, finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    run = Run.open(tmp_path / "run")
    run.save_checkpoint(run.load_checkpoint() | {"image_shape": shape})
    with pytest.raises(UserError, match=r"checkpoint.npz"):
        npvae.load(run.folder)


@pytest.mark.parametrize("main", [evaluate.main, plot.main], ids=["evaluate", "plot"])
def test_images_and_labels_of_another_kind_than_the_model_s_are_refused(main, few_digits, tmp_path, refused):
    data = tmp_path / "data"
    shutil.copytree(few_digits, data)
    run, _ = make_run(tmp_path / "run", load(str(data)), conditional=True)
    labels = {file: read_idx(data / file) for file in FILES if "labels" in file}
    for file, array in labels.items():
        write_idx(data / file, array % 7)
    assert "has 7 labels, expected 10, as in training" in refused(main, [run.folder])
    for file in set(FILES) - set(labels):
        write_idx(data / file, read_idx(data / file)[:, :20])
    assert "has images of 20 × 28 pixels, expected 28 × 28, as in training" in refused(main, [run.folder])


def test_data_that_have_moved_can_be_named(data_dir, tmp_path, capsys):
    shutil.copytree(data_dir, tmp_path / "data")
    arguments = ("--dataset", "strokes", "--data-dir", tmp_path / "data", *SMALL, "--epochs", 1)
    assert run_train(*arguments, "--out", tmp_path / "run").returncode == 0
    run = Run.open(tmp_path / "run")
    state = run.load_checkpoint()
    del state["image_shape"], state["classes"]  # also of an older version
    run.save_checkpoint(state)
    (tmp_path / "data").rename(tmp_path / "moved")
    assert evaluate.main([str(run.folder), "--data-dir", str(tmp_path / "moved")]) == 0
    assert "2,000 test examples" in capsys.readouterr().out
    assert not (tmp_path / "data").exists()  # where strokes that are missing would be drawn anew
    assert Run.open(run.folder).config.data_dir == str(tmp_path / "data")
