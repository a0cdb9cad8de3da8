import json

import numpy as np
import pytest

from npvae import VAE, evaluate
from npvae.data.datasets import FILES, load
from npvae.data.idx import read_idx, write_idx
from npvae.evaluate import bound_terms
from npvae.runs import Run
from tests.conftest import SMALL, run_train


def test_terms_of_an_example_do_not_depend_on_the_other_examples(rng):
    vae = VAE(12, (7,), 3, rng=rng)
    images = rng.integers(0, 256, (1200, 12), np.uint8)
    whole = bound_terms(vae, images)
    part = bound_terms(vae, images[:1000])
    for name in whole:
        np.testing.assert_array_equal(whole[name][:1000], part[name])
    np.testing.assert_array_equal(whole["loss"], whole["reconstruction"] + whole["kl"])


def test_more_samples_estimate_the_same_loss_with_less_noise(rng):
    vae = VAE(12, (7,), 3, rng=rng)
    vae.parameters.values *= 5  # far from the prior, so that the noise matters
    images = np.tile(rng.integers(0, 256, (1, 12), np.uint8), (2000, 1))  # one image, 2000 times: the spread is noise
    one, many = bound_terms(vae, images)["reconstruction"], bound_terms(vae, images, samples=16)["reconstruction"]
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
    terms = bound_terms(run.vae(dataset), dataset.test_images)
    for name in ("loss", "reconstruction", "kl"):
        assert result[name]["mean"] == pytest.approx(last[f"test_{name}"], abs=1e-6)
        variance = np.square(terms[name] - terms[name].mean()).sum() / 199
        assert result[name]["standard_error"] == pytest.approx(np.sqrt(variance / 200))


def test_text_names_the_data_the_unit_and_the_protocol(finished, capsys):
    assert evaluate.main([str(finished[0])]) == 0
    out = capsys.readouterr().out
    for part in ("200 test examples", "nats per example", "grey pixels as Bernoulli means", "±"):
        assert part in out


def test_what_is_not_a_run_is_refused(tmp_path, refused):
    assert "config.json" in refused(evaluate.main, [tmp_path])
    (tmp_path / "config.json").write_text('{"epochs": 3, "colour": "red"}')
    assert "colour" in refused(evaluate.main, [tmp_path])
    (tmp_path / "config.json").write_text('{"epochs": "many"}')
    assert "--epochs" in refused(evaluate.main, [tmp_path])


def test_reconstruction_is_the_mean_over_standard_normal_noise():
    """One pixel, one latent, q(z|x) = N(0.3, 1.5²), logit 2z − 1: the expectation is an integral over a line."""
    vae = VAE(1, (), 1)
    vae.parameters["encoder.0.b"][...] = [0.3, 2 * np.log(1.5)]
    vae.parameters["decoder.0.W"][...] = 2
    vae.parameters["decoder.0.b"][...] = -1
    eps = np.linspace(-10, 10, 10_001)
    weight = np.exp(-(eps**2) / 2) / np.sqrt(2 * np.pi) * (eps[1] - eps[0])
    logits = 2 * (0.3 + 1.5 * eps) - 1
    expected = (weight * (np.logaddexp(0, logits) - logits)).sum()  # −E log p(x = 1|z)
    terms = bound_terms(vae, np.full((40_000, 1), 255, np.uint8))
    values = terms["reconstruction"]
    assert abs(values.mean() - expected) < 5 * values.std() / 200
    np.testing.assert_allclose(terms["kl"], -0.5 * (1 + 2 * np.log(1.5) - 0.3**2 - 1.5**2), rtol=1e-5)


def test_one_test_image_has_no_standard_error(few_digits, tmp_path, capsys):
    for file in FILES:
        array = read_idx(few_digits / file)
        write_idx(tmp_path / file, array[:1] if "t10k" in file else array)
    run_train("--dataset", tmp_path, *SMALL, "--epochs", 1, "--out", tmp_path / "run")
    assert evaluate.main([str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["loss"]["standard_error"] is None
