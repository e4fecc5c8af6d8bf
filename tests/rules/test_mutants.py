"""A mutant that changes nothing proves nothing: its text stands where it says, once."""

import sys

import pytest
from tree import ROOT

sys.path.insert(0, str(ROOT / "tests" / "mutants"))
from catalogue import MUTANTS, Mutant
from cold import COLD_MUTANTS


@pytest.mark.parametrize("mutant", (*MUTANTS, *COLD_MUTANTS), ids=lambda mutant: mutant.rule)
def test_a_mutant_finds_its_text(mutant: Mutant) -> None:
    path = ROOT / mutant.file
    assert path.read_text().count(mutant.old) == 1, f"{mutant.file} was changed: so must the mutant"
    assert mutant.old != mutant.new and mutant.tests
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert (ROOT / file).exists(), test
        assert not name or f"def {name}(" in (ROOT / file).read_text(), test
