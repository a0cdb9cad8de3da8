"""The list of the mutants that may survive: reasons, and mutants that there are."""

import ast
import json

from tests.mutants import LISTED, ROOT, TESTS, mutants


def test_each_listed_mutant_is_one_of_its_module_and_has_a_reason():
    entries = json.loads(LISTED.read_text())
    assert all(entry["kind"] in ("equivalent", "cosmetic") and len(entry["reason"]) > 10 for entry in entries)
    listed = [name for entry in entries for name in entry["mutants"]]
    targets = [target.partition("::") for target in TESTS]
    there = {name for path, _, only in targets for name, *_ in mutants(path, only, sources=False)}
    assert len(listed) == len(set(listed))
    assert set(listed) - there == set()


def test_each_mutant_is_another_program_and_the_original_comes_back():
    original = ast.unparse(ast.parse((ROOT / "npvae/parameters.py").read_text()))
    found = list(mutants("npvae/parameters.py"))
    assert len({name for name, *_ in found}) == len(found) > 10
    assert len({source for *_, source in found} | {original}) == len(found) + 1
