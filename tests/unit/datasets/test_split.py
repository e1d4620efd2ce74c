"""The split: by content and seed alone."""

from hypothesis import given
from hypothesis import strategies as some

from llm_assets.datasets.split import held_out_keys, split_key

CONTENTS = some.lists(some.binary(max_size=8), min_size=1, max_size=60)
SEEDS = some.integers(min_value=0, max_value=2**32)
FRACTIONS = some.floats(min_value=0, max_value=0.99)


def sides(contents: list[bytes], fraction: float, seed: int) -> dict[bytes, bool]:
    held_out = held_out_keys((split_key(content, seed) for content in contents), fraction)
    return {content: split_key(content, seed) in held_out for content in contents}


@given(contents=CONTENTS, fraction=FRACTIONS, seed=SEEDS, data=some.data())
def test_neither_order_nor_duplicates_move_a_row(
    contents: list[bytes], fraction: float, seed: int, data: some.DataObject
) -> None:
    shuffled = data.draw(some.permutations(contents + contents[:3]))
    assert sides(shuffled, fraction, seed) == sides(contents, fraction, seed)


@given(contents=CONTENTS, fraction=FRACTIONS, seed=SEEDS)
def test_each_side_has_a_row_and_the_share_is_the_one_asked_for(
    contents: list[bytes], fraction: float, seed: int
) -> None:
    found = sides(contents, fraction, seed)
    held_out = sum(found.values())
    if fraction == 0 or len(found) < 2:
        assert held_out == 0
    else:
        assert held_out == min(max(round(len(found) * fraction), 1), len(found) - 1)


@given(contents=CONTENTS, new=some.binary(min_size=9, max_size=10), seed=SEEDS)
def test_a_new_row_moves_at_most_one_other(contents: list[bytes], new: bytes, seed: int) -> None:
    before, after = sides(contents, 0.2, seed), sides([*contents, new], 0.2, seed)
    assert sum(before[content] != after[content] for content in before) <= 1


def test_another_seed_is_another_split() -> None:
    contents = [f"{number}".encode() for number in range(100)]
    assert sides(contents, 0.3, 1) != sides(contents, 0.3, 2)
