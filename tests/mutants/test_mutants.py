"""The list of defects holds: each pattern is still there once, each is another program, and today's are noticed."""

import pytest

from mutants import MUTANTS
from mutants.runner import (
    BROKEN,
    KILLED,
    NOT_RUN,
    PACKAGE,
    ROOT,
    SURVIVED,
    copied_package,
    run_tests,
    share_of,
    share_of_today,
    try_mutant,
    verdict,
)

pytestmark = pytest.mark.skipif(not PACKAGE.exists(), reason="there is no source beside these tests: a wheel is tested")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.title)
def test_a_pattern_matches_once_and_gives_another_program(mutant):
    changed = mutant.applied()
    assert changed != mutant.path.read_text(encoding="utf-8")
    compile(changed, mutant.file, "exec")
    for file in mutant.tests.split():
        assert (ROOT / "tests" / file.partition("::")[0]).exists(), file


def test_they_are_many_over_all_rooms_and_each_has_a_title_of_its_own():
    assert len(MUTANTS) >= 60
    assert len({mutant.title for mutant in MUTANTS}) == len(MUTANTS)
    rooms = {"engines", "core", "values", "records", "feed", "families", "watch", "retention", "database", "store",
             "codec", "node", "adapters", "web"}  # fmt: skip
    assert rooms <= {mutant.file.partition("/")[0] for mutant in MUTANTS}


def test_every_one_has_its_turn():
    turns = [mutant for day in range(1, 367) for mutant in share_of(MUTANTS, day, 3)]
    assert {mutant for mutant in MUTANTS if not mutant.equivalent and not mutant.unproven} == set(turns)


def test_what_pytest_says_is_what_it_means():
    assert verdict(1, "1 failed") == KILLED
    assert verdict(0, "3 passed, 1 skipped in 1 s") == SURVIVED
    assert verdict(0, "4 skipped in 1 s") == NOT_RUN
    assert verdict(5, "no tests ran") == verdict(2, "an error while importing") == BROKEN


@pytest.mark.timeout(900)
@pytest.mark.parametrize("mutant", share_of_today(MUTANTS), ids=lambda mutant: mutant.title)
def test_todays_defects_are_noticed(mutant, tmp_path):
    with copied_package(tmp_path) as source:
        code, output = run_tests(source, mutant.tests, mutant.only)
        assert code == 0, f"without the defect:\n{output}"
        result, output = try_mutant(source, mutant)
        if result == NOT_RUN:
            pytest.skip("what its tests need is not here")
        assert result == KILLED, f"{mutant.file}: {mutant.title}\n{output}"
