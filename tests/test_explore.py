"""The page of a model, in a real browser: it computes what NumPy computes, alone in one file."""

import base64
import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import webbrowser
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from npvae import explore
from npvae.config import Config
from npvae.data.datasets import FILES, load
from npvae.data.idx import read_idx, write_idx
from npvae.data.pixels import batch, one_hot
from npvae.objectives import OBJECTIVES
from npvae.runs import Run
from npvae.training import Training
from tests.conftest import SMALL, run_train

ROOT = Path(__file__).parents[1]
COUNT, SAMPLES = 100, (1, 5, 50)  # images, and samples of z for each

# every two values of activation, likelihood, labels, depth and extremeness meet in one of them; the first is of images
# of 28 × 28 pixels, the others of 20 × 14
MODELS = {
    "trained-bernoulli": {"activation": "tanh", "hidden": [40]},
    "trained-labels": {"activation": "relu", "hidden": [40, 20], "conditional": True},
    "trained-gaussian": {"activation": "softplus", "hidden": [40, 20], "likelihood": "gaussian"},
    "extreme-labels": {"activation": "softplus", "hidden": [40], "conditional": True},
    "extreme-gaussian": {"activation": "relu", "hidden": [40], "likelihood": "gaussian"},
    "extreme-both": {"activation": "tanh", "hidden": [40, 20], "likelihood": "gaussian", "conditional": True},
}
Q, LOGITS = 9, 5000  # what mu or logvar, and the decoder's outputs, of an extreme model reach

# asks npvae for all that it computes, about 100 images at once: text of JSON in, text of JSON out
ASK = """(text) => {
    const { x, y, z, eps } = JSON.parse(text);
    const q = x.map((image, i) => npvae.encode(image, y?.[i]));
    return JSON.stringify({
        mu: q.map((each) => each.mu),
        logvar: q.map((each) => each.logvar),
        mean: z.map((point, i) => npvae.decode(point, y?.[i])),
        elbo: eps.map((noise) => x.map((image, i) => npvae.elbo(image, noise[i], y?.[i]))),
        logP: eps.map((noise) => x.map((image, i) => npvae.logP(image, noise[i], y?.[i]))),
    });
}"""


def make_run(folder, data, extreme=False, **settings):
    """A run of one short epoch."""
    dataset = load(str(data))
    settings = {"hidden": [8], "latent": 5, "learning_rate": 0.01, **settings}
    run = Run.create(folder, Config(dataset=str(data), **settings))
    training = Training(run.config, dataset)
    for _ in training.steps():
        pass
    training.end_epoch()
    if extreme:
        stretch(training.vae, question(training.vae, dataset))
    training.save(run)
    return run


def stretch(vae, asked):
    """Scale both last layers so that their outputs are as large as a model can have them."""
    for mlp, limit, outputs in (
        (vae.encoder, Q, lambda: np.concatenate(vae.encode(asked["x"], asked["y"]))),
        (vae.decoder, LOGITS, lambda: vae.decoder_outputs(asked["z"], asked["y"])),
    ):
        layer, scale = mlp.layers[-1], limit / abs(outputs()).max()
        for array in (layer.W, layer.b):
            array *= scale
        assert abs(outputs()).max() > 0.99 * limit


def question(vae, dataset):
    """What a page is asked, as arrays."""
    rng = np.random.default_rng(8)
    return {
        "x": batch(dataset.test_images[:COUNT]),
        "y": one_hot(dataset.test_labels, slice(COUNT), vae.classes),
        "z": 2 * rng.standard_normal((COUNT, vae.latent), np.float32),
        "eps": [rng.standard_normal((samples, COUNT, vae.latent), np.float32) for samples in SAMPLES],
    }


def as_json(asked):
    """The question for `ASK`; of the labels, every second one is a number and the others are one-hot."""
    y = asked["y"]
    if y is not None:
        y = [row.tolist() if i % 2 else int(row.argmax()) for i, row in enumerate(y)]
    eps = [noise.swapaxes(0, 1).tolist() for noise in asked["eps"]]
    return json.dumps({"x": asked["x"].tolist(), "y": y, "z": asked["z"].tolist(), "eps": eps})


def answer(vae, asked):
    """What NumPy answers, in the precision of the model."""
    x, y = asked["x"], asked["y"]
    mu, logvar = vae.encode(x, y)
    found = {"mu": mu, "logvar": logvar, "mean": vae.decode(asked["z"].astype(mu.dtype), y)}
    for name, objective in (("elbo", "elbo"), ("logP", "iwae")):
        vae.objective, found[name] = OBJECTIVES[objective], []
        for eps in asked["eps"]:
            vae.loss(x, eps, y)
            found[name].append(-vae.losses)
    return found


def require_equal(text, run):
    """The answer of a page to what `asked` holds is NumPy's."""
    vae = run.vae()
    asked = question(vae, run.dataset())
    answered = json.loads(text)
    for name, values in answer(vae.astype(np.float64), asked).items():
        np.testing.assert_allclose(answered[name], values, rtol=1e-9, atol=1e-9, err_msg=name)
    if "trained" in run.folder.name:  # and that of the model that was trained, in float32
        for name, values in answer(vae, asked).items():
            tolerance = 1e-3 if name in ("elbo", "logP") else 1e-4  # nats
            np.testing.assert_allclose(answered[name], values, rtol=0, atol=tolerance, err_msg=name)


def data_in(path):
    """What a page knows."""
    return json.loads(re.search(r'<script id="run" type="application/json">(.*?)</script>', path.read_text("utf-8"))[1])


def write_page(run, *arguments):
    assert explore.main([str(argument) for argument in (run.folder, *arguments)]) == 0
    return run.folder / "explorer.html"


def cut(source, folder, rows=slice(4, 24), columns=slice(7, 21)):
    """Copy a data set, of its images only this part, by default the 20 × 14 pixels in the middle."""
    shutil.copytree(source, folder)
    for file in FILES[::2]:
        write_idx(folder / file, read_idx(folder / file)[:, rows, columns])


@pytest.fixture(scope="module")
def pages(few_digits, tmp_path_factory):
    """For each of MODELS its run, with its page."""
    folder = tmp_path_factory.mktemp("explored")
    cut(few_digits, folder / "cut")
    runs = {}
    for name, settings in MODELS.items():
        data = folder / "cut" if runs else few_digits
        runs[name] = make_run(folder / name, data, "extreme" in name, **settings)
        write_page(runs[name])
    return runs


@pytest.mark.parametrize("name", MODELS)
def test_browser_computes_what_numpy_computes(name, pages, visit):
    run = pages[name]
    page = visit(run.folder / "explorer.html")
    asked = as_json(question(run.vae(), run.dataset()))
    require_equal(page.evaluate(ASK, asked), run)


@pytest.mark.skipif(shutil.which("node") is None, reason="no Node.js is installed")
def test_node_computes_what_numpy_computes(pages):
    model = (ROOT / "npvae/explorer/model.js").read_text(encoding="utf-8")
    runs, asked = [pages["extreme-labels"], pages["extreme-both"]], []
    for run in runs:
        data = data_in(run.folder / "explorer.html")
        asked.append([data["settings"], data["parameters"], as_json(question(run.vae(), run.dataset()))])
    script = f"""{model}
    let npvae;
    const ask = {ASK};
    for (const [settings, parameters, text] of {json.dumps(asked)}) {{
        const values = new Float32Array(fromBase64(parameters).buffer);
        npvae = onPlainArrays(new VAE(settings, values), settings);
        console.log(ask(text));
    }}"""
    process = subprocess.run(["node", "-"], input=script, capture_output=True, text=True, timeout=60)
    assert (process.returncode, process.stderr) == (0, "")
    for text, run in zip(process.stdout.splitlines(), runs, strict=True):
        require_equal(text, run)


def outcomes(page, cases):
    """What comes of each of some expressions about x, z and eps: the name of the error, or 'answered'."""
    functions = ", ".join(f"() => {case}" for case in cases)
    attempts = page.evaluate(f"""() => {{
        const {{ pixels, latent }} = npvae.settings;
        const [x, z, eps] = [pixels, latent, latent].map((length) => Array(length).fill(0.5));
        const changed = (array, value) => array.with(3, value);
        return [{functions}].map((attempt) => {{
            try {{
                attempt();
                return "answered";
            }} catch (error) {{
                return error.constructor.name;
            }}
        }});
    }}""")
    return dict(zip(cases, attempts, strict=True))


WRONG_IMAGES = ("", "null", "0", "[]", "x.slice(1)", "[...x, 0]", "[x]", "changed(x, -0.01)", "changed(x, 1.01)")
WRONG_IMAGES += ("changed(x, NaN)", "changed(x, Infinity)", "changed(x, undefined)", "changed(x, null)")
WRONG_IMAGES += ("changed(x, '1')", "changed(x, [1])", "'1'.repeat(784)", "{length: 784}", "Array(784)")
WRONG_NOISE = ("undefined", "null", "0", "[]", "[[]]", "z.slice(1)", "[...z, 0]", "[z, z.slice(1)]", "changed(z, NaN)")
WRONG_NOISE += ("[z, changed(z, -Infinity)]", "changed(z, null)", "[[z]]", "'12345'")
WRONG_LABELS = (
    "-1",
    "10",
    "1.5",
    "NaN",
    "'3'",
    "true",
    "[]",
    "[0, 1]",
    "Array(11).fill(0)",
    "changed(Array(10).fill(0), NaN)",
)


def test_page_refuses_what_is_of_another_shape_or_out_of_range(pages, visit):
    page = visit(pages["trained-bernoulli"].folder / "explorer.html")
    cases = [f"npvae.encode({x})" for x in WRONG_IMAGES]
    cases += [f"npvae.{name}({x or 'undefined'}, eps)" for name in ("elbo", "logP") for x in WRONG_IMAGES]
    cases += [f"npvae.{name}(x, {eps})" for name in ("elbo", "logP") for eps in WRONG_NOISE]
    cases += [f"npvae.decode({z})" for z in WRONG_NOISE if z != "[z, z]"]
    labelled = [f"npvae.encode(x, {y})" for y in ("0", "[1]", "[]", "false")]
    labelled += ["npvae.decode(z, 0)", "npvae.elbo(x, eps, 0)", "npvae.logP(x, [eps, eps], 0)"]
    cases += labelled
    assert {case: error for case, error in outcomes(page, cases).items() if error != "RangeError"} == {}
    right = ["npvae.encode(x)", "npvae.decode(new Float32Array(z))", "npvae.elbo(x, eps)", "npvae.logP(x, [eps, eps])"]
    assert set(outcomes(page, right).values()) == {"answered"}  # it is still alive


def test_page_of_a_conditional_model_refuses_what_is_no_label(pages, visit):
    page = visit(pages["trained-labels"].folder / "explorer.html")
    cases = ["npvae.encode(x)", "npvae.decode(z)", "npvae.elbo(x, eps)", "npvae.logP(x, eps, null)"]
    cases += [f"npvae.{asked}, {y})" for asked in ("encode(x", "decode(z", "logP(x, [eps]") for y in WRONG_LABELS]
    assert {case: error for case, error in outcomes(page, cases).items() if error != "RangeError"} == {}
    assert set(outcomes(page, ["npvae.encode(x, 9)", "npvae.decode(z, 0)"]).values()) == {"answered"}


# what the command refuses


def no_such_run(run):
    shutil.rmtree(run.folder)
    return "is not a run: it has no config.json"


def no_checkpoint(run):
    run.checkpoint.unlink()
    return "has no checkpoint.npz: the run stopped before it saved one"


def truncated_checkpoint(run):
    run.checkpoint.write_bytes(run.checkpoint.read_bytes()[:1000])
    return "checkpoint.npz is broken"


def checkpoint_with(value):
    def broken(run):
        state = run.load_checkpoint()
        state["parameters"][3] = value
        run.save_checkpoint(state)
        return "checkpoint.npz"

    return broken


def huge_parameters(run):
    state = run.load_checkpoint()
    state["parameters"] *= np.float32(1e30)  # finite, but what is computed with them is not
    run.save_checkpoint(state)
    return "checkpoint.npz"


def no_data(run):
    shutil.rmtree(run.config.dataset)
    return run.config.dataset


def fewer_rows(run):
    shutil.move(run.config.dataset, run.config.dataset + " before")
    cut(run.config.dataset + " before", Path(run.config.dataset), rows=slice(20), columns=slice(28))
    return "has images of 20 × 28 pixels, expected 28 × 28, as in training"


BROKEN = {
    "no such run": no_such_run,
    "no checkpoint": no_checkpoint,
    "truncated checkpoint": truncated_checkpoint,
    "NaN": checkpoint_with(np.nan),
    "infinity": checkpoint_with(-np.inf),
    "overflow": huge_parameters,
    "no data": no_data,
    "other data": fewer_rows,
}


@pytest.fixture(scope="module")
def small_run(few_digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    shutil.copytree(few_digits, folder / "data")
    return make_run(folder / "run", folder / "data").folder


@pytest.fixture
def own_run(small_run, tmp_path):
    """A run, and data, that a test may break."""
    shutil.copytree(small_run.parent / "data", tmp_path / "data")
    shutil.copytree(small_run, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    config = json.loads((run.folder / "config.json").read_text()) | {"dataset": str(tmp_path / "data")}
    run.save_config(Config(**config))
    return run


def test_a_model_of_binary_images_is_shown_no_grey_ones(binarized, few_digits, tmp_path):
    arguments = [
        "--dataset",
        "binarized-mnist",
        "--data-dir",
        binarized,
        *SMALL,
        "--epochs",
        1,
        "--out",
        tmp_path / "run",
    ]
    assert run_train(*arguments).returncode == 0
    run = Run.open(tmp_path / "run")
    for images in ([], ["--images", few_digits]):
        page = data_in(write_page(run, *images))
        assert page["binary"]
        assert set(zlib.decompress(base64.b64decode(page["images"]))) == {0, 255}


def require_nothing_written(run, refuse):
    """No page is left of a command that refuses, nor a part of one; a page that was there is as it was."""
    path = run.folder / "explorer.html"
    before = set(run.folder.parent.rglob("*"))
    line = refuse()
    assert set(run.folder.parent.rglob("*")) == before
    if run.folder.is_dir():
        path.write_text("older")
        assert refuse() == line
        assert path.read_text() == "older"
        path.unlink()
    assert set(run.folder.parent.rglob("*")) == before
    return line


@pytest.mark.parametrize("what", BROKEN)
def test_what_cannot_be_a_page_is_refused_in_a_line(what, own_run, refused):
    reason = BROKEN[what](own_run)
    line = require_nothing_written(own_run, lambda: refused(explore.main, [own_run.folder]))
    assert line.startswith("python -m npvae.explore: ")
    assert reason in line


def test_a_page_that_cannot_be_written_is_told_in_a_line(own_run, refused):
    (own_run.folder / "explorer.html").mkdir()
    before = set(own_run.folder.rglob("*"))
    assert "explorer.html" in refused(explore.main, [own_run.folder])
    assert set(own_run.folder.rglob("*")) == before


def test_images_that_the_model_was_not_made_for_are_refused(own_run, frey, refused):
    def refuse(*arguments):
        return require_nothing_written(own_run, lambda: refused(explore.main, [own_run.folder, *arguments]))

    line = refuse("--images", "frey", "--data-dir", frey)
    assert "frey has images of 28 × 20 pixels, expected 28 × 28, as in training" in line
    assert "no data set 'nothing'" in refuse("--images", "nothing")
    assert "no data set ''" in refuse("--images", "")
    (own_run.folder.parent / "empty").mkdir()
    assert "no train-images-idx3-ubyte" in refuse("--images", own_run.folder.parent / "empty")


def test_images_with_labels_that_a_conditional_model_does_not_know_are_refused(own_run, few_digits, tmp_path, refused):
    run = make_run(tmp_path / "conditional", few_digits, conditional=True)
    data = Path(own_run.config.dataset)
    for file, largest in (("t10k-labels-idx1-ubyte", 12), ("train-labels-idx1-ubyte", 6)):
        labels = read_idx(data / file)
        write_idx(data / file, np.where(labels > 6, largest, labels).astype(np.uint8))
        assert "label" in require_nothing_written(run, lambda: refused(explore.main, [run.folder, "--images", data]))


# the file


def test_images_to_pick_from_are_those_of_the_data_set_that_is_named(own_run, few_digits):
    data = Path(own_run.config.dataset)
    other = data.with_name("other")
    shutil.copytree(data, other)
    images = 255 - read_idx(data / "t10k-images-idx3-ubyte")[::-1]
    write_idx(other / "t10k-images-idx3-ubyte", images)
    for arguments, expected in ([], read_idx(few_digits / "t10k-images-idx3-ubyte")), (["--images", other], images):
        found = data_in(write_page(own_run, *arguments))["images"]
        found = np.frombuffer(zlib.decompress(base64.b64decode(found)), np.uint8)
        np.testing.assert_array_equal(found.reshape(-1, 28, 28), expected)


def test_the_same_run_makes_the_same_page_wherever_it_lies(own_run, tmp_path):
    first = write_page(own_run).read_bytes()
    assert write_page(own_run).read_bytes() == first
    own_run.folder.parent.joinpath("deeper").mkdir()
    own_run.folder.rename(tmp_path / "deeper" / "run")
    assert write_page(Run.open(tmp_path / "deeper" / "run")).read_bytes() == first
    assert str(tmp_path).encode() not in first


def test_command_says_where_the_page_is_and_opens_it(own_run, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    path = write_page(own_run)
    assert opened == []
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{path}: ")
    assert (printed.out.count("\n"), printed.err) == (1, "")
    monkeypatch.chdir(own_run.folder.parent)
    assert explore.main(["run", "--open"]) == 0
    assert opened == [path.as_uri()]


class Outside(HTMLParser):
    """Collects what the elements of a page load from outside of it; a link leads away only when it is clicked."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        loading = {"src", "srcset", "data", "poster", "action", "formaction", "background", "xlink:href"}
        loading |= set() if tag == "a" else {"href"}
        self.found += [value for name, value in attributes if name in loading and not value.startswith(("#", "data:"))]
        self.found += ["a base" for _ in attributes if tag == "base"]


def test_page_of_the_default_model_is_one_file_of_moderate_size(data_dir, tmp_path):
    run = Run.create(tmp_path / "run", Config(dataset="strokes", data_dir=str(data_dir)))
    Training(run.config, run.dataset()).save(run)
    path = write_page(run)
    assert 3e6 < path.stat().st_size < 5e6
    text = path.read_text(encoding="utf-8")
    assert Outside(text).found == []
    code = text.replace(re.search(r'type="application/json">(.*?)</script>', text)[1], "")
    assert (
        re.findall(r"""@import|\burl\((?!["']?(?:#|data:))|\bimport\s*\(|\bimportScripts\b|\bfetch\(|XMLHttp""", code)
        == []
    )
    assert "{{" not in code


def test_every_file_of_the_page_is_installed():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    patterns = config["options.package_data"]["npvae"].replace(",", " ").split()
    installed = {path for pattern in patterns for path in (ROOT / "npvae").glob(pattern)}
    assert set((ROOT / "npvae/explorer").iterdir()) <= installed


def test_the_page_in_the_docs_is_made_of_these_files():
    page = (ROOT / "docs" / "explorer.html").read_text(encoding="utf-8")
    for path in explore.PAGE.glob("*.[cj]s*"):
        assert path.read_text(encoding="utf-8") in page, "make docs/explorer.html again: docs/explorer.md says how"


def test_every_line_of_code_that_the_page_shows_is_there(pages):
    sources = data_in(pages["trained-bernoulli"].folder / "explorer.html")["sources"]
    assert set(sources) == set(explore.SOURCES)
    for name, where in sources.items():
        line = (ROOT / where["file"]).read_text(encoding="utf-8").splitlines()[where["line"] - 1]
        assert line.strip() == where["code"], name
        function, piece = explore.SOURCES[name]
        assert piece in line
        first = function.__code__.co_firstlineno
        assert where["line"] in {line for *_, line in function.__code__.co_lines()} - {first}  # it computes


# what a run is called

NAMES = [
    'x"><img src=x onerror=alert(1)><!--<script>window.hacked=1',
    "'+alert(1)+'<script>{{data}}{{title}} ${alert(1)} \\u003cscript\\u003e &lt;script&gt;",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_a_run_and_its_data_are_text(name, few_digits, tmp_path, visit):
    data = tmp_path / "</script><script>window.hacked=1</script>" / "<!--" / f"data {name}"
    shutil.copytree(few_digits, data)
    page = visit(write_page(make_run(tmp_path / name, data)))
    assert name in page.title()
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.querySelectorAll('img:not([src^=\"data:\"]), iframe').length") == 0
    assert outcomes(page, ["npvae.encode(x)"]) == {"npvae.encode(x)": "answered"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_not_utf_8_is_shown_as_well_as_it_can_be(own_run, visit):
    run = Run(own_run.folder.rename(os.fsdecode(os.fsencode(own_run.folder) + b"-\xff-of-me")), own_run.config)
    page = visit(write_page(run))
    assert "run-" in page.title()
    assert "-of-me" in page.title()
