"""The film of a training: what its frames hold, that they survive a kill, and the GIF."""

import dataclasses
import shutil
import signal
import subprocess
import sys
from statistics import NormalDist

import numpy as np
import pytest
from PIL import Image

from npvae import film, plot, train
from npvae.commands import UserError
from npvae.config import Config
from npvae.data.datasets import load
from npvae.data.pixels import batch
from npvae.evaluate import loss_terms
from npvae.runs import Run
from npvae.training import Training
from tests.conftest import SMALL, command, dataset_of

PLANE = ("--hidden", "30", "--latent", "2", "--epochs", "30")


@pytest.fixture(scope="module", autouse=True)
def no_other_pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plot, "BASIC", ())
        yield


def go(*arguments):
    assert train.main([str(argument) for argument in arguments]) == 0


@pytest.fixture(scope="module")
def filmed(few_digits, tmp_path_factory):
    """A run of 180 steps with two latents, and its film."""
    folder = tmp_path_factory.mktemp("film") / "run"
    go("--dataset", few_digits, *PLANE, "--film", "--out", folder)
    return Run.open(folder)


def contents(run):
    return {path.name: path.read_bytes() for path in run.frames.iterdir()}


def camera_of(dataset, folder, **settings):
    """A camera of a run that is trained for no step, which has taken the first frame."""
    run = Run.create(folder, Config(hidden=(5,), film=True, **settings))
    training = Training(run.config, dataset)
    training.save(run)
    return film.Camera(run, training, dataset)


def test_frames_are_evenly_spaced_in_log_time():
    steps = np.array([step for step in range(1, 100_001) if film.due(step)])
    assert film.due(0)
    assert steps[0] == 1
    assert np.isin(10 ** np.arange(6), steps).all()
    late = np.diff(np.log10(steps[steps >= 100]))
    np.testing.assert_allclose(late, 1 / 12, atol=0.005)


def test_a_film_has_the_first_step_and_the_last_and_says_where_each_frame_stands(filmed):
    shown = film.frames(filmed)
    assert [frame.step for frame in shown] == [*filter(film.due, range(180)), 180]
    for frame in shown:
        assert frame.examples == 100 * frame.step
        assert frame.epoch == pytest.approx(frame.step / 6)
        assert frame.loss == pytest.approx(frame.reconstruction + frame.kl)
    assert shown[-1].loss < shown[0].loss - 10


def test_filming_changes_nothing_else(filmed, few_digits, tmp_path):
    go("--dataset", few_digits, *PLANE, "--out", tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert not run.frames.exists()
    assert not run.film.exists()
    assert run.checkpoint.read_bytes() == filmed.checkpoint.read_bytes()
    assert [row | {"seconds": 0} for row in run.metrics()] == [row | {"seconds": 0} for row in filmed.metrics()]


def test_a_frame_is_what_the_saved_model_decodes_encodes_and_loses(filmed):
    frame, vae, digits = film.frames(filmed)[-1], filmed.vae(), filmed.dataset()
    low, high = NormalDist().inv_cdf(0.05), NormalDist().inv_cdf(0.95)
    assert (frame.columns, frame.images.shape) == (10, (100, 784))
    corners = np.array([(low, high), (high, high), (low, low), (high, low)], np.float32)  # z₂ grows upwards
    np.testing.assert_allclose(frame.images[[0, 9, 90, 99]], 255 * vae.decode(corners), atol=0.51)
    np.testing.assert_allclose(frame.mu, vae.encode(batch(digits.test_images))[0], rtol=1e-5, atol=1e-6)
    terms = loss_terms(vae, digits.test_images[:100], samples=100)
    assert frame.kl == pytest.approx(terms["kl"].mean(), rel=1e-5)
    assert frame.loss == pytest.approx(terms["loss"].mean(), rel=0.02)


def test_without_two_latents_a_frame_has_reconstructions_and_the_same_draws_of_the_prior(few_digits, tmp_path):
    digits = load(str(few_digits))
    camera = camera_of(digits, tmp_path / "run", latent=4)
    camera.training.vae.parameters.values[...] *= 3
    camera.record()
    (frame,) = film.frames(camera.run)
    vae = camera.training.vae
    np.testing.assert_allclose(frame.reconstructions, 255 * vae.reconstruct(batch(digits.test_images[:10])), atol=0.51)
    drawn = vae.sample(36, np.random.default_rng(film.SEED))
    np.testing.assert_allclose(frame.images, 255 * drawn, atol=0.51)
    assert frame.mu is None


def test_each_row_of_a_conditional_film_has_one_z_and_each_column_a_label(few_digits, tmp_path):
    camera = camera_of(load(str(few_digits)), tmp_path / "run", latent=2, conditional=True)
    z, y, columns = film.latents(camera.training.vae)
    assert (columns, y.argmax(axis=1).tolist()) == (10, [*range(10)] * 10)
    assert (np.unique(z, axis=0, return_counts=True)[1] == 10).all()
    assert (z.reshape(10, 10, 2) == z.reshape(10, 10, 2)[:, :1]).all()


def test_a_killed_run_that_is_resumed_has_the_film_and_the_checkpoint_of_a_whole_one(filmed, few_digits, tmp_path):
    arguments = ("--dataset", few_digits, *PLANE, "--film", "--out", tmp_path / "run")
    with subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, text=True) as process:
        while not process.stdout.readline().startswith("epoch  9/30"):
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    run = Run.open(tmp_path / "run")
    assert run.metrics()[-1]["epoch"] < 30
    for path in run.frames.glob(".*"):
        path.unlink()  # what a kill leaves of a frame that it comes in the way of
    go("--resume", run.folder)
    assert contents(run) == contents(filmed)
    assert run.film.read_bytes() == filmed.film.read_bytes()
    assert run.checkpoint.read_bytes() == filmed.checkpoint.read_bytes()


def test_a_run_is_filmed_from_where_it_is_and_on(filmed, few_digits, tmp_path):
    go("--dataset", few_digits, *PLANE, "--epochs", 15, "--out", tmp_path / "run")
    go("--resume", tmp_path / "run", "--film", "--epochs", 20)
    go("--resume", tmp_path / "run", "--epochs", 30)
    run = Run.open(tmp_path / "run")
    assert [frame.step for frame in film.frames(run)] == [90, 100, 120, 121, 147, 178, 180]
    assert run.film.exists()
    whole = contents(filmed)
    assert all(whole.get(name, content) == content for name, content in contents(run).items())


def test_the_film_is_an_animated_gif_that_loops_is_small_and_stays_at_its_end(filmed):
    assert filmed.film.stat().st_size < film.BYTES
    with Image.open(filmed.film) as gif:
        assert (gif.size, gif.n_frames, gif.info["loop"]) == ((720, 300), len(film.frames(filmed)), 0)
        scenes, milliseconds = [], []
        for i in range(gif.n_frames):
            gif.seek(i)
            milliseconds.append(gif.info["duration"])
            scenes.append(np.array(gif.convert("RGB")))
    assert milliseconds == [film.MILLISECONDS] * (len(scenes) - 1) + [film.HOLD]
    for box in (film.HEADER, film.IMAGES, film.BESIDE, film.CURVE):  # each moves
        assert (scenes[0][box.slices] != scenes[-1][box.slices]).any()
    still = np.all([scene == scenes[0] for scene in scenes], axis=0).mean()
    assert still > 0.5


def test_the_last_scene_shows_the_frame_s_images(filmed):
    frame = film.frames(filmed)[-1]
    with Image.open(filmed.film) as gif:
        gif.seek(gif.n_frames - 1)
        shown = np.array(gif.convert("L"))[film.IMAGES.slices]
    page = frame.images.reshape(10, 10, 28, 28).swapaxes(1, 2).reshape(280, 280)
    expected = 255 - np.asarray(Image.fromarray(page).resize(shown.shape, Image.Resampling.LANCZOS), int)
    assert np.abs(shown - expected).max() <= 255 / 15 / 2 + 1  # of 16 levels the nearest


VARIANTS = {
    "one latent": ((28, 28), 20, {"latent": 1}),
    "one test image": ((28, 28), 1, {"latent": 3}),
    "five test images in a plane": ((28, 28), 5, {"latent": 2}),
    "faces": ((28, 20), 30, {"latent": 2, "likelihood": "gaussian"}),
    "a column": ((2000, 1), 12, {"latent": 2}),
    "a row": ((1, 30), 12, {"latent": 4}),
    "large": ((200, 200), 12, {"latent": 2}),
    "huge": ((500, 500), 3, {"latent": 3}),
    "conditional": ((9, 7), 30, {"latent": 2, "conditional": True}),
    "more labels than colours": ((9, 7), 30, {"latent": 2}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_images_of_any_shape_and_number_are_filmed(variant, rng, tmp_path):
    shape, count, settings = VARIANTS[variant]
    labels = None if settings.get("likelihood") else np.arange(count, dtype=np.uint8)
    dataset = dataset_of(rng.integers(0, 256, (count, shape[0] * shape[1]), np.uint8), labels)
    dataset = dataclasses.replace(dataset, image_shape=shape, name="frey" if labels is None else "some")
    camera = camera_of(dataset, tmp_path / "run", **settings)
    camera.training.epoch[...] = 1
    camera.record()
    assert len(film.frames(camera.run)) == 2
    film.draw(camera.run, dataset)
    with Image.open(camera.run.film) as gif:
        assert gif.n_frames == 2
    assert camera.run.film.stat().st_size < 200_000


def test_a_film_that_is_too_large_is_thinned_out_and_keeps_its_end(few_digits, tmp_path, rng, monkeypatch):
    monkeypatch.setattr(film, "BYTES", 500_000)
    digits = load(str(few_digits))
    camera = camera_of(digits, tmp_path / "run", latent=4)
    (first,) = film.frames(camera.run)
    noise = [
        first._replace(step=step, images=rng.integers(0, 256, first.images.shape, np.uint8))
        for step in range(100_000, 100_050)
    ]
    for frame in noise:
        fields = {name: value for name, value in frame._asdict().items() if value is not None}
        np.savez(camera.run.frames / film.file_name(frame.step), **fields)
    film.draw(camera.run, digits)
    assert camera.run.film.stat().st_size < film.BYTES
    with Image.open(camera.run.film) as gif:
        assert 10 < gif.n_frames <= 26
        gif.seek(gif.n_frames - 1)
        last = np.array(gif.convert("RGB"))
    expected = film.compose(film.frames(camera.run), digits, camera.run.config)[-1]
    assert (last == np.array(expected.convert("RGB"))).all()


def test_a_model_that_has_diverged_has_no_frame(few_digits, tmp_path):
    camera = camera_of(load(str(few_digits)), tmp_path / "run", latent=4)
    before = contents(camera.run)
    camera.training.vae.parameters.values[...] = np.inf
    camera.training.epoch[...] = 1
    with np.errstate(all="ignore"):
        camera.record()
    assert contents(camera.run) == before


def damaged(frame, how):
    """The fields of a frame with something that is not as it should be."""
    fields = {name: value for name, value in frame._asdict().items() if value is not None}
    changes = {
        "other pixels": {"images": frame.images[:, :100]},
        "other number": {"images": frame.images[:90]},
        "other type": {"images": frame.images.astype(float)},
        "other columns": {"columns": 7},
        "other step": {"step": 3},
        "not finite": {"loss": np.nan},
        "no loss": {"loss": None},
        "something else": {"extra": 1},
        "both": {"reconstructions": frame.images},
        "means of three": {"mu": np.zeros((200, 3), np.float32)},
    }[how]
    return {name: value for name, value in (fields | changes).items() if value is not None}


@pytest.mark.parametrize(
    "how",
    "cut, emptied, other pixels, other number, other type, other columns, other step, not finite, no loss, "
    "something else, both, means of three".split(", "),
)
def test_a_broken_frame_is_refused_by_name_and_the_old_film_stays(how, filmed, tmp_path, refused):
    shutil.copytree(filmed.folder, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    path = run.frames / film.file_name(100)
    if how in ("cut", "emptied"):
        path.write_bytes(path.read_bytes()[: 1000 * (how == "cut")])
    else:
        np.savez(path, **damaged(film.frames(filmed)[-3], how))
    with pytest.raises(UserError, match=r"film.0000100\.npz is .* remove") as caught:
        film.frames(run)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError):
        film.draw(run, run.dataset())
    assert run.film.read_bytes() == filmed.film.read_bytes()


def test_a_broken_film_is_one_line_of_the_command_and_the_run_is_whole(filmed, tmp_path, capsys):
    shutil.copytree(filmed.folder, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    (run.frames / film.file_name(100)).write_bytes(b"")
    assert train.main(["--resume", str(run.folder)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert run.checkpoint.read_bytes() == filmed.checkpoint.read_bytes()


def test_a_run_that_was_not_filmed_has_no_frames(tmp_path):
    assert film.frames(Run.create(tmp_path / "run", Config())) == []


def test_the_command_says_where_the_film_is(few_digits, tmp_path, capsys):
    go("--dataset", few_digits, *SMALL, "--epochs", 1, "--film", "--out", tmp_path / "run")
    assert capsys.readouterr().out.splitlines()[-3] == f"film: {tmp_path / 'run' / 'film.gif'}"


def test_nothing_that_draws_is_loaded_before_it_is_needed():
    code = "import npvae.train, sys; sys.exit(bool({'matplotlib', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
