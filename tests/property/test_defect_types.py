import warnings

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flawscope.agent.errors import ProductError
from flawscope.tools.defect_features import defect_feature, defect_weights
from flawscope.tools.defect_types import UNKNOWN, TypeModel

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
DIM = 5
numbers = st.floats(-1e3, 1e3, width=32)
rows = arrays(np.float32, DIM, elements=numbers)
examples = st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), rows), min_size=1, max_size=12)
methods = st.sampled_from(["lda", "cosine"])


def fit(pairs, method):
    return TypeModel.fit(np.stack([row for _, row in pairs]), [name for name, _ in pairs], method=method)


@QUICK
@given(examples, arrays(np.float64, DIM, elements=st.floats(-1e6, 1e6)), methods)
def test_a_posterior_is_a_distribution_over_the_types_and_unknown(pairs, query, method):
    posterior = fit(pairs, method).posterior(query)
    names, shares = zip(*posterior, strict=True)
    assert set(names) == {name for name, _ in pairs} | {UNKNOWN}
    assert len(set(names)) == len(names)
    assert all(0 <= share <= 1 for share in shares)
    assert abs(sum(shares) - 1) < 1e-9
    assert list(shares) == sorted(shares, reverse=True)


@QUICK
@given(examples, rows, methods, st.randoms(use_true_random=False))
def test_the_order_of_the_examples_does_not_matter(pairs, query, method, random):
    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert fit(shuffled, method).posterior(query) == fit(pairs, method).posterior(query)


@QUICK
@given(examples, rows, methods, st.integers(0, 11), st.integers(1, 20))
def test_repetitions_of_an_example_do_not_swallow_other_types(pairs, query, method, which, times):
    more = [*pairs, *[pairs[which % len(pairs)]] * times]
    assert fit(more, method).posterior(query) == fit(pairs, method).posterior(query)


@QUICK
@given(examples, rows)
def test_a_query_far_from_all_examples_is_unknown(pairs, direction):
    model = fit(pairs, "lda")
    far = np.where(direction < 0, -1.0, 1.0) * 1e7
    name, share = model.posterior(far)[0]
    assert name == UNKNOWN
    assert share > 0.9


@QUICK
@given(
    st.integers(1, 30).flatmap(
        lambda n: st.tuples(
            arrays(np.float32, (n, 3), elements=numbers),
            arrays(np.float32, n, elements=st.floats(0, 1e3, width=32)),
            st.permutations(range(n)),
            st.floats(1e-3, 1e3),
        )
    )
)
def test_a_feature_depends_on_neither_the_order_of_patches_nor_the_scale_of_weights(case):
    tokens, scores, order, scale = case
    weights = defect_weights(scores)
    assert (weights >= 0).all()
    assert abs(float(weights.sum()) - 1) < 1e-4
    feature = defect_feature(tokens, weights)
    again = defect_feature(tokens[order], defect_weights(scores[order]) * scale)
    np.testing.assert_allclose(again, feature, rtol=1e-3, atol=0.2)
    half = len(feature) // 2
    assert (feature[half:] >= 0).all()
    assert (feature[:half] <= tokens.max(axis=0) + 1e-2).all()
    assert (feature[:half] >= tokens.min(axis=0) - 1e-2).all()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.integers(1, 255), st.booleans())
def test_a_damaged_file_is_refused_or_means_the_same(tmp_path, position, change, truncate):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(6, DIM))
    model = TypeModel.fit(features, list("aabbcc"))
    path = tmp_path / "types.npz"
    model.save(path)
    data = bytearray(path.read_bytes())
    position %= len(data)
    if truncate:
        data = data[:position]
    else:
        data[position] ^= change
    path.write_bytes(bytes(data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a damaged header may also warn
        try:
            found = TypeModel.load(path)
        except ProductError:
            return
    assert found.posterior(features[0]) == model.posterior(features[0])
