"""What holds for the project as a whole."""

import ast
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imsave

import npvae
from npvae.__main__ import COMMANDS
from npvae.__main__ import main as by_name
from npvae.commands import UserError
from npvae.data.datasets import load
from npvae.gradcheck import GradientError
from npvae.runs import Run
from tests.conftest import missing_links

ROOT = Path(__file__).parents[1]


def test_import_npvae_imports_nothing_heavier_than_numpy():
    code = "import sys, npvae; print({name.split('.')[0] for name in sys.modules} & {'matplotlib', 'requests', 'tqdm'})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_load_is_there_without_an_import_of_what_it_needs():
    code = "import sys, npvae; before = set(sys.modules); npvae.load; print('requests' in set(sys.modules) - before)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "True"
    assert callable(npvae.load)
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        npvae.lode  # noqa: B018


def test_nothing_is_unpickled():
    """A pickle in a file runs whatever its author wrote: a run that someone sent would do as they like."""
    for path in (*(ROOT / "npvae").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), path
                assert node.value.value is False, path
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {"pickle", "shelve", "marshal", "dill", "joblib"}, path


def test_a_checkpoint_that_would_run_code_is_refused_and_does_not(finished, tmp_path):
    class Code:
        def __reduce__(self):
            return Path.touch, (tmp_path / "it ran",)

    run = Run(tmp_path, Run.open(finished[0]).config)
    np.savez(run.checkpoint, **dict(np.load(finished[0] / "checkpoint.npz")), more=np.array([Code()]))
    with pytest.raises(UserError, match="is broken"):
        run.load_checkpoint()
    assert not (tmp_path / "it ran").exists()


def test_nothing_but_numpy_computes():
    allowed = {"numpy", "matplotlib", "requests", "urllib3", "tqdm", "npvae"} | set(sys.stdlib_module_names)
    allowed |= {"PIL"}  # without which there is no Matplotlib
    allowed |= {path.stem for path in (ROOT / "npvae/exercises/solutions").glob("ex*.py")}  # which import each other
    for path in (ROOT / "npvae").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            found = {name.split(".")[0] for name in names} - allowed
            assert found <= ({"mpi4py"} if path.name == "parallel.py" else set()), path


def run(module, *arguments):
    return subprocess.run([sys.executable, "-W", "error", "-m", module, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("module", ["npvae", *(f"npvae.{name}" for name in COMMANDS)])
def test_command_starts_without_a_warning_and_knows_its_name_and_version(module):
    process = run(module, "--help")
    assert process.returncode == 0
    assert process.stderr == ""
    assert f"python -m {module}" in process.stdout
    process = run(module, "--version")
    assert (process.returncode, process.stdout, process.stderr) == (0, "npvae 0.1.0\n", "")


def test_npvae_lists_every_command_in_a_line():
    decorated = re.compile(r'^(?:@command\(|PROGRAM = )"python -m npvae\.([\w.]+)"', re.MULTILINE)
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "npvae").rglob("*.py"))
    assert set(COMMANDS) == set(decorated.findall(sources))
    lines = run("npvae").stdout.splitlines()
    for name, what in COMMANDS.items():
        assert [line.split(maxsplit=3)[2:] for line in lines if f" npvae.{name} " in line] == [[f"npvae.{name}", what]]
    assert max(map(len, lines)) <= 80


def test_npvae_refuses_what_it_does_not_know_in_a_line():
    process = run("npvae", "--colour")
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr == "python -m npvae: unrecognized arguments: --colour\n"
    process = run("npvae", "trian", "--epochs", "3")
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr == f"python -m npvae: no command trian; expected one of {', '.join(COMMANDS)}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_npvae_runs_each_command_by_its_name(name, capsys):
    def said(main, *arguments):
        with pytest.raises(SystemExit) as exit:
            main(list(arguments))
        return exit.value.code, *capsys.readouterr()

    place = name if (ROOT / "npvae" / f"{name}.py").exists() else f"{name}.__main__"
    for arguments in (["--help"], ["--colour", "blue"]):
        direct = said(importlib.import_module(f"npvae.{place}").main, *arguments)
        assert said(by_name, name, *arguments) == direct
        assert f"python -m npvae.{name}" in "".join(map(str, direct))


def test_npvae_imports_no_command_but_the_one_that_is_named():
    code = "import sys; from npvae.__main__ import main; print(main(['gradcheck']), sorted(sys.modules))"
    verdict = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.splitlines()[-1]
    assert verdict.startswith("0 ")
    assert "'npvae.gradcheck'" in verdict
    assert not any(f"'npvae.{name}'" in verdict for name in COMMANDS if name != "gradcheck")


def python_in(name):
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)


def test_python_in_the_readme_runs(data_dir, finished, tmp_path, monkeypatch):
    monkeypatch.setenv("NPVAE_DATA", str(data_dir))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished[0], "runs/plane")
    imsave("seven.png", load("strokes", str(data_dir)).test_images[0].reshape(28, 28), cmap="gray_r")
    blocks = python_in("README.md")
    assert len(blocks) == 3
    for block in blocks:
        exec(block, {})


def test_docs_say_of_a_gradient_what_the_checker_says(capsys):
    right, wrong = python_in("docs/gradcheck.md")
    names = {}
    exec(right, names)
    assert capsys.readouterr().out.rstrip().endswith(": ok")
    with pytest.raises(GradientError) as error:
        exec(wrong, names)
    text = (ROOT / "docs" / "gradcheck.md").read_text(encoding="utf-8")
    findings = [line for line in str(error.value).splitlines() if line.startswith("  it is ")]
    assert findings
    assert all(line in text for line in findings)


DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"]
DOCUMENTS += [f"docs/{path.name}" for path in sorted(ROOT.glob("docs/*.md"))]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    path = ROOT / name
    assert not missing_links(path.read_text(encoding="utf-8"), path.parent)
