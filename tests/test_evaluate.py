import copy
import dataclasses
import functools
import io
import json
import shutil
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.image import imread
from tqdm import tqdm

from npvae import VAE, evaluate
from npvae.config import Config
from npvae.data.datasets import FILES, load
from npvae.data.idx import read_idx, write_idx
from npvae.data.pixels import batch
from npvae.evaluate import estimates, loss_terms
from npvae.parallel import ALONE
from npvae.runs import Run
from tests.conftest import SMALL, joint_on_a_line, run_train


@pytest.fixture
def tiny(rng):
    """A VAE with one latent, 40 binary images of 5 pixels, and log p(x) of each, integrated."""
    vae = VAE(5, (4,), 1, dtype=np.float64)
    vae.parameters.values[...] = rng.normal(0, 0.7, vae.parameters.values.size)
    for i in range(2):
        vae.parameters[f"encoder.{i}.W"][...] *= 0.5  # q(z|x) is nowhere much narrower than the true posterior
    images = rng.integers(0, 2, (40, 5), np.uint8) * np.uint8(255)
    _, dz, log_joint = joint_on_a_line(vae, batch(images))
    return vae, images, np.log(np.exp(log_joint).sum(axis=1) * dz)


def test_importance_sampling_finds_log_p_x(tiny):
    vae, images, exact = tiny
    terms = estimates(vae, images, None, 20_000, (1, 5, 50, 20_000))
    np.testing.assert_allclose(-terms["iwae"][3], exact, atol=0.05)
    gaps = (terms["iwae"] + exact).mean(axis=1)
    assert gaps[0] > gaps[1] > gaps[2] > gaps[3] - 0.01
    elbo = terms["reconstruction"] + terms["kl"].sum(axis=1)
    np.testing.assert_allclose(elbo, terms["iwae"][0], atol=0.2)  # the closed form and its estimate
    assert abs(gaps[3]) < 0.01


def test_bounds_are_ordered_for_every_example(tiny):
    vae, images, _ = tiny
    terms = estimates(vae, images, None, 500, (1, 5, 50, 500))
    assert (np.diff(terms["iwae"], axis=0) <= 1e-12).all()  # the groups of one are parts of those of the next


@pytest.mark.parametrize(
    ("samples", "bounds", "says"),
    [
        (0, (), "samples is 0, expected 1 or more"),
        (10, (1, 11), "bounds are 1, 11: expected each from 1 to samples, 10"),
        (10, (0, 5), "bounds are 0, 5: expected each from 1 to samples, 10"),
    ],
)
def test_bounds_of_samples_that_are_not_there_are_refused_before_any_work(samples, bounds, says, tiny):
    vae, images, _ = tiny
    vae.encode = None
    with pytest.raises(ValueError, match=says):
        estimates(vae, images, None, samples, bounds)


@pytest.mark.parametrize(("rows", "block"), [(1, 500), (100_000, 500), (500, 40)])
def test_estimates_do_not_depend_on_how_much_is_decoded_at_once(rows, block, tiny, monkeypatch):
    vae, images, _ = tiny
    expected = estimates(vae, images, None, 30, (5, 30))
    monkeypatch.setattr(evaluate, "DECODED_AT_ONCE", rows)
    monkeypatch.setattr(evaluate, "ENCODED_AT_ONCE", block)
    for name, values in estimates(vae, images, None, 30, (5, 30)).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-5)


class Thread:
    """One of several threads that do together what the processes of a `parallel.Team` do."""

    def __init__(self, rank, said, barrier):
        self.rank, self.size, self.said, self.barrier = rank, len(said), said, barrier

    def exchange(self, value):
        self.said[self.rank] = value
        self.barrier.wait(20)
        everything = list(self.said)
        self.barrier.wait(20)
        return everything

    def all_reduce(self, array):
        array[...] = sum(self.exchange(array.copy()))
        return array

    def most(self, *numbers):
        return tuple(map(max, *self.exchange(numbers)))


def in_threads(size, function):
    """What `function(team)` returns in each of so many threads."""
    said, barrier = [None] * size, threading.Barrier(size)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: function(Thread(rank, said, barrier)), range(size)))


@pytest.mark.parametrize("size", [2, 3, 5])
def test_estimates_of_several_processes_are_those_of_one(size, tiny, monkeypatch):
    vae, images, _ = tiny
    monkeypatch.setattr(evaluate, "ENCODED_AT_ONCE", 7)  # six blocks, the last of five
    one = estimates(vae, images, None, 20, (1, 20))
    found = in_threads(size, lambda team: estimates(copy.deepcopy(vae), images, None, 20, (1, 20), team=team))
    for several in found:
        for name, array in one.items():
            np.testing.assert_array_equal(several[name], array, name)


@pytest.mark.parametrize(
    ("size", "block", "done"), [(1, 0, 0), (1, 4, 28), (1, 5, 35), (3, 1, 0), (3, 4, 21), (3, 5, 21)]
)
def test_estimates_that_are_stopped_in_one_process_are_of_the_rounds_before_in_all(
    size, block, done, tiny, monkeypatch
):
    vae, images, _ = tiny
    monkeypatch.setattr(evaluate, "ENCODED_AT_ONCE", 7)
    whole = estimates(vae, images, None, 20, (20,))
    stops = [SimpleNamespace(signal=None) for _ in range(size)]

    def noise(index, seed, noise=evaluate.noise):
        if index == block:
            stops[index % size].signal = 15  # of the process that has this block
        return noise(index, seed)

    monkeypatch.setattr(evaluate, "noise", noise)

    def stopped(team):
        stop = stops[team.rank if size > 1 else 0]
        return estimates(copy.deepcopy(vae), images, None, 20, (20,), stop=stop, team=team)

    for terms in in_threads(size, stopped) if size > 1 else [stopped(ALONE)]:
        for name, array in terms.items():
            np.testing.assert_array_equal(array, whole[name][:, :done] if name == "iwae" else whole[name][:done], name)
    assert [stop.signal for stop in stops] == [15] * size


def test_memory_stays_under_a_gigabyte_with_5000_samples(rng):
    vae = VAE(4, (2,), 1, rng=rng)
    images = rng.integers(0, 256, (600, 4), np.uint8)
    tracemalloc.start()
    estimates(vae, images, None, 5000, (1, 50, 5000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300e6


def test_memory_does_not_grow_with_the_samples_of_large_images(rng):
    """Decoded all at once, 30 images of 784 pixels with 1000 samples of each would take 94 MB, several times over."""
    vae = VAE(784, (2,), 1, rng=rng)
    tracemalloc.start()
    estimates(vae, rng.integers(0, 256, (30, 784), np.uint8), None, 1000, (1000,))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6  # a few arrays of 500 × 784 float32


@pytest.mark.parametrize(
    ("encoded", "held", "decoded", "blocks", "chunks"),
    [
        (500, 5_000_000, 500, [40], [12, 12, 6]),  # of 40 images, and of the 30 samples of each
        (15, 5_000_000, 45, [15, 15, 10], [3] * 20 + [4] * 7 + [2]),
        (500, 390, 500, [13, 13, 13, 1], [30] * 4),  # 13 images × 30 samples are 390
        (500, 10, 1, [1] * 40, [1] * 1200),
    ],
)
def test_no_more_is_encoded_held_or_decoded_at_once_than_is_allowed(
    encoded, held, decoded, blocks, chunks, tiny, monkeypatch
):
    vae, images, _ = tiny
    found_blocks, found_chunks, encode, decoder_outputs = [], [], vae.encode, vae.decoder_outputs
    vae.encode = lambda x, y: found_blocks.append(len(x)) or encode(x, y)
    vae.decoder_outputs = lambda z, y: found_chunks.append(len(z)) or decoder_outputs(z, y)
    monkeypatch.setattr(evaluate, "ENCODED_AT_ONCE", encoded)
    monkeypatch.setattr(evaluate, "LOG_WEIGHTS_AT_ONCE", held)
    monkeypatch.setattr(evaluate, "DECODED_AT_ONCE", decoded)
    estimates(vae, images, None, 30)
    assert (found_blocks, found_chunks) == (blocks, chunks)


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("progress", [{}, {"progress": False}, {"progress": True}])
def test_a_bar_that_counts_the_samples_is_shown_where_it_is_asked_for_on_a_terminal(
    progress, terminal, tiny, monkeypatch
):
    vae, images, _ = tiny
    screen = io.StringIO()
    screen.isatty = lambda: terminal
    monkeypatch.setattr(evaluate, "tqdm", functools.partial(tqdm, file=screen, mininterval=0, miniters=1))
    estimates(vae, images, None, 30, **progress)
    if not (terminal and progress.get("progress")):
        assert screen.getvalue() == ""
        return
    shown = screen.getvalue().split("\r")
    for part in ("480/1.20k ", "960/1.20k ", "1.20k/1.20k ", " samples/s"):
        assert any(part in text for text in shown)
    assert shown[-1].strip(" ") == ""  # in the end the bar is wiped away


def certain(classes, rng, noisy=()):
    """A conditional VAE whose z is mu for all noise; with `noisy`, those latents are those of the prior instead."""
    vae = VAE(12, (7,), 3, classes=classes, rng=rng)
    vae.parameters["encoder.1.W"][:, 3:] = 0
    vae.parameters["encoder.1.b"][3:] = -80
    for j in noisy:
        vae.parameters["encoder.1.W"][:, j] = vae.parameters["encoder.1.b"][[j, 3 + j]] = 0
        vae.parameters["decoder.0.W"][j] = 0
    return vae


@pytest.mark.parametrize("block", [1, 16, 40])
def test_images_keep_their_places_and_labels_in_whatever_blocks_they_are_encoded(block, rng, monkeypatch):
    images, labels = rng.integers(0, 256, (40, 12), np.uint8), rng.integers(0, 4, 40, np.uint8)
    vae, x, y = certain(4, rng), batch(images), np.eye(4, dtype=np.float32)[labels]
    monkeypatch.setattr(evaluate, "ENCODED_AT_ONCE", block)
    terms = estimates(vae, images, labels, 3)
    mu, logvar = (array.astype(float) for array in vae.encode(x, y))
    np.testing.assert_allclose(terms["mu"], mu, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(terms["kl"], (mu**2 + np.exp(logvar) - 1 - logvar) / 2, rtol=1e-5)
    y_of_z = 1 / (1 + np.exp(-vae.decoder_outputs(vae.encode(x, y)[0], y).astype(float)))
    expected = -(x * np.log(y_of_z) + (1 - x) * np.log(1 - y_of_z)).sum(axis=1)
    np.testing.assert_allclose(terms["reconstruction"], expected, rtol=1e-5)


@pytest.mark.parametrize("block", [1, 16, 40])
def test_bounds_of_a_decoder_without_latents_are_log_p_x_in_whatever_blocks(block, rng, monkeypatch):
    """With q(z|x) = p(z), and a decoder that ignores z, every importance weight is p(x): of any image, in any block."""
    images = rng.integers(0, 256, (40, 12), np.uint8)
    vae = certain(0, rng, noisy=range(3))
    monkeypatch.setattr(evaluate, "ENCODED_AT_ONCE", block)
    terms = estimates(vae, images, None, 7, (1, 2, 7))
    np.testing.assert_allclose(terms["iwae"], np.tile(terms["reconstruction"], (3, 1)), rtol=1e-6)
    assert terms["reconstruction"].std() > 0.01


def test_a_latent_that_the_decoder_ignores_is_not_active(finished, few_digits, tmp_path):
    run = Run(tmp_path / "run", Run.open(finished[0]).config)
    shutil.copytree(finished[0], run.folder)
    dataset, state = load(str(few_digits)), dict(np.load(run.checkpoint))
    vae = run.vae()
    last, logvar = vae.parameters["encoder.1.W"], 3
    last[:, [1, logvar + 1]] = 0  # mu and logvar of the second of three latents no longer depend on x
    vae.parameters["encoder.1.b"][[1, logvar + 1]] = 0
    last[:, 2] *= 100
    run.save_checkpoint(state | {"parameters": vae.parameters.values})
    result = evaluate.evaluate(run, dataset, 1)
    assert result["kl_of_latents"][1] == result["variance_of_mu"][1] == 0
    assert result["active_units"] == sum(value > 0.01 for value in result["variance_of_mu"])
    assert 1 <= result["active_units"] <= 2
    assert sum(result["kl_of_latents"]) == pytest.approx(result["kl"]["mean"])


def test_importance_samples_leave_an_evaluation_and_a_plot_in_the_run(finished, tmp_path, capsys):
    shutil.copytree(finished[0], tmp_path / "run")
    answers = []
    for _ in range(2):
        assert evaluate.main([str(tmp_path / "run"), "--importance-samples", "500", "--json"]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]  # the same noise each time
    result = json.loads(answers[0])
    assert list(result["iwae_loss"]) == ["1", "5", "50", "500"]
    assert result["negative_log_likelihood"] == result["iwae_loss"]["500"]
    losses = [value["mean"] for value in result["iwae_loss"].values()]
    assert losses[0] > losses[1] > losses[2] > losses[3]
    assert losses[0] == pytest.approx(result["elbo_loss"]["mean"], abs=0.5)
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text()) == result
    assert imread(tmp_path / "run" / "images" / "bounds.png")[..., :3].std() > 0.01


def test_another_seed_draws_other_samples_and_is_kept_with_the_numbers(finished, capsys):
    found = {}
    for seed in (None, 1, 2):
        options = [] if seed is None else ["--noise-seed", str(seed)]
        assert evaluate.main([str(finished[0]), "--json", *options]) == 0
        found[seed] = json.loads(capsys.readouterr().out)
    assert found[None] == found[1]
    assert found[2]["noise_seed"] == 2
    one, two = (found[seed]["reconstruction"]["mean"] for seed in (1, 2))
    assert one != two
    assert one == pytest.approx(two, abs=1)
    assert found[1]["kl"] == found[2]["kl"]  # in closed form


def test_a_look_without_importance_samples_leaves_the_evaluation_alone(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    assert evaluate.main([str(tmp_path / "run"), "--importance-samples", "7"]) == 0
    kept = (tmp_path / "run" / "evaluation.json").read_bytes()
    assert evaluate.main([str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "evaluation.json").read_bytes() == kept


def test_evaluation_that_cannot_be_kept_is_printed_nevertheless(finished, tmp_path, capsys, monkeypatch):
    def full(run, result):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Run, "save_evaluation", full)
    assert evaluate.main([str(finished[0]), "--importance-samples", "500"]) == 2
    out, err = capsys.readouterr()
    assert "−log p(x)" in out
    assert "No space left" in err
    assert err.count("\n") == 1


def test_conditional_and_gaussian_runs_say_what_their_numbers_are_about(few_digits, tmp_path, capsys):
    options = ("--dataset", few_digits, *SMALL, "--epochs", 1, "--conditional", "--likelihood", "gaussian")
    assert run_train(*options, "--out", tmp_path / "run").returncode == 0
    assert evaluate.main([str(tmp_path / "run"), "--importance-samples", "500"]) == 0
    out = capsys.readouterr().out
    for part in ("−log p(x|y)", "grey pixels, byte / 255, with a Gaussian density, given their labels"):
        assert part in out


def test_command_evaluates_on_the_data_of_data_dir(moved, capsys):
    run, elsewhere = moved
    assert evaluate.main([str(run.folder), "--data-dir", str(elsewhere), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["examples"] == len(load("strokes", str(elsewhere)).test_images) == 60


def test_one_sample_is_not_announced_as_an_estimate_of_log_p_x(finished, capsys):
    """Its mean is the ELBO, nats away from −log p(x); from 500 samples on the gap is small."""
    assert evaluate.main([str(finished[0])]) == 0
    out = capsys.readouterr().out
    assert "−IWAE bound, K = 1 " in out
    assert "−log p(x)" not in out
    run = Run.open(finished[0])
    dataset = few_of(run.dataset(), 5)
    for samples, announced in ((1, False), (499, False), (500, True)):
        result = evaluate.evaluate(run, dataset, samples)
        assert (result["negative_log_likelihood"] is not None) == announced
        assert any("−log p(x), estimate" in line for line in evaluate.describe(result, run.config)) == announced


def few_of(dataset, count):
    return dataclasses.replace(
        dataset, test_images=dataset.test_images[:count], test_labels=dataset.test_labels[:count]
    )


def test_evaluation_says_after_how_many_epochs_it_is(finished):
    run = Run.open(finished[0])
    dataset = few_of(run.dataset(), 5)
    assert evaluate.evaluate(run, dataset, 1)["epochs"] == 3
    with_part = run.load_checkpoint() | {"examples": np.array(150)}  # of 600
    run.load_checkpoint = lambda: with_part
    result = evaluate.evaluate(run, dataset, 1)
    assert result["epochs"] == 3.25
    assert "5 test examples after 3.25 epochs of elbo" in next(evaluate.describe(result, run.config))


@pytest.mark.parametrize("samples", ["0", "-1", "many", "1.5", "10000001"])
def test_number_of_importance_samples_that_makes_no_sense_is_refused(samples, finished, refused):
    assert "--importance-samples" in refused(evaluate.main, [finished[0], "--importance-samples", samples])


def test_terms_of_an_example_do_not_depend_on_the_other_examples(rng):
    vae = VAE(12, (7,), 3, rng=rng)
    images = rng.integers(0, 256, (1200, 12), np.uint8)
    whole = loss_terms(vae, images)
    part = loss_terms(vae, images[:1000])
    for name in whole:
        np.testing.assert_array_equal(whole[name][:1000], part[name])
    np.testing.assert_array_equal(whole["loss"], whole["reconstruction"] + whole["kl"])


def test_more_samples_estimate_the_same_loss_with_less_noise(rng):
    vae = VAE(12, (7,), 3, rng=rng)
    vae.parameters.values *= 5  # far from the prior, so that the noise matters
    images = np.tile(rng.integers(0, 256, (1, 12), np.uint8), (2000, 1))  # one image, 2000 times: the spread is noise
    one, many = loss_terms(vae, images)["reconstruction"], loss_terms(vae, images, samples=16)["reconstruction"]
    assert abs(one.mean() - many.mean()) < 5 * one.std() / np.sqrt(2000)
    assert many.std() == pytest.approx(one.std() / 4, rel=0.15)


def test_json_repeats_the_last_row_of_the_metrics_with_standard_errors(finished, few_digits, capsys):
    run = Run.open(finished[0])
    assert evaluate.main([str(run.folder), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    last = run.metrics()[-1]
    assert result["examples"] == 200
    assert result["unit"] == "nats per example"
    dataset = load(str(few_digits))
    terms = loss_terms(run.vae(), dataset.test_images)
    for name in ("loss", "reconstruction", "kl"):
        result[name] = result["elbo_loss" if name == "loss" else name]
        assert result[name]["mean"] == pytest.approx(last[f"test_{name}"], abs=1e-6)
        variance = np.square(terms[name] - terms[name].mean()).sum() / 199
        assert result[name]["standard_error"] == pytest.approx(np.sqrt(variance / 200))


def test_text_names_the_data_the_unit_and_the_protocol(finished, capsys):
    assert evaluate.main([str(finished[0])]) == 0
    out = capsys.readouterr().out
    for part in ("200 test examples", "nats per example", "grey pixels as Bernoulli means", "±"):
        assert part in out


def test_binary_images_are_not_said_to_be_grey():
    assert evaluate.protocol(Config(dataset="binarized-mnist")) == "pixels binarized by Larochelle and Murray"
    assert evaluate.protocol(Config(dataset="mnist")) == "grey pixels as Bernoulli means"


def test_what_is_not_a_run_is_refused(tmp_path, refused):
    assert "config.json" in refused(evaluate.main, [tmp_path])
    (tmp_path / "config.json").write_text('{"epochs": 3, "colour": "red"}')
    assert "colour" in refused(evaluate.main, [tmp_path])
    (tmp_path / "config.json").write_text('{"epochs": "many"}')
    assert "--epochs" in refused(evaluate.main, [tmp_path])


def test_reconstruction_is_the_mean_over_standard_normal_noise():
    """One pixel, one latent, q(z|x) = N(0.3, 1.5²), logit 2z − 1: the expectation is an integral over a line."""
    vae = VAE(1, (), 1, zeros=True)
    vae.parameters["encoder.0.b"][...] = [0.3, 2 * np.log(1.5)]
    vae.parameters["decoder.0.W"][...] = 2
    vae.parameters["decoder.0.b"][...] = -1
    eps = np.linspace(-10, 10, 10_001)
    weight = np.exp(-(eps**2) / 2) / np.sqrt(2 * np.pi) * (eps[1] - eps[0])
    logits = 2 * (0.3 + 1.5 * eps) - 1
    expected = (weight * (np.logaddexp(0, logits) - logits)).sum()  # −E log p(x = 1|z)
    terms = loss_terms(vae, np.full((40_000, 1), 255, np.uint8))
    values = terms["reconstruction"]
    assert abs(values.mean() - expected) < 5 * values.std() / 200
    np.testing.assert_allclose(terms["kl"], -0.5 * (1 + 2 * np.log(1.5) - 0.3**2 - 1.5**2), rtol=1e-5)


def test_one_test_image_has_no_standard_error(few_digits, tmp_path, capsys):
    for file in FILES:
        array = read_idx(few_digits / file)
        write_idx(tmp_path / file, array[:1] if "t10k" in file else array)
    run_train("--dataset", tmp_path, *SMALL, "--epochs", 1, "--out", tmp_path / "run")
    assert evaluate.main([str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["elbo_loss"]["standard_error"] is None
