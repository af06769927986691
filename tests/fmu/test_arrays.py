"""Whatever holds numbers is read with its values, and whatever does not is refused by a message that names it."""

import datetime
import decimal
import fractions

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from fmu_jax import Data, Objective, audit, fit, make_data, predict_labels, privacy
from fmu_jax.arrays import as_codes, as_floats, as_mask, as_numbers
from fmu_jax.audit.roc import auc, true_positive_rate
from fmu_jax.data import as_data, forget_mask
from fmu_jax.heads import as_rows, one_vs_rest
from fmu_jax.intervals import rate_intervals
from fmu_jax.metrics import group_metrics
from fmu_jax.thresholds import fit_thresholds, predict_with_thresholds

Y, S = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
WIDE = [2**40, 2**32 + 1, 3_000_000_000, 4]
COLUMN = [0.5, 2.0, -1.0, 4.0]


def column(values):
    return np.array(values, dtype=object).reshape(-1, 1)


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (np.array(WIDE)[:, None], WIDE),
        (np.array([2**63 + 2**20, 1, 2, 3], np.uint64)[:, None], [2**63 + 2**20, 1, 2, 3]),
        (column([10**23, 1, 2, 3]), [1e23, 1, 2, 3]),
        (column(COLUMN), COLUMN),
        (column([decimal.Decimal("0.5"), fractions.Fraction(2), np.float32(-1), 4]), COLUMN),
        (np.array(COLUMN, np.float16)[:, None], COLUMN),
        (np.array(COLUMN, ml_dtypes.bfloat16)[:, None], COLUMN),
        (jnp.array(COLUMN, jnp.bfloat16)[:, None], COLUMN),
        (np.array(COLUMN, np.longdouble)[:, None], COLUMN),
        (np.array([[True], [False], [True], [True]]), [1, 0, 1, 1]),
        (np.ma.array(COLUMN)[:, None], COLUMN),
        (pd.DataFrame({"a": pd.array([1, 2, 3, 4], "Int64")}), [1, 2, 3, 4]),
        (pd.DataFrame({"a": pd.array([1, 2, 3, 4], "int64[pyarrow]")}), [1, 2, 3, 4]),
        (pd.DataFrame({"a": pd.arrays.SparseArray(COLUMN)}), COLUMN),
        ([[value] for value in COLUMN], COLUMN),
        ([jnp.array([value]) for value in COLUMN], COLUMN),
    ],
)
@pytest.mark.parametrize("x64", [True, False])
def test_features_are_what_numpy_says(x, expected, x64):
    with jax.enable_x64(x64):
        found = make_data(x, Y, S).x
        assert found.dtype in (jnp.float32, jnp.float64)
        np.testing.assert_array_equal(np.asarray(found)[:, 0], np.array(expected, np.asarray(found).dtype))


def test_a_frame_of_floats_and_booleans_is_numbers():
    frame = pd.DataFrame({"a": COLUMN, "b": [True, False, True, True]})
    np.testing.assert_array_equal(make_data(frame, Y, S).x, frame.astype(float))
    np.testing.assert_array_equal(make_data(frame, Y, S, pd.Series([1, 1, 1, 1], dtype="Int8")).weight, 1)


BAD = [
    (scipy.sparse.csr_matrix(np.eye(4)), "sparse .*toarray"),
    (column([0.5, None, 1, 2]), "missing entries"),
    (column([0.5, pd.NA, 1, 2]), "missing entries"),
    (pd.DataFrame({"a": pd.array([1, None, 3, 4], "Int64")}), "missing entries|NaN"),
    (pd.DataFrame({"a": pd.array([1, None, 3, 4], "int64[pyarrow]")}), "missing entries|NaN"),
    (column(["0.5", 1, 2, 3]), "text such as '0.5'"),
    (np.array([["a"], ["b"], ["c"], ["d"]]), "text"),
    (np.array([[b"a"]] * 4), "bytes"),
    (column([1 + 2j, 1, 2, 3]), "complex"),
    (np.ones((4, 1), complex), "complex numbers"),
    (np.zeros((4, 1), "M8[D]"), "dates"),
    (np.zeros((4, 1), "m8[s]"), "durations"),
    (column([datetime.date(2020, 1, 1), 1, 2, 3]), "date such as"),
    (np.zeros((4, 1), [("a", float), ("b", int)]), "records with fields"),
    (np.ma.array([[1.0], [2.0], [3.0], [4.0]], mask=[[1], [0], [0], [0]]), "1 entries behind a mask"),
    ([[1.0, 2.0], [3.0], [4.0], [5.0]], "differ in length"),
    (column([10**400, 1, 2, 3]), "no float64 holds"),
    ((value for value in COLUMN), "generator"),
    ({"a": COLUMN}, "dict"),
    (None, "NoneType"),
    (jax.random.split(jax.random.key(0), 4), "must hold numbers, got key"),
    (1.0, "shape"),
    ([], "shape"),
    (np.zeros((4, 1)) + np.nan, "NaN"),
]


@pytest.mark.parametrize(("bad", "said"), BAD, ids=range(len(BAD)))
def test_what_holds_no_numbers_is_refused_by_name(bad, said):
    with pytest.raises(ValueError, match=said):
        make_data(bad, Y, S)


@pytest.mark.parametrize(("bad", "said"), BAD[:-4], ids=range(len(BAD) - 4))
def test_every_door_is_the_same(bad, said):
    data = make_data(np.ones((4, 1)), Y, S)
    for name, call in (
        ("y", lambda: make_data(np.ones((4, 1)), bad, S)),
        ("group", lambda: make_data(np.ones((4, 1)), Y, bad)),
        ("weight", lambda: make_data(np.ones((4, 1)), Y, S, [bad] if bad is None else bad)),
        ("x", lambda: fit(Objective(l2=1.0), data._replace(x=bad))),
        ("prediction", lambda: group_metrics(bad, data)),
        ("forget", lambda: forget_mask(bad, 4)),
        ("labels", lambda: one_vs_rest(np.ones((4, 1)), bad, S, classes=2)),
        ("features", lambda: as_rows(bad)),
        ("scores", lambda: fit_thresholds(bad, data)),
        ("thresholds", lambda: predict_with_thresholds(COLUMN, S, bad)),
        ("positive", lambda: rate_intervals(bad, [True] * 4, data)),
        ("scores", lambda: auc(bad, [True, False])),
        ("positive", lambda: true_positive_rate([1.0, 2.0], bad, false_positive_rate=0.1)),
        ("x", lambda: predict_labels(Objective(l2=1.0), jnp.ones(1), bad)),
        ("loss", lambda: audit.membership(bad, [[True]])),
        ("member", lambda: audit.membership([[1.0]], bad)),
        ("unseen", lambda: audit.lira(np.ones((4, 1)), bad)),
        ("oracle", lambda: audit.klom(np.ones((4, 1)), bad)),
        ("retrained", lambda: audit.empirical_epsilon(np.ones((4, 1)), bad, delta=1e-5, key=jax.random.key(0))),
    ):
        if not hasattr(bad, "__next__"):  # A generator is used up by the first.
            with pytest.raises(ValueError, match=rf"`{name}`|features are NaN") as refused:
                call()
            assert name != "x" or refused.match(said)


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        ([0, 1, 0, 2**32 + 1], "4294967297"),
        (np.array([0, 1, 0, 2**64 - 1], np.uint64), "18446744073709551615"),
        ([0, 1, 0, -(2**31) - 1], "-2147483649"),
        ([0, 1, 0, np.nan], "nan"),
        ([0, 1, 0, np.inf], "inf"),
        ([0, 1, 0, 0.5], "0.5"),
    ],
)
@pytest.mark.parametrize("x64", [True, False])
def test_codes_never_wrap(codes, said, x64):
    with jax.enable_x64(x64):
        data = make_data(np.ones((4, 1)), Y, S)
        for call in (
            lambda: make_data(np.ones((4, 1)), codes, S),
            lambda: make_data(np.ones((4, 1)), Y, codes),
            lambda: as_data(Data(np.ones((4, 1)), np.asarray(codes), S, np.ones(4))),
            lambda: one_vs_rest(np.ones((4, 1)), codes, S, classes=2),
        ):
            with pytest.raises(ValueError, match=said):
                call()
        with pytest.raises(ValueError, match=f"{said}|scores"):
            group_metrics(np.asarray(codes), data)
        for rows in (np.asarray(codes), list(codes)):
            with pytest.raises(ValueError, match="`forget`"):
                forget_mask(rows, 4)


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_codes_of_narrow_floats(kind):
    """Without a warning: the largest int32 is infinite in float16."""
    np.testing.assert_array_equal(as_codes(Y.astype(kind), "y"), Y)
    with pytest.raises(ValueError, match="inf"):
        as_codes(np.array([1, np.inf], kind), "y")


@pytest.mark.parametrize(
    "codes", [np.array(Y, object), Y.astype(np.uint64), pd.Series(Y == 1, dtype="boolean"), Y == 1]
)
def test_codes_of_any_kind(codes):
    data = make_data(np.ones((4, 1)), codes, S)
    np.testing.assert_array_equal(data.y, Y)
    assert float(group_metrics(codes, data).accuracy) == 1
    np.testing.assert_array_equal(forget_mask(np.asarray(codes, bool).astype(object), 4), Y == 1)
    np.testing.assert_array_equal(as_mask(codes, "rows"), Y == 1)


def test_numbers_beyond_float32_are_refused_there_and_kept_in_float64():
    x = np.array([[1e300], [1.0], [2.0], [3.0]])
    assert float(make_data(x, Y, S).x.max()) == 1e300
    with jax.enable_x64(False), pytest.raises(ValueError, match=r"1e\+300, beyond the range of float32"):
        make_data(x, Y, S)


def test_metrics_are_of_labels_groups_and_weights():
    data = make_data(np.ones((4, 1)), Y, S)
    for changed, said in (
        ({"y": Y + 5}, "4 labels are neither 0 nor 1"),
        ({"group": S + 1}, "2 group codes are neither 0 nor 1"),
        ({"group": S[:2]}, "`group` must have shape"),
        ({"weight": np.full(4, 0.5)}, "4 weights are neither 0 nor 1"),
    ):
        with pytest.raises(ValueError, match=said):
            group_metrics(Y, data._replace(**changed))


@pytest.mark.parametrize("l2", [None, "0.1", 1j, decimal.Decimal("0.1"), [0.1], np.array("a"), np.array(1j)])
def test_a_strength_is_a_number(l2):
    with pytest.raises(ValueError, match="`l2` must"):
        Objective(l2=l2)


@pytest.mark.parametrize("shape", [(4,), (4, 2, 3)])
def test_other_dimensions_are_for_models_that_are_not_linear(shape):
    data = make_data(np.ones(shape), Y, S)
    with pytest.raises(ValueError, match=r"the linear model needs features of shape \(n, d\), got \(4,"):
        fit(Objective(l2=1.0), data)


def test_a_number_is_no_row():
    with pytest.raises(ValueError, match=r"`x` must have shape \(n, d\), one row .* got \(\)"):
        make_data(1.0, Y, S)


def test_the_number_of_groups_may_be_numpys():
    assert make_data(np.ones((4, 2)), Y, S, groups=np.int32(2)).groups == 2


@pytest.mark.parametrize("number", [1j, "0.1", None, np.array("a"), np.datetime64("2020")])
def test_a_privacy_parameter_is_a_number(number):
    for arguments in ((number, 1.0, 0.1), (1.0, number, 0.1), (1.0, 1.0, number)):
        with pytest.raises(ValueError, match=r"`(residual|sigma|delta)` must"):
            privacy.gaussian_epsilon(*arguments)


@pytest.mark.parametrize("losses", [[[1.0, np.inf, -np.inf]], [[1e308, 1e308, 0.0]], [[]]])
def test_losses_without_a_mean_need_a_threshold(losses):
    member = np.ones(np.shape(losses), bool)
    with pytest.raises(ValueError, match=r"the mean of `loss` is no number .* pass `threshold`"):
        audit.membership(losses, member)
    assert audit.membership(losses, member, threshold=[0.0]).auc == 0.5


def test_tracers_pass_or_say_why_not():
    found = jax.jit(lambda x, y: make_data(x, y, S, groups=2).x)(np.ones((4, 1), np.float32), Y)
    assert found.dtype == jnp.float32
    rows = jax.jit(lambda a: as_floats([a, 2 * a], "rows"))(jnp.ones(3))
    np.testing.assert_array_equal(rows, [[1.0] * 3, [2.0] * 3])
    wide = jax.jit(lambda codes: as_codes(codes, "codes"))(jnp.array([2**40, -(2**40), 1]))
    assert wide.dtype == jnp.int32
    assert [int(code) for code in wide] == [2**31 - 1, -(2**31), 1]
    with pytest.raises(ValueError, match="`y` must hold only 0 and 1, got float64 while tracing"):
        jax.jit(lambda y: make_data(np.ones((4, 1)), y, S).y)(np.ones(4))
    with pytest.raises(ValueError, match="pass `groups`"):
        jax.jit(lambda group: make_data(np.ones((4, 1)), Y, group).y)(S)
    with pytest.raises(ValueError, match="complex"):
        jax.jit(lambda x: as_numbers(x, "x"))(jnp.ones(2, complex))


def test_a_result_is_shown_in_one_line_and_stays_a_tree():
    data = make_data(np.ones((4, 1)), Y, S)
    assert repr(data) == "Data(x=float64[4,1], y=int32[4], group=int32[4], weight=float64[4], groups=2)"
    assert len(jax.tree.leaves(data)) == 4
    shown = repr(fit(Objective(l2=1.0), data))
    assert shown.startswith("FitResult(params=float64[1], converged=True, grad_norm=")
    assert "\n" not in shown
    metrics = repr(group_metrics(Y, data))
    assert "accuracy=1," in metrics
    assert "group_accuracy=[1, 1]" in metrics
    assert "Array" not in metrics
    frozen = jax.tree_util.Partial(lambda w, theta, x: x @ w @ theta, np.ones((100, 1)))
    assert len(repr(Objective(l2=1.0, predict=frozen))) < 200
    assert repr(jax.eval_shape(lambda: data).groups) == "2"
