"""Parts that share nothing: no patient, no study, no pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.adapters.label_values import learnable
from retrieval.adapters.split import Linked, cohort_of, drawn, groups_of, split
from retrieval.errors import UsageError

LINKS = st.lists(
    st.builds(
        lambda patient, study, twin: (patient, study, twin),
        st.integers(0, 40), st.integers(0, 60), st.integers(0, 80),
    ),
    min_size=60, max_size=160,
)  # fmt: skip


def linked(ties: list[tuple[int, int, int]]) -> list[Linked]:
    """Zero is unknown; a twin is an older case with the same pixels."""
    return [
        Linked(f"c{n}", f"p{p}" if p else "", f"s{s}" if s else "", f"c{t}" if 0 < t < n else "")
        for n, (p, s, t) in enumerate(ties)
    ]


@given(ties=LINKS, seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_no_tie_crosses_a_part(ties: list[tuple[int, int, int]], seed: int) -> None:
    links = linked(ties)
    values = [("a",) if n % 3 else ("a", "b") for n in range(len(links))]
    try:
        cohort = cohort_of(links, values, "finding")
    except UsageError:
        return
    parts = split(cohort, seed)
    everything = np.concatenate([parts.train, parts.validation, parts.test])
    assert sorted(everything.tolist()) == list(range(len(cohort.chosen)))
    part_of = {
        int(cohort.chosen[n]): part
        for part, chosen in enumerate((parts.train, parts.validation, parts.test))
        for n in chosen
    }
    for field in ("patient", "study"):
        for name in {getattr(link, field) for link in links} - {""}:
            assert (
                len({part_of[n] for n, link in enumerate(links) if getattr(link, field) == name and n in part_of}) <= 1
            )
    for n, link in enumerate(links):
        if link.duplicate_of:
            twins = [m for m, other in enumerate(links) if other.case_id == link.duplicate_of]
            assert all(part_of[m] == part_of[n] for m in twins if m in part_of and n in part_of)
    again = split(cohort, seed)
    assert all(np.array_equal(a, b) for a, b in zip((again.train, again.test), (parts.train, parts.test), strict=True))


def test_ties_are_followed_through_others() -> None:
    links = [
        Linked("a", patient="p1"), Linked("b", patient="p1", study="s1"), Linked("c", study="s1"),
        Linked("d", duplicate_of="c"), Linked("e"), Linked("f"),
    ]  # fmt: skip
    assert groups_of(links).tolist() == [0, 0, 0, 0, 1, 2]


def test_every_value_is_in_every_part_in_proportion() -> None:
    links = [Linked(f"c{n}", patient=f"p{n // 2}") for n in range(400)]
    values = [("rare",) if n // 2 < 12 else ("common",) for n in range(400)]
    cohort = cohort_of(links, values, "finding")
    for seed in range(10):
        parts = split(cohort, seed)
        rare = cohort.members[:, cohort.classes.index("rare")]
        assert [rare[part].sum() >= 4 for part in (parts.train, parts.validation, parts.test)] == [True] * 3
        assert abs(len(parts.test) - 80) <= 4 and abs(len(parts.train) - 240) <= 8


def test_values_with_few_patients_are_left_out_and_too_few_values_are_told_with_numbers() -> None:
    links = [Linked(f"c{n}", patient=f"p{n // 2}") for n in range(60)]
    values = [("a",) if n < 24 else ("b",) if n < 48 else ("c",) for n in range(60)]
    cohort = cohort_of(links, values, "finding")
    assert cohort.classes == ("a", "b") and cohort.left_out == (("c", 6),) and len(cohort.chosen) == 48
    with pytest.raises(UsageError, match=r"at least 2 values of 'finding' with 10 patients.*'a' 12, 'c' 6"):
        cohort_of(links[:24] + links[48:], values[:24] + values[48:], "finding")


def test_numbers_need_bins_unless_they_are_grades() -> None:
    grades = [(f"{n % 5}",) for n in range(50)]
    assert learnable("kl", grades, [float(n % 5) for n in range(50)], None) == grades
    ages = [float(n) for n in range(100)]
    texts = [(f"{age:g}",) for age in ages]
    with pytest.raises(UsageError, match="100 distinct values from 0 to 99: say into how many"):
        learnable("age", texts, ages, None)
    binned = learnable("age", texts, [*ages[:-1], None], 4)
    assert binned[-1] == () and {value for of_case in binned[:-1] for value in of_case} == {
        "0 to 24.5", "24.5 to 49", "49 to 73.5", "73.5 to 98"
    }  # fmt: skip
    sizes = [sum(of_case == (value,) for of_case in binned) for value in ("0 to 24.5", "24.5 to 49", "49 to 73.5")]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("values", "numbers", "bins", "told"),
    [
        ([("x",)], [None], 4, "holds no numbers"),
        ([("1",)] * 9, [1.0] * 9, 4, "too much alike"),
        ([("1",), ("2",)], [1.0, 2.0], 1, "from 2 to 20 bins"),
    ],
)
def test_bins_that_make_no_sense_are_refused(
    values: list[tuple[str, ...]], numbers: list[float | None], bins: int, told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        learnable("x", values, numbers, bins)


@given(groups=st.lists(st.integers(0, 12), min_size=1, max_size=60), most=st.integers(0, 60), seed=st.integers(0, 5))
def test_a_sample_is_whole_groups_and_holds_all_that_find_room(groups: list[int], most: int, seed: int) -> None:
    numbers = np.array([sorted(set(groups)).index(group) for group in groups], dtype=np.int64)
    positions = drawn(numbers, most, seed)
    assert len(positions) <= most and np.array_equal(positions, np.unique(positions))
    inside = set(numbers[positions].tolist())
    assert [n for n, group in enumerate(numbers) if group in inside] == positions.tolist()
    sizes = np.bincount(numbers)
    assert all(len(positions) + sizes[group] > most for group in range(len(sizes)) if group not in inside)
