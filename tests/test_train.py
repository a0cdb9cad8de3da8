"""The training command: what it draws, measures and leaves behind, and what it refuses."""

import csv
import json
import os
import struct
import subprocess

import numpy as np
import pytest

from npvae import train
from npvae.config import Config
from npvae.data.datasets import load
from npvae.evaluate import bound_terms
from npvae.runs import COLUMNS, Run
from tests.conftest import SMALL, command, dataset_of, run_train


def test_run_leaves_settings_metrics_checkpoint_and_images(finished):
    folder, _ = finished
    assert {path.name for path in folder.iterdir()} == {"config.json", "metrics.csv", "checkpoint.npz", "images"}
    assert {path.name for path in (folder / "images").iterdir()} == {
        "learning-curves.png",
        "reconstructions.png",
        "samples.png",
    }
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["epoch"], row["examples"]) for row in rows] == [("1", "600"), ("2", "1200"), ("3", "1800")]
    for row in rows:
        assert (row["objective"], row["likelihood"], row["binarize"]) == ("elbo", "bernoulli", "none")
        assert (float(row["beta"]), float(row["learning_rate"])) == (1, 0.001)
        for split in ("train", "test"):
            terms = float(row[f"{split}_reconstruction"]) + float(row[f"{split}_kl"])
            assert float(row[f"{split}_loss"]) == pytest.approx(terms, rel=1e-6)
    assert json.loads((folder / "config.json").read_text())["hidden"] == [30]


def test_training_lowers_the_test_loss(finished):
    rows = Run.open(finished[0]).metrics()
    assert rows[0]["test_loss"] > rows[1]["test_loss"] > rows[2]["test_loss"]


def test_output_has_a_line_per_epoch_and_says_what_to_do_next(finished):
    folder, out = finished
    lines = out.splitlines()
    assert sum(line.startswith("epoch ") for line in lines) == 3
    assert f"{Run.open(folder).metrics()[-1]['test_loss']:.2f}" in lines[-3]
    assert str(folder) in lines[-3]
    assert f"python -m npvae.plot {folder}" in lines[-2]
    assert f"python -m npvae.evaluate {folder}" in lines[-1]


def test_checkpoint_needs_no_pickle(finished):
    with np.load(finished[0] / "checkpoint.npz", allow_pickle=False) as archive:
        assert all(archive[name].dtype.kind in "iufU" for name in archive.files)


def test_same_settings_same_checkpoint_and_another_seed_another(finished, few_digits, tmp_path):
    checkpoint = (finished[0] / "checkpoint.npz").read_bytes()
    arguments = ("--dataset", few_digits, *SMALL, "--epochs", 3, "--out")
    assert run_train(*arguments, tmp_path / "same").returncode == 0
    assert (tmp_path / "same" / "checkpoint.npz").read_bytes() == checkpoint
    assert run_train(*arguments, tmp_path / "other", "--seed", 1).returncode == 0
    assert (tmp_path / "other" / "checkpoint.npz").read_bytes() != checkpoint


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_bar_on_a_terminal_shows_loss_reconstruction_kl_and_images_per_second(data_dir, tmp_path):
    import fcntl
    import termios

    terminal, end = os.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))  # 40 lines of 120 characters
    arguments = ("--dataset", "strokes", "--data-dir", data_dir, "--epochs", 1, "--out", tmp_path / "run")
    with subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=end) as process:
        os.close(end)
        shown = b""
        while True:
            try:
                piece = os.read(terminal, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            shown += piece
    os.close(terminal)
    assert process.returncode == 0
    shown = shown.decode()
    for part in ("epoch 1/1", "loss ", " + KL ", "images/s"):
        assert part in shown


BAD_OPTIONS = {
    "--epochs 0": "from 1 to",
    "--epochs ten": "from 1 to",
    "--latent -3": "from 1 to",
    "--latent 2.5": "whole number",
    "--hidden 0": "from 1 to",
    "--hidden 100 0": "from 1 to",
    "--batch-size 0": "from 1 to",
    "--samples 0": "from 1 to",
    "--learning-rate 0": "above 0",
    "--learning-rate -1": "above 0",
    "--learning-rate nan": "above 0",
    "--learning-rate 1001": "at most 1,000",
    f"--seed {2**63}": "from 0 to",
    "--learning-rate fast": "above 0",
    "--seed -1": "from 0 to",
    "--activation gelu": "tanh, relu, softplus",
    "--optimizer adamw": "sgd, adagrad, adam",
    "--dataset nonesuch": "auto, mnist",
    "--epoch 3": "--epoch",
    "--resume nowhere": "nowhere",
}


@pytest.mark.parametrize("options", BAD_OPTIONS)
def test_wrong_value_is_refused_by_name_with_what_is_allowed(options, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refused(train.main, options.split())
    assert (
        options.split()[1] in message
        if options.split()[0] in ("--dataset", "--resume")
        else options.split()[0] in message
    )
    assert BAD_OPTIONS[options] in message
    assert not list(tmp_path.iterdir())  # nothing half-made is left


def test_help_states_every_default(capsys):
    with pytest.raises(SystemExit) as exit:
        train.main(["--help"])
    assert exit.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    defaults = "auto 500 20 tanh adam 0.001 100 1 10 0".split()
    for value in defaults:
        assert f"(default: {value})" in text


def test_taken_name_is_refused_and_the_run_there_is_untouched(finished, few_digits, refused):
    folder, _ = finished
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    message = refused(train.main, ["--dataset", few_digits, "--out", folder])
    assert f"--resume {folder}" in message
    assert before == {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.mnist
def test_two_epochs_on_mnist_reach_the_loss_that_pytorch_reaches(tmp_path):
    process = run_train("--dataset", "mnist", "--epochs", 2, "--out", tmp_path / "run")
    assert process.returncode == 0
    assert Run.open(tmp_path / "run").metrics()[-1]["test_loss"] == pytest.approx(119.5, abs=1.5)


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
    _, noise, _, _ = record(train.Training(config, dataset_of(rng.integers(0, 256, (2000, 9), np.uint8))), epochs=2)
    values = np.stack(noise).reshape(len(noise), -1)  # (8, 8000)
    assert values.mean() == pytest.approx(0, abs=0.02)
    assert values.var() == pytest.approx(1, abs=0.03)
    assert (values**4).mean() == pytest.approx(3, abs=0.2)  # 1.8 if it were uniform
    correlation = np.corrcoef(values) - np.eye(len(values))
    assert np.abs(correlation).max() < 0.06


def test_each_epoch_goes_through_all_images_in_another_order():
    images = np.arange(250, dtype=np.uint8)[:, None] * np.ones((1, 4), np.uint8)
    batches, *_ = record(train.Training(Config(hidden=(4,), latent=2, batch_size=60), dataset_of(images)), epochs=3)
    orders = np.rint(np.concatenate(batches)[:, 0] * 255).reshape(3, 250)
    assert (np.sort(orders, axis=1) == np.arange(250)).all()
    assert len(np.unique(orders, axis=0)) == 3
    assert (orders != np.arange(250)).any(axis=1).all()


def test_weights_order_and_noise_of_a_seed_are_not_the_same_random_numbers():
    training = train.Training(Config(hidden=(4,), latent=2), dataset_of(np.zeros((10, 4), np.uint8)))
    streams = [
        training.stream(*purpose) for purpose in ((train.WEIGHTS,), (train.NOISE,), (train.ORDER, 0), (train.ORDER, 1))
    ]
    streams += [np.random.default_rng(seed) for seed in (0, 1, 2)]
    assert len({stream.random() for stream in streams}) == 7


def test_training_terms_are_means_over_the_examples_of_the_epoch(few_digits, tmp_path):
    dataset = load(str(few_digits))
    config = Config(dataset=str(few_digits), hidden=(20,), latent=3, batch_size=256, learning_rate=1e-12, samples=3)
    training = train.Training(config, dataset)
    expected = bound_terms(training.vae, dataset.train_images, samples=50)  # of the model that hardly moves
    for _ in training.steps():
        pass
    row = train.measure(training, dataset, 100)
    for name, values in expected.items():
        assert row[f"train_{name}"] == pytest.approx(values.mean(), rel=1e-3)
    for name, values in bound_terms(training.vae, dataset.test_images, samples=3).items():
        assert row[f"test_{name}"] == values.mean()
    assert row["seconds"] > 100


def test_run_finds_its_data_from_another_folder_and_more_epochs_are_written_down(data_dir, tmp_path):
    relative = os.path.relpath(data_dir, tmp_path)
    options = ("--dataset", "strokes", "--data-dir", relative, *SMALL, "--epochs", 1, "--out", "run")
    subprocess.run(command(*options), cwd=tmp_path, check=True, capture_output=True)
    assert run_train("--resume", tmp_path / "run", "--epochs", 2).returncode == 0
    config = Run.open(tmp_path / "run").config
    assert (config.epochs, config.data_dir) == (2, str(data_dir.resolve()))
    seconds = [row["seconds"] for row in Run.open(tmp_path / "run").metrics()]
    assert 0 < seconds[0] < seconds[1]


def test_mistake_in_a_process_is_one_line_that_names_the_command(tmp_path):
    process = run_train("--dataset", tmp_path / "nothing")
    assert process.returncode == 2
    assert process.stderr.startswith("python -m npvae.train: ")
    assert process.stderr.count("\n") == 1


def test_reader_that_goes_away_is_no_traceback(data_dir, tmp_path):
    options = ("--dataset", "strokes", "--data-dir", data_dir, *SMALL, "--epochs", 3, "--out", tmp_path / "run")
    with subprocess.Popen(command(*options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""


def test_two_runs_without_a_name_in_the_same_second_have_two_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for expected in ("mnist-1", "mnist-1-2", "mnist-1-3"):
        Run.create(train.free_name("mnist-1"), Config())
        assert (tmp_path / "runs" / expected).is_dir()


@pytest.mark.parametrize("option", ["--resume", "--out", "--dataset"])
def test_empty_text_is_not_taken_for_the_default(option, few_digits, tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = [] if option == "--dataset" else ["--dataset", few_digits]
    refused(train.main, [*dataset, option, "", "--epochs", 1])
    assert not list(tmp_path.iterdir())


def test_run_that_cannot_be_begun_leaves_its_name_free(few_digits, tmp_path, refused, monkeypatch):
    def fail(descriptor):
        raise OSError(f"No space left on device: {tmp_path}")

    monkeypatch.setattr(os, "fsync", fail)
    assert "No space" in refused(train.main, ["--dataset", few_digits, "--out", tmp_path / "run"])
    assert not (tmp_path / "run").exists()


def test_output_that_the_terminal_cannot_encode_is_not_an_error():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    process = subprocess.run(command("--help"), capture_output=True, text=True, env=environment)
    assert (process.returncode, process.stderr) == (0, "")
