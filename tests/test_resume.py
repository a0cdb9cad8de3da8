"""How a run stops, fails and goes on: bit for bit, or not at all."""

import math
import os
import shutil
import signal
import subprocess

import numpy as np
import pytest

from npvae import train
from npvae.config import Config
from npvae.data.datasets import FILES, load
from npvae.data.idx import read_idx, write_idx
from npvae.runs import Run, load_data
from npvae.training import Diverged, Training
from tests.conftest import SMALL, command, heeding, run_train

VARIANTS = {
    "sgd": {"optimizer": "sgd"},
    "adagrad": {"optimizer": "adagrad"},
    "adam": {"optimizer": "adam"},
    "iwae, dynamic": {"objective": "iwae-dreg", "binarize": "dynamic", "conditional": True, "output_bias": "mean"},
    "gaussian, warm-up, stages": {"likelihood": "gaussian", "kl_warmup": 1.5, "learning_rate_schedule": ("1:1e-4",)},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_resume_is_bit_exact_wherever_training_stops(variant, few_digits, tmp_path, monkeypatch):
    settings = {"hidden": (30,), "latent": 3, "batch_size": 64, "samples": 2, "epochs": 2, **VARIANTS[variant]}
    config = Config(dataset=str(few_digits), learning_rate=1e-3, **settings)
    dataset = load_data(config)

    class StopAfter:
        """Stands for a Ctrl-C that comes during step number `steps`."""

        def __init__(self, steps):
            self.steps = steps

        @property
        def signal(self):
            self.steps -= 1
            return signal.SIGINT if self.steps < 0 else None

    def go(name, *stops):
        run = Run.create(tmp_path / name, config)
        training = Training(config, dataset)
        training.save(run)
        steps = []
        for stop in stops:
            step = training.optimizer.step
            training.optimizer.step = lambda step=step: steps.append(step())
            train.fit(training, run, dataset, stop)
            training = Training(config, dataset)  # as a new process would
            training.load(run)
            assert int(training.epoch) * 10 + math.ceil(training.examples / 64) == len(steps)  # no step is lost
        while training.epoch < config.epochs:
            train.fit(training, run, dataset, StopAfter(10**9))
        return (tmp_path / name / "checkpoint.npz").read_bytes(), run.metrics()

    whole, rows = go("whole")
    stopped, stopped_rows = go("stopped", StopAfter(3), StopAfter(9), StopAfter(0))
    assert stopped == whole
    for row, stopped_row in zip(rows, stopped_rows, strict=True):
        assert {**row, "seconds": 0} == {**stopped_row, "seconds": 0}


@pytest.mark.parametrize(("steps", "said"), [(3, "step 4 (epoch 1 of 2)"), (9, "step 10 (epoch 1 of 2)")])
def test_a_stop_ends_with_the_step_and_names_the_next(steps, said, few_digits, tmp_path, monkeypatch, capsys):
    """Ten steps are an epoch here, the last of 24 examples: a stop in the last but one leaves only it."""
    step, done = Training.beta, []

    def stop_in_step(training):
        done.append(training.step)
        if len(done) == steps:
            signal.raise_signal(signal.SIGTERM)
        return step(training)

    monkeypatch.setattr(Training, "beta", stop_in_step)
    arguments = ["--dataset", few_digits, *SMALL, "--epochs", 2, "--batch-size", 64, "--out", tmp_path / "run"]
    assert train.main(list(map(str, arguments))) == 143
    assert f"stopped by SIGTERM before {said} and saved" in capsys.readouterr().out
    assert int(Run.open(tmp_path / "run").load_checkpoint()["examples"]) == 64 * steps


def test_a_stop_in_the_last_step_of_an_epoch_can_be_resumed(few_digits, tmp_path, monkeypatch):
    step, done = Training.beta, []

    def stop_in_the_last(training):
        done.append(training.step)
        if len(done) == 10:
            signal.raise_signal(signal.SIGTERM)
        return step(training)

    monkeypatch.setattr(Training, "beta", stop_in_the_last)
    settings = [*SMALL, "--epochs", 1, "--batch-size", 64]
    arguments = ["--dataset", few_digits, *settings, "--out", tmp_path / "run"]
    assert train.main(list(map(str, arguments))) == 143
    monkeypatch.undo()
    assert train.main(["--resume", str(tmp_path / "run")]) == 0
    assert train.main(["--dataset", str(few_digits), *map(str, settings), "--out", str(tmp_path / "whole")]) == 0
    assert Run.open(tmp_path / "run").checkpoint.read_bytes() == Run.open(tmp_path / "whole").checkpoint.read_bytes()


def test_a_finished_run_that_is_resumed_is_left_as_it_is(finished, tmp_path, capsys):
    shutil.copytree(finished[0], tmp_path / "run")
    run = Run.open(tmp_path / "run")
    before = run.checkpoint.read_bytes(), run.metrics_file.read_bytes()
    assert train.main(["--resume", str(run.folder)]) == 0
    assert (run.checkpoint.read_bytes(), run.metrics_file.read_bytes()) == before
    assert f"after 3 epochs, {run.metrics()[-1]['seconds']:.0f} s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("a training loss", "the loss is nan"),
        ("a parameter", "a parameter is not finite"),
        ("a test loss", "the loss of a test image is not finite"),
        ("a parameter, at a stop", "a parameter is not finite"),
        ("a parameter, at a checkpoint within an epoch", "a parameter is not finite"),
    ],
)
def test_each_number_that_is_not_finite_ends_the_run_before_it_is_saved(what, said, few_digits, tmp_path, monkeypatch):
    """One guard at a time: everything but the one number stays finite."""
    dataset = load(str(few_digits))
    every = 0.0 if "checkpoint" in what else 1000.0
    config = Config(dataset=str(few_digits), hidden=(5,), latent=2, epochs=1, batch_size=600, checkpoint_every=every)
    run = Run.create(tmp_path / "run", config)
    training = Training(config, dataset)
    training.save(run)
    before = run.checkpoint.read_bytes()
    step, loss = training.optimizer.step, training.vae.loss

    class Stop:
        signal = None

    def spoil():
        step()
        training.vae.parameters.values[7] = np.nan
        if "stop" in what:
            Stop.signal = signal.SIGTERM

    if what == "a training loss":
        monkeypatch.setattr(training.vae, "loss", lambda *given: loss(*given) * np.nan)
    elif what == "a test loss":
        terms = {name: np.array([1.0, np.nan]) for name in ("loss", "reconstruction", "kl")}
        monkeypatch.setattr(train, "loss_terms", lambda *_: terms)
    else:
        monkeypatch.setattr(training.optimizer, "step", spoil)
    with pytest.raises(Diverged, match=said):
        train.fit(training, run, dataset, Stop)
    assert run.checkpoint.read_bytes() == before
    assert run.metrics() == []


@pytest.fixture(scope="module")
def undisturbed(data_dir, tmp_path_factory):
    """A run of six epochs that nothing stops: (its options, its checkpoint)."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    options = ("--dataset", "strokes", "--data-dir", data_dir, *SMALL, "--epochs", 6)
    assert run_train(*options, "--out", folder).returncode == 0
    return options, (folder / "checkpoint.npz").read_bytes()


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        (signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_resume_is_bit_exact_after_a_signal(number, code, undisturbed, tmp_path):
    (options, checkpoint), folder = undisturbed, tmp_path / "stopped"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command(*options, "--out", folder), **pipes, preexec_fn=heeding) as process:
        while not process.stdout.readline().startswith("epoch 1/6"):
            assert process.poll() is None
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err == ""
    if number != signal.SIGKILL:
        assert f"python -m npvae.train --resume {folder}" in out
        state = Run.open(folder).load_checkpoint()  # what was done since the last epoch is saved too
        step = int(state["epoch"]) * 120 + int(state["examples"]) // 100 + 1
        assert f"before step {step:,} (epoch {state['epoch'] + 1} of 6)" in out
    assert len(Run.open(folder).metrics()) < 6
    assert not list(folder.glob(".*")) or number == signal.SIGKILL  # no temporary file is left

    resumed = run_train("--resume", folder)
    assert resumed.returncode == 0, resumed.stderr
    assert (folder / "checkpoint.npz").read_bytes() == checkpoint
    assert [row["epoch"] for row in Run.open(folder).metrics()] == [1, 2, 3, 4, 5, 6]


def test_resume_with_more_epochs_is_the_longer_run(finished, few_digits, tmp_path):
    arguments = ("--dataset", few_digits, *SMALL, "--out", tmp_path / "run", "--epochs")
    assert run_train(*arguments, 1).returncode == 0
    assert run_train("--resume", tmp_path / "run", "--epochs", 3).returncode == 0
    assert (tmp_path / "run" / "checkpoint.npz").read_bytes() == (finished[0] / "checkpoint.npz").read_bytes()


def test_resume_goes_on_from_a_checkpoint_of_an_older_version(finished, few_digits, tmp_path):
    arguments = ("--dataset", few_digits, *SMALL, "--out", tmp_path / "run", "--epochs")
    assert run_train(*arguments, 1).returncode == 0
    run = Run.open(tmp_path / "run")
    state = run.load_checkpoint()
    del state["image_shape"], state["classes"]
    run.save_checkpoint(state)
    assert run_train("--resume", run.folder, "--epochs", 3).returncode == 0
    assert run.checkpoint.read_bytes() == (finished[0] / "checkpoint.npz").read_bytes()


def test_metrics_row_that_a_kill_left_without_its_checkpoint_is_written_anew(finished, few_digits, tmp_path):
    arguments = ("--dataset", few_digits, *SMALL, "--out", tmp_path / "run", "--epochs")
    assert run_train(*arguments, 1).returncode == 0
    run = Run.open(tmp_path / "run")
    run.write_metrics([*run.metrics(), {**run.metrics()[0], "epoch": 2}])
    assert run_train("--resume", run.folder, "--epochs", 3).returncode == 0
    rows, expected = run.metrics(), Run.open(finished[0]).metrics()
    assert [{**row, "seconds": 0} for row in rows] == [{**row, "seconds": 0} for row in expected]


def test_loss_that_is_not_finite_stops_the_run_and_names_the_last_good_checkpoint(few_digits, tmp_path):
    process = run_train("--dataset", few_digits, *SMALL, "--learning-rate", 1000, "--out", tmp_path / "run")
    assert process.returncode == 1
    assert process.stderr.count("\n") == 1
    assert "step " in process.stderr
    assert "learning rate 1000" in process.stderr
    assert str(tmp_path / "run" / "checkpoint.npz") in process.stderr
    assert np.isfinite(Run.open(tmp_path / "run").load_checkpoint()["parameters"]).all()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--latent", 4], "--latent cannot change"),
        (["--hidden", 30, 30], "--hidden cannot change"),
        (["--epochs", 2], "has finished 3"),
        (["--out", "elsewhere"], "--out"),
    ],
)
def test_resume_refuses_what_would_make_it_another_run(options, expected, finished, refused):
    assert expected in refused(train.main, ["--resume", finished[0], *options])


def damage(path, how):
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "emptied": b"", "other": b"not a run"}[how])


@pytest.mark.parametrize("name", ["config.json", "checkpoint.npz"])
@pytest.mark.parametrize("how", ["cut", "emptied", "other"])
def test_broken_run_is_refused_in_one_line_that_names_the_file(name, how, finished, tmp_path, refused):
    shutil.copytree(finished[0], tmp_path / "run")
    damage(tmp_path / "run" / name, how)
    assert name in refused(train.main, ["--resume", tmp_path / "run"])


@pytest.mark.parametrize("how", ["cut", "emptied", "other", "removed", "a row short"])
def test_metrics_are_made_anew_from_the_checkpoint(how, finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    path = tmp_path / "run" / "metrics.csv"
    before = path.read_text()
    if how == "removed":
        path.unlink()
    elif how == "a row short":
        path.write_text("".join(before.splitlines(keepends=True)[:-1]))
    else:
        damage(path, how)
    assert run_train("--resume", path.parent).returncode == 0

    def without_seconds(text):
        return [line.rpartition(",")[0] for line in text.splitlines()]

    assert without_seconds(path.read_text()) == without_seconds(before)
    assert path.read_text() == before or how != "a row short" or path.read_text().count("\n") == 4


def test_checkpoint_of_another_model_is_refused(finished, few_digits, tmp_path, refused):
    arguments = ("--dataset", few_digits, "--hidden", 31, "--epochs", 1, "--out", tmp_path / "run")
    assert run_train(*arguments).returncode == 0
    (tmp_path / "run" / "checkpoint.npz").write_bytes((finished[0] / "checkpoint.npz").read_bytes())
    assert "checkpoint.npz" in refused(train.main, ["--resume", tmp_path / "run"])


def test_parameters_that_are_not_finite_are_never_saved(few_digits, tmp_path):
    dataset = load(str(few_digits))
    run = Run.create(tmp_path / "run", Config(dataset=str(few_digits), hidden=(5,), latent=2, epochs=1))
    training = Training(run.config, dataset)
    training.save(run)
    before = run.checkpoint.read_bytes()
    training.optimizer.step = lambda: training.vae.parameters.values.fill(np.inf)
    with pytest.raises(Diverged), np.errstate(all="ignore"), train.StopRequest() as stop:
        train.fit(training, run, dataset, stop)
    assert run.checkpoint.read_bytes() == before
    assert run.metrics() == []


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(finished, tmp_path, monkeypatch):
    shutil.copytree(finished[0], tmp_path / "run")
    run = Run.open(tmp_path / "run")
    before = run.checkpoint.read_bytes(), (run.folder / "metrics.csv").read_bytes()

    def fail(descriptor):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        run.save_checkpoint({"parameters": np.zeros(3)})
    with pytest.raises(OSError, match="No space"):
        run.write_metrics([])
    assert (run.checkpoint.read_bytes(), (run.folder / "metrics.csv").read_bytes()) == before
    assert not list(run.folder.glob(".*"))


def test_second_ctrl_c_does_not_wait_for_the_step():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    try:
        with train.StopRequest() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.signal == signal.SIGINT
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_resume_on_other_images_is_refused(few_digits, tmp_path, refused):
    shutil.copytree(few_digits, tmp_path / "data")
    arguments = ("--dataset", tmp_path / "data", *SMALL, "--epochs", 1, "--out", tmp_path / "run")
    assert run_train(*arguments).returncode == 0
    for file in FILES:
        array = read_idx(tmp_path / "data" / file)
        write_idx(tmp_path / "data" / file, array[:500])
    assert "other images" in refused(train.main, ["--resume", tmp_path / "run", "--epochs", 2])


def test_moved_data_can_be_named_on_resume(few_digits, tmp_path):
    shutil.copytree(few_digits, tmp_path / "data")
    arguments = ("--dataset", tmp_path / "data", *SMALL, "--epochs", 1, "--out", tmp_path / "run")
    assert run_train(*arguments).returncode == 0
    (tmp_path / "data").rename(tmp_path / "moved")
    assert run_train("--resume", tmp_path / "run", "--epochs", 2).returncode == 2
    assert run_train("--resume", tmp_path / "run", "--epochs", 2, "--dataset", tmp_path / "moved").returncode == 0
    assert Run.open(tmp_path / "run").config.dataset == str((tmp_path / "moved").resolve())


@pytest.mark.parametrize(("name", "value"), [("epoch", -1), ("examples", 601), ("random_state", "{}")])
def test_checkpoint_at_an_impossible_place_is_refused(name, value, finished, tmp_path, refused):
    shutil.copytree(finished[0], tmp_path / "run")
    run = Run.open(tmp_path / "run")
    run.save_checkpoint(run.load_checkpoint() | {name: np.array(value)})
    assert "checkpoint.npz" in refused(train.main, ["--resume", run.folder, "--epochs", 4])
