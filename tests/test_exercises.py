import ast
import itertools
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import npvae
from npvae import distributions, layers, objectives, vae
from npvae.data.idx import read_idx, write_idx
from npvae.data.pixels import batch
from npvae.derivatives import complex_step, complex_step_gradient
from npvae.evaluate import estimates
from npvae.exercises import judge as judging
from npvae.exercises.bugs import BUGS
from npvae.exercises.course import MODULES, exercise, solved
from npvae.exercises.folder import check
from npvae.exercises.source import edited, emptied, function_source, loaded
from npvae.optimizers import Adam
from npvae.parameters import Parameters
from tests.exercise_styles import STYLES, WRONG, imported, verdicts, with_mistake

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NUMBERS = range(1, 14)
WRITTEN = range(1, 12)  # the others are to be mended
FUNCTIONS = [(number, name) for number in WRITTEN for name in exercise(number).functions]
PLANTED = [(number, i) for number, bugs in BUGS.items() for i in range(len(bugs))]
SECTION = re.compile(r"notebook (\d+), “([^”]+)”")


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    monkeypatch.setattr(judging, "SEARCH", 60.0)


@pytest.fixture(autouse=True, scope="module")
def remembered():
    """What the solution gives with a mistake is worked out once, not again for each function that it may explain."""
    function_in, attempt, functions, outcomes = judging.function_in, judging.attempt, {}, {}

    def function_once(source, name, *surroundings):
        if (source, name) not in functions:
            functions[source, name] = function = function_in(source, name, *surroundings)
            outcomes[function] = {}  # of each case
        return functions[source, name]

    def attempt_once(function, spec, case, expected=None):
        known = outcomes.get(function, {})  # a learner's is not there
        if case.name not in known:
            known[case.name] = attempt(function, spec, case, expected)
        return known[case.name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "function_in", function_once)
        patch.setattr(judging, "attempt", attempt_once)
        yield


@pytest.fixture(scope="module")
def headings():
    """The number of a notebook → its headings."""
    found = {}
    for path in NOTEBOOKS.glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        found[int(path.name[:2])] = re.findall(r"^#+ (.+?)\s*$", text, re.MULTILINE)
    return found


def of(name):
    """The solution's function."""
    number = next(number for number, function in FUNCTIONS if function == name)
    return getattr(solved()[MODULES[number - 1]], name)


def failures(found):
    return [str(verdict) for verdict in found if not verdict.passed]


# what is right passes, however it is written


@pytest.mark.parametrize("number", NUMBERS)
def test_reference_passes(number):
    task = exercise(number)
    found = verdicts(task.module, task.solution)
    assert failures(found) == []
    assert [verdict.notes for verdict in found] == [[] for _ in found]


@pytest.mark.parametrize("number", NUMBERS)
def test_what_a_learner_starts_with_is_not_right_yet(number):
    task = exercise(number)
    found = verdicts(task.module, task.start(0))
    if number in WRITTEN:
        assert {verdict.headline for verdict in found} == {"not written yet"}
        assert task.start(0) == emptied(task.solution)
    assert failures(found)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("number", WRITTEN)
def test_solution_in_another_style_passes(number, style):
    module = exercise(number).module
    assert failures(verdicts(module, STYLES[style][module])) == []


def test_folder_in_another_style_passes_in_processes_of_its_own(tmp_path):
    for module, source in STYLES["classes, closures, helpers"].items():
        (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
    results = list(check(tmp_path, WRITTEN))
    assert [failures(result.functions) for result in results] == [[] for _ in WRITTEN]
    assert all(result.passed for result in results)


def test_every_exercise_is_there_in_five_styles_and_more_than_sixty_mistakes_are_made_in_them():
    assert all(set(style) == set(MODULES[:11]) for style in STYLES.values())
    assert len(STYLES) >= 5
    assert len({(style, name, what) for style, wrong in WRONG.items() for name, what, *_ in wrong}) >= 60
    assert {name for wrong in WRONG.values() for name, *_ in wrong} == {name for _, name in FUNCTIONS}


# what is wrong is named


@pytest.mark.parametrize(("number", "name"), FUNCTIONS)
def test_every_listed_mistake_is_named(number, name):
    task = exercise(number)
    mistakes = task.functions[name].mistakes
    sources = {mistake.what: edited(task.solution, name, mistake.changes) for mistake in mistakes}
    assert len(sources) == len(mistakes)
    found = {what: verdicts(task.module, source, [name])[0] for what, source in sources.items()}
    assert {what: verdict.mistake for what, verdict in found.items()} == {what: what for what in sources}
    assert not any(verdict.passed for verdict in found.values())


@pytest.mark.parametrize(
    ("style", "name", "what", "changes"),
    [(style, name, what, changes) for style, wrong in WRONG.items() for name, what, *changes in wrong],
)
def test_mistake_is_named_in_another_style(style, name, what, changes):
    module, source = with_mistake(style, name, changes)
    (verdict,) = verdicts(module, source, [name])
    assert not verdict.passed
    assert verdict.mistake == what, str(verdict)


# exercises 12 and 13


@pytest.mark.parametrize(("number", "i"), PLANTED)
def test_planted_bug_is_found_and_not_given_away(number, i):
    task, bug = exercise(number), BUGS[number][i]
    found = verdicts(task.module, task.with_bug(bug))
    assert {verdict.function: verdict.mistake for verdict in found if not verdict.passed} == bug.mistakes
    assert task.found(found, "") is bug
    told = "\n".join(map(str, task.told(found)))
    assert "the bug is still there" in told
    for name, what in bug.mistakes.items():
        assert name not in told
        assert what not in told
    assert {task.start(seed) for seed in range(len(BUGS[number]))} == {task.with_bug(bug) for bug in BUGS[number]}


@pytest.mark.parametrize("style", ["loops over examples", pytest.param("in place", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("number", "i"), PLANTED)
def test_mended_file_passes(number, i, style):
    task, bug = exercise(number), BUGS[number][i]
    source = task.with_bug(bug)
    # in one of these styles `forward` keeps more for `backward` than it must
    for name in {*bug.mistakes} | ({"forward"} if "backward" in bug.mistakes else set()):
        mended = next(text for text in STYLES[style].values() if f"def {name}(" in text)
        imports = "".join(f"{line}\n" for line in mended.splitlines() if line == "import math")
        source = imports + source.replace(function_source(source, name), function_source(mended, name))
    found = verdicts(task.module, source)
    assert failures(found) == []
    assert [verdict.passed for verdict in task.told(found)] == [True]


def test_half_of_a_mended_bug_is_told():
    task = exercise(13)
    bug = next(bug for bug in BUGS[13] if len(bug.mistakes) == 2)
    for name in bug.mistakes:
        source = edited(task.solution, name, task.mistake(bug, name).changes)
        (first, *others) = task.told(verdicts(task.module, source))
        assert (first.headline, others) == ("half of the bug is mended", [])


# what is said is true, and enough


def test_every_section_that_is_named_is_in_its_notebook(headings):
    named = [bug.symptom for bugs in BUGS.values() for bug in bugs]
    for number in WRITTEN:
        for spec in exercise(number).functions.values():
            reads = [spec.read, *(mistake.read for mistake in spec.mistakes if mistake.read)]
            assert all(SECTION.fullmatch(read) for read in reads)
            named += [*reads, *spec.hints]
    sections = {(int(number), title) for text in named for number, title in SECTION.findall(text)}
    assert {(number, title) for number, title in sections if title not in headings[number]} == set()
    assert len(sections) > 20


@pytest.mark.parametrize(("number", "name"), FUNCTIONS)
def test_every_function_has_hints_and_mistakes_that_say_what_and_why(number, name):
    spec = exercise(number).functions[name]
    assert len(set(spec.hints)) >= 3
    assert len(spec.mistakes) >= 7
    assert all(not mistake.what.endswith(".") and mistake.why[-1:] in ("", ".", "?", ")") for mistake in spec.mistakes)


# the solutions are what npvae has


def test_solutions_read_and_scale_as_npvae_does(tmp_path, rng):
    images = rng.integers(0, 256, (300, 28, 20), np.uint8)
    write_idx(tmp_path / "images", images)
    raw = (tmp_path / "images").read_bytes()
    assert of("read_header")(raw) == images.shape
    rows = of("read_images")(raw)
    assert np.array_equal(rows, read_idx(tmp_path / "images").reshape(300, -1))
    assert np.array_equal(of("scale")(rows), batch(rows))
    assert of("scale")(rows).dtype == batch(rows).dtype


def test_layers_of_the_solutions_are_those_of_npvae(rng):
    parameters = Parameters({"a.W": (784, 200), "a.b": (200,)}, np.float64)
    parameters.values[:] = rng.normal(size=parameters.values.size)
    layer, activation = layers.Dense(parameters, "a"), layers.Tanh()
    x, d_h = rng.normal(0, 0.05, (100, 784)), rng.normal(size=(100, 200))
    h = activation.forward(layer.forward(x))
    np.testing.assert_allclose(of("tanh")(of("dense")(x, layer.W, layer.b)), h, rtol=1e-12)
    d_y = activation.backward(d_h)
    np.testing.assert_allclose(of("tanh_backward")(d_h, h), d_y, rtol=1e-12)
    d_x = layer.backward(d_y)
    for mine, right in zip(of("dense_backward")(d_y, x, layer.W), (d_x, layer.d_W, layer.d_b), strict=True):
        np.testing.assert_allclose(mine, right, rtol=1e-10, atol=1e-12)


def test_densities_of_the_solutions_are_those_of_npvae(rng):
    a = np.concatenate([rng.normal(0, 5, 500), [-1000, 0, 1000]])
    for name in ("softplus", "sigmoid"):
        np.testing.assert_allclose(of(name)(a), getattr(layers, name)(a), rtol=1e-13)
    x, logits = rng.uniform(size=(100, 784)), rng.normal(0, 5, (3, 100, 784))
    mu, logvar, log_w = rng.normal(size=(100, 20)), rng.normal(size=(100, 20)), rng.normal(-700, 200, (50, 100))
    eps, z, d_z = rng.normal(size=(3, 5, 100, 20))
    for module, name, arguments in [
        (distributions, "bernoulli_log_density", (x, logits)),
        (distributions, "bernoulli_log_density_gradient", (x, logits)),
        (distributions, "gaussian_kl", (mu, logvar)),
        (distributions, "gaussian_kl_gradient", (mu, logvar)),
        (vae, "reparameterize", (mu, logvar, eps)),
        (vae, "reparameterize_gradient", (d_z, logvar, eps)),
        (objectives, "log_mean_exp", (log_w,)),
        (objectives, "normalized_weights", (log_w,)),
        (objectives, "log_weights", (log_w[:5], z, mu, logvar)),
    ]:
        found, right = (np.array(function(*arguments)) for function in (of(name), getattr(module, name)))
        np.testing.assert_allclose(found, right, rtol=1e-12, atol=1e-12, err_msg=name)


def as_npvae(p, objective="elbo"):
    """npvae's VAE with the parameters of an exercise's."""
    (D, H), J = p["W1"].shape, len(p["W3"])
    model = npvae.VAE(D, (H,), J, objective=objective, zeros=True, dtype=p["W1"].dtype)
    for array, layer in enumerate([*model.encoder.layers[::2], *model.decoder.layers[::2]], 1):
        layer.W[...], layer.b[...] = p[f"W{array}"], p[f"b{array}"]
    return model


def gradient_of(model):
    dense = [*model.encoder.layers[::2], *model.decoder.layers[::2]]
    return {f"W{i}": layer.d_W for i, layer in enumerate(dense, 1)} | {
        f"b{i}": layer.d_b for i, layer in enumerate(dense, 1)
    }


@pytest.fixture
def p(rng):
    return {name: array.astype(float) for name, array in of("initialize")(784, 200, 20, rng).items()}


def test_vae_of_the_solutions_is_that_of_npvae(p, rng):
    x, eps = rng.uniform(size=(100, 784)), rng.normal(size=(3, 100, 20))
    model = as_npvae(p)
    loss, values = of("forward")(p, x, eps)
    assert loss == pytest.approx(model.loss(x, eps), rel=1e-12)
    model.backward()
    d = of("backward")(p, values)
    for name, right in gradient_of(model).items():
        np.testing.assert_allclose(d[name], right, rtol=1e-9, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(of("reconstruct")(p, x), model.reconstruct(x), rtol=1e-12)
    mu, _ = model.encode(x)
    np.testing.assert_allclose(of("interpolate")(p, x[0], x[1], 3)[1], model.decode(mu[:2].mean(axis=0)[None])[0])
    sampled, right = (sample(9, np.random.default_rng(1)) for sample in (lambda *a: of("sample")(p, *a), model.sample))
    np.testing.assert_allclose(sampled, right, rtol=1e-12)
    losses = of("log_likelihood")(p, x, eps)
    iwae = as_npvae(p, "iwae")
    iwae.loss(x, eps)
    np.testing.assert_allclose(losses, -iwae.losses, rtol=1e-12)


def test_log_likelihood_of_the_solution_is_that_of_evaluate(p):
    images = np.random.default_rng(3).integers(0, 256, (8, 784), np.uint8)
    model, noise = as_npvae(p), npvae.evaluate.noise(block=0)
    eps = noise.standard_normal((50, 8, 20), np.float32)  # 400 draws: in one block
    right = -estimates(model, images, None, 50, (50,))["iwae"][0]
    np.testing.assert_allclose(of("log_likelihood")(p, batch(images).astype(float), eps), right, rtol=1e-6)


def test_adam_of_the_solution_is_that_of_npvae(rng):
    parameters = Parameters({"theta": (500, 3)}, np.float64)
    parameters.values[:] = rng.normal(size=1500)
    theta, optimizer = parameters["theta"].copy(), Adam(parameters, 0.01, 0.8, 0.99, 1e-3)
    m = v = np.zeros_like(theta)
    for t in range(1, 8):
        parameters.gradient[:] = rng.normal(size=1500)
        theta, m, v = of("adam_step")(theta, parameters.d("theta"), m, v, t, 0.01, 0.8, 0.99, 1e-3)
        optimizer.step()
        np.testing.assert_allclose(theta, parameters["theta"], rtol=1e-10)


# the gradients of the solutions are the derivatives


def test_gradients_of_small_solutions_agree_with_the_complex_step(rng):
    mu, logvar, d_z, eps = rng.normal(size=(4, 2)), rng.normal(size=(4, 2)), *rng.normal(size=(2, 3, 4, 2))
    x, logits = rng.uniform(size=(4, 5)), rng.normal(size=(4, 5))
    W, b, d_y = rng.normal(size=(5, 3)), rng.normal(size=3), rng.normal(size=(4, 3))
    h = np.tanh(d_y)
    asked = [
        (lambda mu: of("gaussian_kl")(mu, logvar).sum(), mu, of("gaussian_kl_gradient")(mu, logvar)[0]),
        (lambda logvar: of("gaussian_kl")(mu, logvar).sum(), logvar, of("gaussian_kl_gradient")(mu, logvar)[1]),
        (
            lambda mu: (d_z * of("reparameterize")(mu, logvar, eps)).sum(),
            mu,
            of("reparameterize_gradient")(d_z, logvar, eps)[0],
        ),
        (
            lambda logvar: (d_z * of("reparameterize")(mu, logvar, eps)).sum(),
            logvar,
            of("reparameterize_gradient")(d_z, logvar, eps)[1],
        ),
        (lambda x: (d_y * of("dense")(x, W, b)).sum(), x, of("dense_backward")(d_y, x, W)[0]),
        (lambda W: (d_y * of("dense")(x, W, b)).sum(), W, of("dense_backward")(d_y, x, W)[1]),
        (lambda b: (d_y * of("dense")(x, W, b)).sum(), b, of("dense_backward")(d_y, x, W)[2]),
        (lambda a: (d_y * of("tanh")(a)).sum(), np.arctanh(h), of("tanh_backward")(d_y, h)),
        (  # npvae's own density, which is the same, and holds for complex numbers
            lambda logits: distributions.bernoulli_log_density(x, logits).sum(),
            logits,
            of("bernoulli_log_density_gradient")(x, logits),
        ),
    ]
    for loss, theta, gradient in asked:
        np.testing.assert_allclose(gradient, complex_step_gradient(loss, theta), rtol=1e-12, atol=1e-13)


def test_gradient_of_the_whole_vae_agrees_with_the_complex_step(p, rng):
    safe = "from npvae.distributions import bernoulli_log_density, bernoulli_log_density_gradient"
    ex07 = loaded(exercise(7).solution, "ex07_vae", solved() | {"ex04_bernoulli": loaded(safe, "ex04_bernoulli")})
    x, eps = rng.uniform(size=(20, 784)), rng.normal(size=(2, 20, 20))
    d = of("backward")(p, of("forward")(p, x, eps)[1])
    for name in p:
        direction = rng.normal(size=p[name].shape)
        slope = complex_step(lambda array, name=name: ex07.forward({**p, name: array}, x, eps)[0], p[name], direction)
        assert (d[name] * direction).sum() == pytest.approx(slope, rel=1e-11)


def test_training_with_the_solutions_makes_the_loss_fall(rng):
    images = (rng.uniform(size=(60, 12)) < np.repeat([0.1, 0.9], 6)).astype(np.uint8) * 255
    p = of("initialize")(12, 8, 2, rng)
    moments, t, losses = {name: (0 * array, 0 * array) for name, array in p.items()}, 0, []
    for _ in range(40):
        loss, t = of("train_epoch")(p, moments, t, images, 25, rng, 0.01)
        losses.append(loss)
    assert t == 120
    assert losses[-1] < 0.6 * losses[0]
    assert all(array.dtype == np.float32 for array in p.values())


def test_emptied_solution_keeps_signatures_and_docstrings():
    for number, name in FUNCTIONS:
        full, empty = (
            function_source(source, name) for source in (exercise(number).solution, exercise(number).start(0))
        )
        (one,), (other,) = (ast.parse(text).body for text in (full, empty))
        assert ast.dump(one.args) == ast.dump(other.args)
        assert ast.get_docstring(one) == ast.get_docstring(other)
        assert len(other.body) == 2


def test_a_learner_s_own_kind_of_value_error_is_a_value_error(monkeypatch):
    monkeypatch.setattr(judging, "SEARCH", 0.2)  # another kind is in no list
    source = STYLES["classes, closures, helpers"]["ex01_idx"]
    assert "class IDXError(ValueError)" in source
    wrong = source.replace("IDXError(ValueError)", "IDXError(Exception)")
    (verdict,) = verdicts("ex01_idx", wrong, ["read_header"])
    assert "IDXError, expected a ValueError" in verdict.headline


def test_numbers_that_differ_are_shown_with_enough_digits_to_differ():
    def slightly_off(mu, logvar):
        return of("gaussian_kl")(mu, logvar) * (1 + 1e-8)

    verdict = judging.judge(slightly_off, "gaussian_kl", exercise(5), solved())
    found, expected = re.search(r"is (\S+), expected (\S+)", verdict.details[0]).groups()
    assert found != expected


@pytest.mark.parametrize(
    ("constants", "said"), [("learning_rate * (1 + (t == 2))", "0.004"), ("learning_rate, 0.7, 0.5", "0.7, 0.5")]
)
def test_other_constants_of_adam_are_seen_in_any_step(constants, said, monkeypatch):
    monkeypatch.setattr(judging, "SEARCH", 0.2)  # they are in no list
    source = edited(exercise(9).solution, "train_epoch", [(", t, learning_rate)", f", t, {constants})")])
    (verdict,) = verdicts("ex09_train", source, ["train_epoch"])
    assert not verdict.passed
    assert said in str(verdict)


def test_modules_are_as_they_were_after_a_check():
    before = {name for name in MODULES if name in sys.modules}
    with imported("ex07_vae", STYLES["in place"]["ex07_vae"]):
        pass
    assert {name for name in MODULES if name in sys.modules} == before


def test_no_two_mistakes_of_a_function_are_the_same_text():
    for number, name in FUNCTIONS:
        spec, solution = exercise(number).functions[name], exercise(number).solution
        sources = [edited(solution, name, mistake.changes) for mistake in spec.mistakes]
        assert None not in sources
        assert all(one != other for one, other in itertools.combinations(sources, 2)), name


def test_documents_say_how_many_mistakes_are_known_and_which_exercises_there_are():
    text = (NOTEBOOKS.parent / "docs" / "exercises.md").read_text(encoding="utf-8")
    functions = [spec for number in WRITTEN for spec in exercise(number).functions.values()]
    listed = sum(len(spec.mistakes) for spec in functions)
    styled = len(functions) * len(STYLES)
    assert f"| **{len(functions)}** | **{listed}** | **{listed}** | **{styled}** | **{styled}** |" in text
    assert all(f"`{exercise(number).file}`" in text for number in NUMBERS)


def beside(task, bug):
    """(function, source): the planted bug with a second mistake beside it, where both fit into the function."""
    source = task.with_bug(bug)
    for name, what in bug.mistakes.items():
        seconds = (edited(source, name, one.changes) for one in task.functions[name].mistakes if one.what != what)
        yield from (
            (name, both) for both in itertools.islice(filter(None, seconds), 1) if task.is_planted(bug, name, both)
        )


@pytest.mark.slow
def test_planted_bug_is_not_given_away_by_another_mistake_beside_it(monkeypatch):
    monkeypatch.setattr(judging, "SEARCH", 0.2)  # whether or not the two have been named
    tried = [(exercise(n), BUGS[n][i], *both) for n, i in PLANTED for both in beside(exercise(n), BUGS[n][i])]
    assert len(tried) > 15
    for task, bug, name, source in tried:
        (first, *_) = told = task.told(verdicts(task.module, source, bug.mistakes), source)
        assert first.headline == "the bug is still there", (bug, name)
        assert not any(planted in str(verdict) for verdict in told for planted in bug.mistakes.values()), (bug, name)
