"""What holds for the project as a whole."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import missing_links

ROOT = Path(__file__).parents[1]


def test_import_npvae_imports_nothing_heavier_than_numpy():
    code = "import sys, npvae; print({name.split('.')[0] for name in sys.modules} & {'matplotlib', 'requests', 'tqdm'})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_nothing_but_numpy_computes():
    allowed = {"numpy", "matplotlib", "requests", "urllib3", "tqdm", "npvae"} | set(sys.stdlib_module_names)
    for path in (ROOT / "npvae").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} <= allowed, path


@pytest.mark.parametrize("module", ["train", "evaluate", "plot", "gradcheck"])
def test_command_starts_without_a_warning(module):
    process = subprocess.run(
        [sys.executable, "-W", "error", "-m", f"npvae.{module}", "--help"], capture_output=True, text=True
    )
    assert process.returncode == 0
    assert process.stderr == ""
    assert f"python -m npvae.{module}" in process.stdout


def test_python_in_the_readme_runs(data_dir, monkeypatch):
    monkeypatch.setenv("NPVAE_DATA", str(data_dir))
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, {})


@pytest.mark.parametrize("name", ["README.md", "benchmarks/README.md"])
def test_links_lead_somewhere(name):
    path = ROOT / name
    assert not missing_links(path.read_text(encoding="utf-8"), path.parent)
