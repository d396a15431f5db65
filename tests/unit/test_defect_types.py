from pathlib import Path

import numpy as np
import pytest

from flawscope.agent.errors import InputError, ProductError, StorageError
from flawscope.benchmarks.types import TypesReport, evaluate_naming, macro_accuracy, render, run_types, split_images
from flawscope.tools.backbones import VisualFeatures
from flawscope.tools.defect_features import defect_feature, defect_weights, patch_matrix
from flawscope.tools.defect_types import DRAWING_TRUST, UNKNOWN, TypeModel
from flawscope.tools.type_statistics import calibrate_temperature, calibrate_unknown, strangeness, unknown_share

CENTRES = {"dent": 0.0, "scratch": 4.0, "stain": 8.0}


def clusters(per_type=8, dim=24, names=tuple(CENTRES), seed=0):
    """Unit Gaussian clouds, far apart along the first three dimensions."""
    rng = np.random.default_rng(seed)
    features, labels = [], []
    for axis, name in enumerate(names):
        cloud = rng.normal(size=(per_type, dim))
        cloud[:, axis] += 12
        features.append(cloud)
        labels += [name] * per_type
    return np.concatenate(features).astype(np.float32), labels


# --- features -------------------------------------------------------------------------------------------------------


def test_a_feature_is_the_weighted_mean_and_spread():
    tokens = np.array([[1.0, 0.0], [3.0, 4.0], [100.0, 100.0]])
    feature = defect_feature(tokens, np.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(feature, [2, 2, 1, 2])
    assert feature.dtype == np.float32


def test_without_weights_all_patches_count_alike():
    tokens = np.arange(8, dtype=np.float32).reshape(4, 2)
    np.testing.assert_array_equal(defect_feature(tokens), defect_feature(tokens, np.full((2, 2), 7.0)))
    np.testing.assert_allclose(defect_feature(tokens)[:2], [3, 4])


def test_weights_are_the_squared_excess_over_the_median():
    weights = defect_weights(np.array([[1.0, 1.0, 1.0], [0.0, 2.0, 3.0]]))
    np.testing.assert_allclose(weights, [0, 0, 0, 0, 0.2, 0.8], atol=1e-7)


def test_a_flat_map_weighs_all_patches_alike_and_tiny_scores_do_not_underflow():
    np.testing.assert_allclose(defect_weights(np.full((2, 2), 3.0)), 0.25)
    np.testing.assert_allclose(defect_weights(np.array([0, 0, 0, 1e-200])), [0, 0, 0, 1])


@pytest.mark.parametrize("scores", [np.array([]), np.array([1.0, np.nan]), np.array([np.inf, 0.0])])
def test_unusable_scores_are_refused(scores):
    with pytest.raises(InputError, match="finite"):
        defect_weights(scores)


@pytest.mark.parametrize(
    ("tokens", "weights", "message"),
    [
        (np.zeros((0, 4)), None, "shape"),
        (np.zeros(4), None, "shape"),
        (np.zeros((3, 4)), np.ones(2), "2 weights for 3"),
        (np.full((3, 4), np.nan), None, "finite"),
        (np.zeros((3, 4)), np.array([1, np.inf, 0]), "finite"),
        (np.zeros((3, 4)), np.array([1, -1, 0]), "at least 0"),
        (np.zeros((3, 4)), np.zeros(3), "at least 0"),
    ],
)
def test_unusable_tokens_and_weights_are_refused(tokens, weights, message):
    with pytest.raises(InputError, match=message):
        defect_feature(tokens, weights)


def test_a_patch_matrix_puts_the_layers_side_by_side():
    shallow, deep = np.zeros((2, 3, 4), np.float32), np.ones((2, 3, 5), np.float32)
    deep[1] = 2
    matrix = patch_matrix(VisualFeatures((shallow, deep), np.zeros((2, 9), np.float32), (1, 3)), index=1)
    assert matrix.shape == (3, 9)
    np.testing.assert_array_equal(matrix[0], [0, 0, 0, 0, 2, 2, 2, 2, 2])


# --- calibration ----------------------------------------------------------------------------------------------------


def test_strangeness_discounts_a_clear_winner():
    distances = np.array([[2.0, 8.0], [2.0, 2.0], [6.0, 3.0]])
    np.testing.assert_allclose(strangeness(distances), [0.5, 2.0, 1.5])
    np.testing.assert_allclose(strangeness(distances[:, :1]), [2, 2, 6])


def test_unknown_has_one_half_where_it_was_set():
    assert unknown_share(np.array([3.0]), 3.0, 0.7) == pytest.approx(0.5)
    assert unknown_share(np.array([3.0 * np.e]), 3.0, 1.0) == pytest.approx(1 / (1 + np.exp(-1)))
    assert unknown_share(np.array([0.0]), 3.0, 0.5) < 1e-9


def test_unknown_starts_at_the_stated_quantile_of_the_examples():
    left_out = np.arange(1.0, 11.0)[:, None]  # one type, ten examples: nine tenths are at 9 or nearer
    at, softness = calibrate_unknown(left_out, np.zeros(10, np.int64), np.array([10]), np.array([]))
    assert at == 9.0
    assert softness == pytest.approx(np.log(9 / 5) / 3)


def test_a_type_with_many_examples_does_not_set_the_threshold_alone():
    left_out = np.concatenate([np.full((90, 1), 1.0), np.full((10, 1), 5.0)])
    both = np.concatenate([left_out, np.full((100, 1), 100.0)], axis=1)
    both[90:] = both[90:, ::-1]
    own = np.repeat([0, 1], [90, 10])
    at, _ = calibrate_unknown(both, own, np.array([90, 10]), np.array([100.0]))
    assert at == pytest.approx(5.0**2 / 100)


def test_without_left_out_examples_unknown_starts_half_way_to_the_next_type():
    none = np.zeros((0, 2))
    assert calibrate_unknown(none, np.zeros(0, np.int64), np.array([1, 1]), np.array([8.0])) == (2.0, 1.0)
    assert calibrate_unknown(none[:, :1], np.zeros(0, np.int64), np.array([1]), np.array([])) == (1.0, 1.0)


def test_clear_examples_give_a_sharper_softmax_than_confused_ones():
    own, counts = np.array([0, 0, 1, 1]), np.array([2, 2])
    clear = np.array([[1.0, 3.0], [1.0, 3.0], [3.0, 1.0], [3.0, 1.0]])
    confused = np.array([[1.0, 3.0], [3.0, 1.0], [3.0, 1.0], [1.0, 3.0]])
    assert calibrate_temperature(clear, own, counts) < calibrate_temperature(confused, own, counts)
    assert calibrate_temperature(clear[:, :1], own, np.array([4])) == 1.0


# --- the model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lda", "cosine"])
def test_types_are_named_and_ordered_by_probability(method):
    features, labels = clusters()
    model = TypeModel.fit(features, labels, method=method)
    queries, truths = clusters(per_type=5, seed=1)
    answers = [model.posterior(query) for query in queries]
    assert [answer[0][0] for answer in answers].count(UNKNOWN) <= 3
    assert all(answer[0][0] in (truth, UNKNOWN) for answer, truth in zip(answers, truths, strict=True))
    assert {name for name, _ in answers[0]} == {*CENTRES, UNKNOWN}
    assert [p for _, p in answers[0]] == sorted((p for _, p in answers[0]), reverse=True)


def test_a_step_along_the_common_scatter_counts_less_than_one_across_it():
    rng = np.random.default_rng(0)
    scatter = np.array([1.0, 1.0, 0.0, 0.0]) / np.sqrt(2)
    across = np.array([1.0, -1.0, 0.0, 0.0]) / np.sqrt(2)
    features = rng.normal(size=(40, 1)) * 5 * scatter + rng.normal(size=(40, 4)) * 0.2
    features[20:, 2:] += 4
    model = TypeModel.fit(features, ["a"] * 20 + ["b"] * 20)
    centre = features[:20].mean(axis=0)
    along, beside = (model.distances(centre + 3 * step)[0] for step in (scatter, across))
    assert beside > 2 * along


def test_a_query_far_from_everything_is_unknown():
    model = TypeModel.fit(*clusters())
    name, p = model.posterior(np.full(24, 80.0))[0]
    assert name == UNKNOWN
    assert p > 0.99


def test_far_from_everything_the_nearest_type_still_comes_first():
    features, labels = clusters()
    answer = TypeModel.fit(features, labels).posterior(1e6 * (features[-1] - features[0]))
    assert [name for name, _ in answer[:2]] == [UNKNOWN, "stain"]


def test_one_type_still_says_unknown():
    features, labels = clusters(names=("dent",))
    model = TypeModel.fit(features, labels)
    near = dict(model.posterior(features.mean(axis=0)))
    assert near["dent"] > 0.9
    assert dict(model.posterior(features.mean(axis=0) + 20))[UNKNOWN] > 0.99


def test_a_type_with_one_example_claims_at_most_half():
    features, labels = clusters(per_type=4)
    model = TypeModel.fit(features[:9], labels[:9])
    assert dict(model.posterior(features[8]))["stain"] <= 0.5
    lone = TypeModel.fit(features[:1], labels[:1])
    assert dict(lone.posterior(features[0]))["dent"] <= 0.5
    assert dict(lone.posterior(features[0] + 50))[UNKNOWN] > 0.9


def test_repeating_an_example_changes_nothing():
    features, labels = clusters()
    once = TypeModel.fit(features, labels)
    often = TypeModel.fit(np.concatenate([features, np.repeat(features[:1], 50, axis=0)]), labels + ["dent"] * 50)
    for query in clusters(per_type=3, seed=2)[0]:
        assert often.posterior(query) == once.posterior(query)


def test_the_trust_in_drawings_caps_every_type():
    features, labels = clusters()
    answer = TypeModel.fit(features, labels, trust=DRAWING_TRUST).posterior(features[0])
    assert answer[0][0] == UNKNOWN
    assert answer[0][1] >= 1 - DRAWING_TRUST
    assert answer[1][0] == "dent"


def test_two_types_with_the_same_example_share_its_probability():
    features, labels = clusters(names=("dent", "scratch"))
    features[8:] = features[:8]
    answer = dict(TypeModel.fit(features, labels).posterior(features[0]))
    assert answer["dent"] == pytest.approx(answer["scratch"])


@pytest.mark.parametrize(
    ("features", "labels", "options", "message"),
    [
        (np.zeros((0, 4)), [], {}, "expected features"),
        (np.zeros((2, 4)), ["a"], {}, "1 labels"),
        (np.zeros(4), ["a"] * 4, {}, "expected features"),
        (np.array([[1.0, np.nan]]), ["a"], {}, "not finite"),
        (np.ones((1, 2)), [""], {}, "needs a name"),
        (np.ones((1, 2)), [UNKNOWN], {}, "taken"),
        (np.ones((1, 2)), ["a"], {"trust": 1.5}, "share of 1"),
        (np.ones((1, 2)), ["a"], {"trust": float("nan")}, "share of 1"),
    ],
)
def test_unusable_examples_are_refused(features, labels, options, message):
    with pytest.raises(InputError, match=message):
        TypeModel.fit(features, labels, **options)


def test_an_unusable_query_is_refused():
    model = TypeModel.fit(*clusters())
    with pytest.raises(InputError, match="has 3 values"):
        model.posterior(np.zeros(3))
    with pytest.raises(InputError, match="not finite"):
        model.posterior(np.full(24, np.nan))


# --- storage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lda", "cosine"])
def test_a_model_read_back_answers_the_same(tmp_path, method):
    features, labels = clusters()
    model = TypeModel.fit(features, labels, method=method, trust=0.8)
    model.save(tmp_path / "types.npz")
    again = TypeModel.load(tmp_path / "types.npz")
    assert again.posterior(features[3]) == model.posterior(features[3])
    assert again.method == method


def test_damage_is_named(tmp_path):
    path: Path = tmp_path / "types.npz"
    with pytest.raises(ProductError, match="missing or damaged"):
        TypeModel.load(path)
    TypeModel.fit(*clusters()).save(path)
    whole = path.read_bytes()
    for broken in (b"", b"not an archive", whole[: len(whole) // 2], whole.replace(b"centroids", b"centaurs!")):
        path.write_bytes(broken)
        with pytest.raises(ProductError, match="missing or damaged"):
            TypeModel.load(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("version", np.int64(99), "another version"),
        ("scale", np.zeros(24), "contradict"),
        ("centroids", np.zeros((2, 24)), "contradict"),
        ("gains", np.full(3, np.nan), "contradict"),
        ("method", np.str_("guess"), "contradict"),
        ("counts", np.zeros(3, np.int64), "contradict"),
        ("numbers", np.array([0.1, np.inf, 0.1, 1.0]), "contradict"),
        ("numbers", np.array([0.1, 1.0, 0.1, 2.0]), "contradict"),
        ("numbers", np.array([0.1]), "missing or damaged"),
        ("names", np.array([object()]), "missing or damaged"),
    ],
)
def test_contents_that_contradict_themselves_are_named(tmp_path, key, value, message):
    path = tmp_path / "types.npz"
    TypeModel.fit(*clusters()).save(path)
    with np.load(path) as stored:
        arrays = dict(stored)
    np.savez(path, **{**arrays, key: value})
    with pytest.raises(ProductError, match=message):
        TypeModel.load(path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        TypeModel.fit(*clusters()).save(tmp_path / "file" / "types.npz")


# --- the benchmark's own arithmetic -----------------------------------------------------------------------------------


def test_examples_are_drawn_when_enough_pictures_remain():
    labels = np.array(["a"] * 20 + ["b"] * 15)
    splits = list(split_images(labels, 10, np.random.default_rng(0)))
    assert len(splits) == 1
    train, test = splits[0]
    assert sorted([*train, *test]) == list(range(35))
    assert [(labels[train] == name).sum() for name in "ab"] == [10, 10]


def test_pictures_are_left_out_in_turn_when_too_few_remain():
    labels = np.array(["a"] * 10 + ["b"] * 7)
    splits = list(split_images(labels, 10, np.random.default_rng(0)))
    assert len(splits) == 10
    assert sorted(i for _, test in splits for i in test) == list(range(17))
    assert all(not set(train) & set(test) for train, test in splits)
    assert min((labels[train] == "a").sum() for train, _ in splits) == 9


def test_macro_accuracy_counts_each_type_alike_and_unknown_as_wrong():
    assert macro_accuracy(["a", "a", "a", "b"], ["a", "a", UNKNOWN, UNKNOWN]) == pytest.approx(1 / 3)


def test_naming_far_apart_types_is_right_and_a_type_left_out_is_unknown():
    features, labels = clusters(per_type=16)
    row = evaluate_naming("demo", features, np.array(labels), "lda", examples=10, repeats=2)
    assert row.examples == 10
    assert row.forced > 0.9
    assert row.answered == 1
    assert row.macro == pytest.approx(1 - row.unknown)
    assert row.open_set > 0.9
    table = render(TypesReport((row,), (), 1.0))
    assert "demo" in table
    assert f"{row.macro:.3f}" in table


def test_a_folder_without_the_products_is_refused(tmp_path):
    with pytest.raises(InputError, match="no pictures of steel_types"):
        run_types(tmp_path)
