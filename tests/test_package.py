"""What is built from the project holds all of it, wherever it goes."""

import configparser
import email
import importlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

import npvae

ROOT = Path(__file__).parents[1]


def files_of_the_project():
    """The files that git knows, or, in an unpacked sdist, those that it says it is made of."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        listing = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
        names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
        return {name for name in names if name and (ROOT / name).exists()}  # but for one that is just being removed
    names = (ROOT / "npvae.egg-info" / "SOURCES.txt").read_text(encoding="utf-8").splitlines()
    names = {PurePosixPath(name).as_posix() for name in names}  # without a ./ before it
    return {name for name in names if not name.startswith("npvae.egg-info/")}


BUILD = """
import sys
from setuptools import build_meta
_, folder = sys.argv  # which each of them overwrites
for build in (build_meta.build_sdist, build_meta.build_wheel, build_meta.build_editable):
    build(folder)
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the project, in a folder that is named as the package is."""
    folder = tmp_path_factory.mktemp("parent") / "npvae"
    for name in files_of_the_project():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def built(clone, tmp_path_factory):
    """The folder with what is built from it: an sdist, a wheel, and the wheel of an editable install."""
    folder = tmp_path_factory.mktemp("built")
    process = subprocess.run([sys.executable, "-c", BUILD, folder], cwd=clone, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return folder


def test_sdist_holds_every_file_of_the_project(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as sdist:
        held = {member.name.partition("/")[2] for member in sdist if member.isfile()}
    files = files_of_the_project()
    assert {"tests/conftest.py", "tests/test_package.py", "pyproject.toml", ".ci/run"} <= files
    assert files - held == set()
    assert {name for name in held - files if not name.startswith("npvae.egg-info/")} <= {"PKG-INFO", "setup.cfg"}


def test_wheel_holds_the_package_and_nothing_else(built):
    (path,) = built.glob("npvae-?.?.?-py3-none-any.whl")
    with zipfile.ZipFile(path) as wheel:
        held = {name for name in wheel.namelist() if not name.startswith("npvae-")}
    assert held == {name for name in files_of_the_project() if name.startswith("npvae/") and "ruff.toml" not in name}


def metadata(wheel):
    with zipfile.ZipFile(wheel) as files:
        (name,) = (name for name in files.namelist() if name.endswith("/METADATA"))
        return email.message_from_string(files.read(name).decode())


def test_metadata_says_whose_what_and_under_which_licence(built):
    (wheel,) = built.glob("npvae-?.?.?-py3-none-any.whl")
    fields = metadata(wheel)
    assert fields["Version"] == npvae.__version__
    assert fields["License-Expression"] == "MIT"
    for field in ("Summary", "Author", "Keywords", "Classifier", "Project-URL", "License-File", "Requires-Python"):
        assert fields[field], field


def test_script_npvae_is_the_function_that_python_m_npvae_runs():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    script, _, target = config["options.entry_points"]["console_scripts"].strip().partition(" = ")
    module, _, function = target.partition(":")
    assert (script, module) == ("npvae", "npvae.__main__")
    assert callable(getattr(importlib.import_module(module), function))


def test_parent_folder_of_an_editable_install_does_not_hide_the_package(clone, built, tmp_path):
    """Python finds the clone there, as a namespace without a file, before anything that an import hook would find."""
    (wheel,) = built.glob("*editable*.whl")
    with zipfile.ZipFile(wheel) as files:
        files.extractall(tmp_path)
    packages = [str(Path(np.__file__).parents[1])]  # -S: without what else is installed to be edited
    code = f"import site, sys; sys.path.insert(0, ''); site.addsitedir({str(tmp_path)!r}); sys.path += {packages}"
    code += "; import npvae; print(npvae.VAE.__name__, npvae.__file__)"
    arguments = [sys.executable, "-I", "-S", "-c", code]
    process = subprocess.run(arguments, cwd=clone.parent, capture_output=True, text=True)
    assert process.stdout.split() == ["VAE", str(clone / "npvae" / "__init__.py")], process.stderr


def test_version_is_the_same_wherever_it_is_said():
    said = {
        "CITATION.cff": re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.M),
        "CHANGELOG.md": re.findall(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)[:1],
    }
    assert said == {file: [npvae.__version__] for file in said}
