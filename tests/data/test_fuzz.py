"""A short run of the fuzzer; `fuzz_readers.py` says how to run a long one."""

from tests.data.fuzz_readers import MAKERS, fuzz


def test_damaged_data_sets_give_samples_or_one_sentence() -> None:
    counts, crashes = fuzz(cases=8 * len(MAKERS), seed=1)
    assert crashes == []
    assert {name.split(":")[0] for name in counts} == {*MAKERS, "run lengths"}
