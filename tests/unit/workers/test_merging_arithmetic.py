"""The arithmetic of a merge: exact products, rounding that is right on average, what is not finite."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llm_assets.workers.failures import WorkerError
from llm_assets.workers.merging.arithmetic import (
    TILE_ELEMENTS,
    Delta,
    Rounding,
    add,
    as_floats,
    convert,
    delta_of,
)
from tests.unit.workers.merging import Array

FLOATS = st.floats(width=32, min_value=-(2.0**40), max_value=2.0**40)
NAME = "model.layers.0.self_attn.q_proj.weight"


def bfloat16(values: Array) -> Array:
    """The bytes of float32 values that bfloat16 holds exactly."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).reshape(-1).view(np.uint8)


def merged(weights: Array, delta: Delta) -> Array:
    """The float32 values of a bfloat16 merge."""
    raw = bfloat16(weights)
    result = np.empty_like(raw)
    add(raw, "BF16", result, Rounding.of(NAME, "BF16", weights.shape), delta, 0)
    return as_floats(result, "BF16", weights.shape)


@given(data=st.data(), rank=st.integers(1, 9), scale=st.sampled_from([1.0, 1.5, 8 / 5, 5 / 3**0.5]))
def test_every_product_is_exact_and_near_what_it_stands_for(
    data: st.DataObject, rank: int, scale: float
) -> None:
    left = data.draw(arrays(np.float32, (3, rank), elements=FLOATS))
    right = data.draw(arrays(np.float32, (rank, 4), elements=FLOATS))
    delta = delta_of(left, right, scale)
    found = delta.left @ delta.right
    for row in range(3):
        for column in range(4):
            terms = zip(delta.left[row].tolist(), delta.right[:, column].tolist(), strict=True)
            assert found[row, column] == sum(Fraction(one) * Fraction(other) for one, other in terms)
            meant = zip(left[row].tolist(), right[:, column].tolist(), strict=True)
            exact = scale * sum(Fraction(one) * Fraction(other) for one, other in meant)
            greatest = float(np.abs(left[row]).max() * scale) * float(np.abs(right[:, column]).max())
            assert abs(float(exact - Fraction(found[row, column]))) <= rank * greatest * 2.0**-22


def test_what_is_less_than_half_of_the_last_bit_is_kept_on_average() -> None:
    """Rounded to nearest, all of it would be lost."""
    rows, columns, last_bit = 256, 512, 2.0**-7
    for share in (0.02, 0.3, 0.9):
        delta = delta_of(
            np.full((rows, 1), share * last_bit, np.float32), np.ones((1, columns), np.float32), 1
        )
        found = merged(np.ones((rows, columns)), delta)
        assert set(np.unique(found)) == {1, 1 + last_bit}
        assert np.mean((found - 1) / last_bit) == pytest.approx(share, abs=0.01)


def test_a_gentle_change_is_kept_in_what_a_matrix_computes() -> None:
    """Each weight changes by a tenth of its last bit: rounded to nearest, none does."""
    rng = np.random.default_rng(0)
    rows, columns = 64, 4096
    weights = rng.uniform(1, 1.9, (rows, columns)).astype(np.float32).view(np.uint32)
    weights = (weights & 0xFFFF_0000).view(np.float32)
    inputs = rng.uniform(0.5, 1.5, columns)
    delta = delta_of(np.full((rows, 1), 0.1 * 2.0**-7, np.float32), np.ones((1, columns), np.float32), 1.0)
    meant = (delta.left @ delta.right) @ inputs
    kept = (merged(weights, delta) - weights.astype(np.float64)) @ inputs
    assert np.abs(kept - meant).max() < 0.25 * meant.mean()
    assert abs((kept - meant).mean()) < 0.05 * meant.mean()


def test_any_two_weights_are_rounded_independently() -> None:
    """The covariance of neighbours in a row, in a column, and of weights in different rows and columns."""
    rounding = Rounding.of(NAME, "BF16", (600, 700))
    numbers = (rounding.rows[:, None] + rounding.columns[None, :]) / 2.0**16 - 0.5
    for pair in (
        numbers[:, 1:] * numbers[:, :-1],
        numbers[1:] * numbers[:-1],
        numbers[1:, 1:] * numbers[:-1, :-1],
    ):
        assert abs(pair.mean()) < 0.01, "the square of one has the mean 1/12"


def test_the_same_merge_gives_the_same_bytes_whatever_its_blocks_are() -> None:
    rng = np.random.default_rng(0)
    rows, columns = 40, TILE_ELEMENTS // 16 + 3
    weights = bfloat16(rng.standard_normal((rows, columns)))
    left, right = rng.standard_normal((rows, 4), np.float32), rng.standard_normal((4, columns), np.float32)
    rounding, delta = Rounding.of(NAME, "BF16", (rows, columns)), delta_of(left, right, 1.25)
    whole, parts = np.empty_like(weights), np.empty_like(weights)
    add(weights, "BF16", whole, rounding, delta, 0)
    for first, last in ((0, 1), (1, 17), (17, 40)):
        span = slice(first * columns * 2, last * columns * 2)
        add(weights[span], "BF16", parts[span], rounding, delta, first)
    assert (whole == parts).all()
    other = np.empty_like(weights)
    add(weights, "BF16", other, Rounding.of(f"{NAME}.other", "BF16", (rows, columns)), delta, 0)
    assert (whole != other).any(), "another tensor's numbers are others"


def test_what_nothing_is_added_to_stays_and_a_zero_has_no_sign() -> None:
    weights = np.array([[1.5, -0.0, -2.0], [0.0, 3.0, -0.0]])
    delta = delta_of(np.array([[-0.0], [0.0]], np.float32), np.ones((1, 3), np.float32), 2.0)
    found = merged(weights, delta)
    assert (found == weights).all()
    assert not np.signbit(found[weights == 0]).any()


@pytest.mark.parametrize("dtype", ["F16", "F32"])
def test_other_types_are_rounded_to_nearest_once(dtype: str) -> None:
    """1 + 2**-11 + 2**-24 lies above a tie of float16; by way of float32 it would lie on it, and go down."""
    left = np.array([[2.0**-11 + 2.0**-24 + 2.0**-34]], np.float32)
    delta = delta_of(left, np.ones((1, 1), np.float32), 1.0)
    kind = np.float16 if dtype == "F16" else np.float32
    raw = np.ones(1, kind).view(np.uint8)
    result = np.empty_like(raw)
    add(raw, dtype, result, Rounding.of(NAME, dtype, (1, 1)), delta, 0)
    wanted = 1 + 2.0**-10 if dtype == "F16" else 1 + 2.0**-11 + 2.0**-23
    assert result.view(kind)[0] == wanted


def test_a_trained_tensor_in_float32_is_rounded_at_random_too() -> None:
    values = np.full((64, 512), 1 + 2.0**-10, np.float32)
    result = np.empty(2 * values.size, np.uint8)
    convert(values.reshape(-1).view(np.uint8), "F32", result, Rounding.of(NAME, "BF16", values.shape), 0)
    assert as_floats(result, "BF16", values.shape).mean() == pytest.approx(1 + 2.0**-10, abs=1e-4)


@pytest.mark.parametrize(
    ("weight", "added"), [(np.inf, 0), (-np.inf, 1), (np.nan, 0), (-np.nan, 1), (3.38e38, 3e38), (1, -3.4e38)]
)
def test_what_is_not_finite_is_refused(weight: float, added: float) -> None:
    weights = np.ones((2, 3))
    weights[1, 2] = weight
    delta = delta_of(np.full((2, 1), added, np.float32), np.ones((1, 3), np.float32), 2.0)
    with pytest.raises(WorkerError, match=rf"The merged {NAME} would hold values that BF16 cannot"):
        merged(weights, delta)
