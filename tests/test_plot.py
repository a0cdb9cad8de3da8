import shutil
from statistics import NormalDist

import numpy as np
import pytest
from matplotlib.image import imread

from npvae import VAE, plot
from npvae.commands import UserError
from npvae.config import Config
from npvae.data.datasets import Dataset, load
from npvae.data.pixels import batch
from npvae.runs import COLUMNS, Run
from npvae.training import Training


def test_tile_puts_each_image_in_its_row_and_column():
    images = np.arange(1, 6)[:, None] * np.ones((1, 6))  # five images of 2 × 3
    page = plot.tile(images, 2, (2, 3))
    assert page.shape == (3 * (2 + plot.GAP) + plot.GAP, 2 * (3 + plot.GAP) + plot.GAP)
    for i, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]):
        top, left = plot.GAP + row * (2 + plot.GAP), plot.GAP + column * (3 + plot.GAP)
        assert (page[top : top + 2, left : left + 3] == i + 1).all()
    assert page.sum() == images.sum()


def shown(figure):
    """The page of images that a figure shows."""
    return np.asarray(figure.axes[0].images[0].get_array())


def blank_dataset(labels=True, name="digits"):
    images = np.zeros((30, 4), np.uint8)
    marks = np.arange(30, dtype=np.uint8) % 10 if labels else None
    return Dataset(name, "test", (2, 2), images, marks, images, marks)


def test_manifold_runs_over_quantiles_of_the_prior_from_left_to_right_and_from_bottom_to_top():
    vae = VAE(4, (), 2, zeros=True)  # a linear decoder that writes z₁ into pixel 0 and z₂ into pixel 1
    vae.parameters["decoder.0.W"][...] = [[1, 0, 0, 0], [0, 1, 0, 0]]
    page = shown(plot.manifold(vae, blank_dataset(), side=5))
    cells = page[plot.GAP :: 2 + plot.GAP, plot.GAP :: 2 + plot.GAP][:5, :5]  # pixel 0 of each image
    z1 = np.log(cells / (1 - cells))
    np.testing.assert_allclose(
        z1, np.tile([NormalDist().inv_cdf(p) for p in (0.1, 0.3, 0.5, 0.7, 0.9)], (5, 1)), atol=1e-6
    )
    cells = page[plot.GAP :: 2 + plot.GAP, plot.GAP + 1 :: 2 + plot.GAP][:5, :5]  # pixel 1
    z2 = np.log(cells / (1 - cells))
    assert (np.diff(z2, axis=0) < 0).all()


def test_interpolations_start_and_end_at_the_two_images(rng):
    vae = VAE(4, (5,), 2, rng=rng)
    images = rng.integers(0, 256, (30, 4), np.uint8)
    dataset = Dataset("digits", "test", (2, 2), images, None, images, None)
    page = shown(plot.interpolations(vae, dataset, rows=2, steps=3))
    cell = 2 + plot.GAP
    cells = [
        page[plot.GAP : plot.GAP + 2, plot.GAP + i * cell : plot.GAP + i * cell + 2].reshape(1, 4) for i in range(5)
    ]
    assert (cells[0] * 255 == images).all(axis=1).any()
    assert (cells[4] * 255 == images).all(axis=1).any()
    np.testing.assert_allclose(cells[1], vae.reconstruct(cells[0]), atol=1e-6)
    np.testing.assert_allclose(cells[3], vae.reconstruct(cells[4]), atol=1e-6)
    middle = (vae.encode(cells[0])[0] + vae.encode(cells[4])[0]) / 2
    np.testing.assert_allclose(cells[2], vae.decode(middle), atol=1e-6)


def test_digits_has_a_row_per_class_that_opens_with_an_image_of_the_class(data_dir, rng):
    digits = load("strokes", str(data_dir))
    figure = plot.digits(VAE(rng=rng), digits)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [str(i) for i in range(10)]
    page = shown(figure)
    for label in range(10):
        top = plot.GAP + label * (28 + plot.GAP)
        first = np.rint(page[top : top + 28, plot.GAP : plot.GAP + 28] * 255).reshape(1, 784)
        matches = (digits.test_images == first).all(axis=1)
        assert digits.test_labels[matches] == [label]


def test_conditional_digits_have_the_label_of_their_row_and_the_z_of_their_column(rng):
    vae = VAE(4, (5,), 3, classes=10, rng=rng)
    vae.parameters.values *= 5
    images = cells(shown(plot.digits(vae, random_dataset(rng))), 10).reshape(10, 10, 4)
    z = np.random.default_rng(plot.SEED).standard_normal((10, 3), np.float32)
    for label in range(10):
        y = np.tile(np.eye(10, dtype=np.float32)[label], (10, 1))
        np.testing.assert_allclose(images[label], vae.decode(z, y), atol=1e-6)
    assert len(np.unique(images.reshape(100, 4), axis=0)) == 100


def test_ink_is_dark_on_paper_and_faces_are_shown_as_they_are(rng):
    images = rng.uniform(size=(6, 4))
    for ink, colours in ((True, "gray_r"), (False, "gray")):
        assert plot.picture("six", images, 3, (2, 2), ink=ink).axes[0].images[0].get_cmap().name == colours
    vae = VAE(4, (5,), 2, rng=rng)
    for name, colours in (("digits", "gray_r"), ("frey", "gray")):
        for draw in (plot.reconstructions, plot.samples, plot.manifold, plot.interpolations):
            figure = draw(vae, blank_dataset(name=name))
            assert figure.axes[0].images[0].get_cmap().name == colours


def test_labels_stand_at_the_middle_of_their_rows_and_columns():
    axes = plot.picture("six", np.ones((6, 15)), 2, (3, 5), ["a", "b", "c"], ["d", "e"]).axes[0]
    page = shown(axes.figure)
    for ticks, along in ((axes.get_yticks(), page.max(axis=1)), (axes.get_xticks(), page.max(axis=0))):
        starts = np.flatnonzero(np.diff(along, prepend=0) > 0)
        ends = np.flatnonzero(np.diff(along, append=0) < 0)
        np.testing.assert_allclose(ticks, (starts + ends) / 2)


def test_pictures_of_the_run_need_no_model(tmp_path):
    run = Run.create(tmp_path / "run", Config())
    run.write_metrics([dict.fromkeys(COLUMNS, 1.0)])
    outcome = plot.draw(run, ["learning-curves", "bounds"])
    assert imread(outcome["learning-curves"])[..., :3].std() > 0.01
    assert "evaluate" in outcome["bounds"]


def test_bounds_show_the_evaluation(tmp_path):
    run = Run.create(tmp_path / "run", Config())
    losses = {"1": 104.5, "5": 101.0, "50": 99.5}
    value = {k: {"mean": loss, "standard_error": 0.2} for k, loss in losses.items()}
    run.save_evaluation({"epochs": 3, "protocol": "grey", "elbo_loss": {"mean": 104.0}, "iwae_loss": value})
    axes = plot.bounds(run).axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [104, 104])
    np.testing.assert_array_equal(list(axes.lines[1].get_xdata()), [1, 5, 50])
    np.testing.assert_array_equal(list(axes.lines[1].get_ydata()), [104.5, 101, 99.5])
    assert "grey" in axes.get_title()


@pytest.mark.parametrize("text", ["", "nonsense", "{}", '{"iwae_loss": {"1": 3}}'])
def test_a_broken_evaluation_is_told(text, tmp_path):
    run = Run.create(tmp_path / "run", Config())
    run.evaluation.write_text(text)
    with pytest.raises(UserError, match="evaluate again"):
        plot.bounds(run)


@pytest.mark.parametrize(
    ("latent", "settings"),
    [(1, {"conditional": True}), (2, {}), (2, {"conditional": True}), (3, {"likelihood": "gaussian"})],
)
def test_every_picture_is_drawn_or_says_why_not(latent, settings, few_digits, tmp_path):
    dataset = load(str(few_digits))
    run = Run.create(tmp_path / "run", Config(dataset=str(few_digits), hidden=(10,), latent=latent, **settings))
    Training(run.config, dataset).save(run)
    run.write_metrics([dict.fromkeys(COLUMNS, 1.0)])
    plane = latent == 2 and "conditional" not in settings
    outcome = plot.draw(run, plot.PICTURES, run.vae(), dataset)
    for name, said in outcome.items():
        if name == "manifold" and not plane:
            assert ("--latent 2" in said) == (latent != 2)
            continue
        if name == "bounds":
            assert f"evaluate {run.folder}" in said
            continue
        picture = imread(said)
        assert min(picture.shape[:2]) > 150
        assert picture[..., :3].std() > 0.01  # not blank
    assert len(list(run.images.iterdir())) == len(plot.PICTURES) - 1 - (not plane)


def test_data_without_labels_are_drawn_without_them(rng):
    dataset, vae = blank_dataset(labels=False), VAE(4, (5,), 3, rng=rng)
    plot.posterior_means(vae, dataset)
    with pytest.raises(plot.NotApplicable, match="no labels"):
        plot.digits(vae, dataset)


def test_command_names_every_picture(finished, tmp_path, capsys):
    shutil.copytree(finished[0], tmp_path / "run")
    assert plot.main([str(tmp_path / "run")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [name for name in plot.PICTURES for line in lines if f"{name}.png" in line] == list(plot.PICTURES)


def test_what_is_not_a_run_is_refused(tmp_path, refused):
    assert "config.json" in refused(plot.main, [tmp_path / "nothing"])


def test_learning_curves_show_each_term_of_each_split(tmp_path):
    run = Run.create(tmp_path / "run", Config())
    rows = [{name: 10.0 * epoch + i for i, name in enumerate(COLUMNS)} | {"epoch": epoch} for epoch in (1.0, 2.0, 3.0)]
    run.write_metrics(rows)
    figure = plot.learning_curves(run)
    for axes, term in zip(figure.axes, ("loss", "reconstruction", "kl"), strict=True):
        for line, split in zip(axes.lines, ("train", "test"), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
            np.testing.assert_array_equal(line.get_ydata(), [row[f"{split}_{term}"] for row in rows])
    assert [text.get_text().split(",")[0] for text in figure.axes[0].get_legend().get_texts()] == ["train", "test"]


def random_dataset(rng, count=30):
    images = rng.integers(0, 256, (count, 4), np.uint8)
    labels = np.arange(count, dtype=np.uint8) % 10
    return Dataset("digits", "test", (2, 2), images, labels, images, labels)


def cells(page, columns):
    """The images on a page of 2 × 2 pixel images, (N, 4)."""
    rows = page.shape[0] // (2 + plot.GAP)
    tops, lefts = (plot.GAP + np.arange(count) * (2 + plot.GAP) for count in (rows, columns))
    return np.array([page[top : top + 2, left : left + 2].ravel() for top in tops for left in lefts])


@pytest.mark.parametrize("count", [1, 7, 10, 15, 30])
def test_reconstructions_stand_under_their_originals(count, rng):
    vae, dataset = VAE(4, (5,), 3, rng=rng), random_dataset(rng, count)
    columns = min(10, count)
    shown_cells = cells(shown(plot.reconstructions(vae, dataset)), columns).reshape(-1, 2, columns, 4)
    for i, (originals, decoded) in enumerate(shown_cells):
        x = batch(dataset.test_images, slice(i * columns, (i + 1) * columns))
        np.testing.assert_allclose(originals, x)
        np.testing.assert_allclose(decoded, vae.reconstruct(x), atol=1e-6)


def test_command_draws_the_data_of_data_dir(moved, monkeypatch, capsys):
    run, elsewhere = moved
    drawn = []
    monkeypatch.setattr(plot, "draw", lambda run, names, vae, dataset: drawn.append(dataset) or {"samples": "drawn"})
    assert plot.main([str(run.folder), "--data-dir", str(elsewhere)]) == 0
    assert capsys.readouterr().out == "drawn\n"
    np.testing.assert_array_equal(drawn[0].test_images, load("strokes", str(elsewhere)).test_images)
    assert len(drawn[0].test_images) == 60


def test_samples_are_of_the_prior(rng):
    vae = VAE(4, (5,), 3, rng=rng)
    expected = vae.sample(100, np.random.default_rng(plot.SEED))
    np.testing.assert_allclose(cells(shown(plot.samples(vae, random_dataset(rng))), 20), expected, atol=1e-6)


def test_posterior_means_are_means(rng):
    vae, dataset = VAE(4, (5,), 2, rng=rng), random_dataset(rng)
    points = plot.posterior_means(vae, dataset).axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(points, vae.encode(batch(dataset.test_images, slice(None)))[0], atol=1e-6)


def test_digits_are_ten_different_draws_around_the_image_of_the_class(rng):
    vae = VAE(4, (5,), 2, rng=rng)
    images = cells(shown(plot.digits(vae, random_dataset(rng))), 11).reshape(10, 11, 4)
    assert all(len(np.unique(row[1:], axis=0)) == 10 for row in images)


@pytest.mark.parametrize("classes", [0, 10])
def test_traversal_decodes_what_its_labels_say_with_the_most_kl_first(classes, rng):
    vae, dataset = VAE(4, (5,), 3, classes=classes, rng=rng), random_dataset(rng)
    vae.parameters.values *= 3
    figure = plot.traversal(vae, dataset)
    axes = figure.axes[0]
    columns = [text.get_text().replace("−", "-") for text in axes.get_xticklabels()]
    rows = [text.get_text().split(" · ") for text in axes.get_yticklabels()]
    images = cells(shown(figure), len(columns)).reshape(len(rows), len(columns), 4)
    x, y = plot.examples(dataset, slice(None), vae)
    mu, logvar = (array.astype(float) for array in vae.encode(x, y))
    kl = (mu**2 + np.exp(logvar) - 1 - logvar).mean(axis=0) / 2
    assert sorted(name for name, _ in rows) == ["z1", "z2", "z3"]
    own = axes.lines[0].get_xdata().tolist()
    for (name, nats), row in zip(rows, images, strict=True):
        latent = int(name[1:]) - 1
        assert nats == f"{kl[latent]:.2f}"
        np.testing.assert_allclose(row[0], x[0])
        for value, image in zip(columns[1:], row[1:], strict=True):
            z = mu[:1].astype(np.float32)
            z[0, latent] = float(value)
            np.testing.assert_allclose(image, vae.decode(z, y if y is None else y[:1])[0], atol=1e-6)
        if abs(mu[0, latent]) <= 3:
            assert np.interp(own.pop(0), axes.get_xticks()[1:], list(map(float, columns[1:]))) == pytest.approx(
                mu[0, latent], abs=1e-4
            )
    assert not own
    assert (np.diff([kl[int(name[1:]) - 1] for name, _ in rows]) <= 0).all()


def test_traversal_shows_the_ten_latents_of_most_kl_and_says_that_one_is_dead(rng):
    vae, dataset = VAE(4, (5,), 12, rng=rng), random_dataset(rng)
    assert len(plot.traversal(vae, dataset).axes[0].get_yticks()) == 10
    assert "dead" not in plot.traversal(vae, dataset).axes[0].get_title()
    vae = VAE(4, (5,), 1, zeros=True)
    assert "dead" in plot.traversal(vae, dataset).axes[0].get_title()
