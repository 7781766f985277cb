"""The peers are what their authors describe: each against the written-out formula, or scikit-learn."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_cl.learning.peers import Imprinting, Joint, PeerConfig, Replay, Ridge, Softmax, StreamingLda
from edge_cl.learning.peers import closed_form as closed
from edge_cl.learning.peers import joint as joint_module
from edge_cl.learning.peers.network import Network, gradient, logits, softmax
from edge_cl.learning.peers.offline import (
    NetworkRecipe,
    fit_lda,
    fit_logistic,
    linear_scores,
    network_scores,
    train_network,
)
from edge_cl.learning.peers.reservoir import Reservoir
from edge_cl.sample import FeatureSpace
from edge_cl.vision.backbone import open_backbone
from edge_cl.vision.frames import read_image
from edge_cl.vision.preprocess import prepare

SIZE = 48
SPACE = FeatureSpace("made for tests", SIZE, "uint8", 0.02, 3)


def made(count, classes=5, views=1, seed=0, spread=25.0):
    """Return made uint8 features (N, V, D) and class numbers; classes overlap, noise is correlated."""
    world = np.random.default_rng(123)
    means, mixing = world.normal(60, 12, (classes, SIZE)), world.normal(0, 1, (SIZE, SIZE)) / np.sqrt(SIZE)
    rng = np.random.default_rng(seed)
    numbers = rng.integers(classes, size=count)
    values = means[numbers] + spread * rng.normal(0, 1, (count, SIZE)) @ mixing
    values = values[:, None] + rng.normal(0, 4, (count, views, SIZE))
    return np.clip(np.round(values), 0, 255).astype(np.uint8), numbers


def named(numbers):
    return [f"class {number}" for number in numbers]


def taught(peer, features, numbers, size=32):
    for begin in range(0, len(numbers), size):
        peer.learn_many(features[begin : begin + size], named(numbers[begin : begin + size]))
        peer.consolidate()
    return peer


def right(peer, features, numbers):
    best = peer.scores_many(features).argmax(axis=1)
    return np.mean([peer.labels[k] == label for k, label in zip(best, named(numbers), strict=True)])


def real(features):
    return SPACE.scale * (features.astype(float) - SPACE.zero_point)


def test_imprinting_is_the_cosine_with_the_mean_of_normalised_features():
    features, numbers = made(40)
    peer = taught(Imprinting(SPACE), features, numbers)
    unit = real(features[:, 0]) / np.linalg.norm(real(features[:, 0]), axis=1, keepdims=True)
    for column, label in enumerate(peer.labels):
        mean = unit[[name == label for name in named(numbers)]].mean(axis=0)
        expected = unit @ (mean / np.linalg.norm(mean))
        np.testing.assert_allclose(peer.scores_many(features)[:, column], expected, rtol=1e-10)


def test_streaming_lda_is_the_published_recursion_sample_by_sample():
    features, numbers = made(120, views=2)
    peer = taught(StreamingLda(SPACE), features, numbers)
    means, counts, sigma = np.zeros((5, SIZE)), np.zeros(5), np.ones((SIZE, SIZE))
    rows, labels = real(features).reshape(-1, SIZE), np.repeat(numbers, 2)
    for t, (x, y) in enumerate(zip(rows, labels, strict=True)):
        delta = np.outer(x - means[y], x - means[y]) * t / (t + 1)
        sigma = (t * sigma + delta) / (t + 1)
        means[y] += (x - means[y]) / (counts[y] + 1)
        counts[y] += 1
    precision = np.linalg.inv((1 - 1e-4) * sigma + 1e-4 * np.eye(SIZE))
    scores = rows @ precision @ means.T - 0.5 * np.einsum("cd,de,ce->c", means, precision, means)
    order = [int(label.split()[1]) for label in peer.labels]
    np.testing.assert_allclose(peer.scores_many(rows_as_stored(rows)), scores[:, order], rtol=1e-6)


def rows_as_stored(rows):
    return np.round(rows / SPACE.scale + SPACE.zero_point).astype(np.uint8)[:, None]


def test_ridge_from_moments_equals_ridge_on_all_samples_at_once():
    features, numbers = made(150)
    peer = taught(Ridge(SPACE), features, numbers)
    rows = np.hstack([real(features[:, 0]), np.ones((150, 1))])
    order = [int(label.split()[1]) for label in peer.labels]
    targets = np.eye(5)[numbers][:, order]
    ridge = closed._best_ridge(peer._fit, peer._held)
    weights = np.linalg.solve(rows.T @ rows + ridge * np.eye(SIZE + 1), rows.T @ targets)
    np.testing.assert_allclose(peer.scores_many(features), rows @ weights, rtol=1e-6, atol=1e-8)


def test_the_ridge_is_the_one_of_least_error_on_every_fifth_sample_of_each_class():
    features, numbers = made(200)
    peer = taught(Ridge(SPACE), features, numbers)
    held = np.zeros(200, bool)
    for number in range(5):
        held[np.flatnonzero(numbers == number)[4::5]] = True
    rows, targets = np.hstack([real(features[:, 0]), np.ones((200, 1))]), np.eye(5)[numbers]
    errors = []
    for ridge in closed.RIDGES:
        gram = rows[~held].T @ rows[~held] + ridge * np.eye(SIZE + 1)
        weights = np.linalg.solve(gram, rows[~held].T @ targets[~held])
        errors.append(np.sum((targets[held] - rows[held] @ weights) ** 2))
    assert closed._best_ridge(peer._fit, peer._held) == closed.RIDGES[int(np.argmin(errors))]


def test_ridge_does_not_depend_on_the_order_of_classes():
    features, numbers = made(150)
    order = np.argsort(numbers, kind="stable")
    mixed, sorted_ = (
        taught(Ridge(SPACE), features, numbers),
        taught(Ridge(SPACE), features[order], numbers[order]),
    )
    columns = [sorted_.labels.index(label) for label in mixed.labels]
    np.testing.assert_allclose(
        mixed.scores_many(features), sorted_.scores_many(features)[:, columns], atol=1e-6
    )


def test_coral_softmax_forgets_what_is_not_shown_again():
    features, numbers = made(400, classes=4)
    old = numbers < 2
    peer = taught(Softmax(SPACE, PeerConfig(steps_per_update=200)), features[old], numbers[old])
    assert right(peer, features[old], numbers[old]) > 0.8
    taught(peer, features[~old], numbers[~old])
    assert right(peer, features[old], numbers[old]) < 0.2
    assert right(peer, features[~old], numbers[~old]) > 0.8


def test_replay_keeps_what_is_not_shown_again_within_its_budget():
    features, numbers = made(400, classes=4, views=2)
    config = PeerConfig(views=2, hidden=64, buffer_bytes=12_000, steps_per_update=128)
    old = numbers < 2
    peer = taught(Replay(SPACE, config), features[old], numbers[old])
    taught(peer, features[~old], numbers[~old])
    assert right(peer, features, numbers) > 0.8
    assert 11_000 < peer.state_bytes()["buffer"] <= 12_000


@settings(deadline=None)
@given(
    capacity=st.integers(1, 20),
    offered=st.lists(st.integers(0, 4), max_size=120),
    seed=st.integers(0, 2**20),
)
def test_a_reservoir_stays_within_its_capacity_and_as_balanced_as_what_was_offered(capacity, offered, seed):
    reservoir, rng = Reservoir(capacity), np.random.default_rng(seed)
    for number in offered:
        slot = reservoir.offer(number, rng)
        assert slot is None or reservoir.classes[slot] == number
    kept, seen = np.bincount(reservoir.classes, minlength=5), np.bincount(offered, minlength=5)
    assert kept.sum() == min(capacity, len(offered))
    assert (kept <= seen).all()
    if len(offered) > capacity:
        assert all(kept[c] == seen[c] or kept[c] >= kept.max() - 1 for c in range(5) if seen[c])


def test_a_reservoir_of_one_class_keeps_every_sample_with_the_same_chance():
    kept, rounds, offers, capacity = np.zeros(30), 4_000, 30, 6
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        reservoir, slots = Reservoir(capacity), np.zeros(capacity, int)
        for i in range(offers):
            slot = reservoir.offer(0, rng)
            if slot is not None:
                slots[slot] = i
        kept[slots] += 1
    expected = rounds * capacity / offers
    chi_square = np.sum((kept - expected) ** 2 / (expected * (1 - capacity / offers)))
    assert chi_square < 58.3  # 0.999 quantile at 29 degrees of freedom; the seed is fixed


def test_the_networks_gradient_is_that_of_finite_differences():
    rng = np.random.default_rng(0)
    network = Network(
        (rng.normal(0, 0.5, (6, 5)), rng.normal(0, 0.5, (5, 3))),
        (rng.normal(0, 0.5, 5), rng.normal(0, 0.5, 3)),
    )
    inputs, classes = rng.normal(0, 1, (8, 6)), rng.integers(3, size=8)

    def loss():
        return -np.log(softmax(logits(network, inputs))[np.arange(8), classes]).mean()

    slope = gradient(network, inputs, classes)
    pairs = zip((*network.weights, *network.biases), (*slope.weights, *slope.biases), strict=True)
    for values, slopes in pairs:
        for at in np.ndindex(values.shape):
            before, step = values[at], 1e-6
            values[at] = before + step
            above = loss()
            values[at] = before - step
            below = loss()
            values[at] = before
            assert abs((above - below) / (2 * step) - slopes[at]) < 1e-6


def embedded(features):
    """Return rows as joint training sees them: (N, V, D)."""
    return Joint(SPACE)._embedded(features)


def test_lda_answers_as_scikit_learn_does():
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    (features, numbers), (asked, _) = made(300), made(200, seed=1)
    rows, queries = embedded(features)[:, 0].astype(float), embedded(asked)[:, 0].astype(float)
    for shrinkage, model in zip((0.1, 0.5), fit_lda(rows, numbers, (0.1, 0.5)), strict=True):
        theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(rows, numbers)
        ours = linear_scores(model, queries)
        np.testing.assert_array_equal(ours.argmax(axis=1), theirs.predict(queries))
        difference = ours - theirs.decision_function(queries)
        np.testing.assert_allclose(difference, difference[:, :1].repeat(5, 1), atol=1e-6)


@pytest.mark.parametrize("penalty", [1e-2, 1e-3])
def test_logistic_regression_finds_the_minimum_that_scikit_learn_finds(penalty):
    from sklearn.linear_model import LogisticRegression

    features, numbers = made(300)
    rows = embedded(features)[:, 0].astype(float)
    theirs = LogisticRegression(C=1 / (penalty * 300), max_iter=2_000, tol=1e-8).fit(rows, numbers)
    ours = fit_logistic(rows, numbers, penalty, iterations=5_000, tolerance=1e-7)

    def objective(weights, biases):
        shares = softmax(rows @ weights + biases)
        return -np.log(shares[np.arange(300), numbers]).mean() + 0.5 * penalty * np.sum(weights**2)

    least = objective(theirs.coef_.T, theirs.intercept_)
    assert objective(ours.weights, ours.biases) <= least * 1.001
    np.testing.assert_array_equal((rows @ ours.weights + ours.biases).argmax(1), theirs.predict(rows))


def test_the_network_tells_unseen_samples_as_well_as_scikit_learns():
    from sklearn.neural_network import MLPClassifier

    (features, numbers), (asked, truth) = made(600, spread=40), made(600, seed=1, spread=40)
    rows, queries = embedded(features), embedded(asked)
    theirs = (
        MLPClassifier((64,), max_iter=1_000, random_state=0)
        .fit(rows[:, 0], numbers)
        .score(queries[:, 0], truth)
    )
    recipe = NetworkRecipe(64, descent=joint_module.DESCENT)
    epochs = train_network(rows, numbers, recipe, np.random.default_rng(0))
    for _ in range(joint_module.EPOCHS):
        model = next(epochs)
    ours = np.mean(network_scores(model, queries)[:, 0].argmax(axis=1) == truth)
    assert 0.5 < theirs < 0.98  # neither trivial nor hopeless
    assert ours >= theirs - 0.01


def test_joint_trains_on_everything_whatever_the_order_it_came_in():
    (features, numbers), (asked, truth) = made(300, views=2), made(400, views=2, seed=1)
    order = np.argsort(numbers, kind="stable")
    mixed, by_class = (taught(Joint(SPACE), features[o], numbers[o]) for o in (slice(None), order))
    assert mixed.state_bytes()["buffer"] == features.nbytes
    assert abs(right(mixed, asked, truth) - right(by_class, asked, truth)) < 0.03
    assert right(by_class, asked, truth) >= right(taught(Imprinting(SPACE), features, numbers), asked, truth)


def test_joint_is_fitted_once_and_again_after_more_was_taught():
    features, numbers = made(100)
    peer = taught(Joint(SPACE), features[:50], numbers[:50])
    peer.scores_many(features)
    model = peer._model
    peer.scores_many(features)
    assert peer._model is model
    taught(peer, features[50:], numbers[50:])
    peer.scores_many(features)
    assert peer._model is not model
    assert peer.chosen


def test_joint_holds_out_a_fifth_of_each_class_and_never_the_last_of_it():
    numbers = np.repeat(np.arange(4), (1, 4, 10, 50))
    held = joint_module.held_out(numbers, seed=3)
    assert np.bincount(numbers[held], minlength=4).tolist() == [0, 0, 2, 10]


@pytest.mark.slow
def test_joint_on_real_photographs_is_no_worse_than_the_best_of_scikit_learn(data_dir, models_dir, tmp_path):
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    space, train, numbers, test, truth = real_features(data_dir, models_dir, tmp_path)
    peer = Joint(space)
    peer.learn_many(train, named(numbers))
    rows, queries = peer._embedded(train)[:, 0], peer._embedded(test)[:, 0]
    theirs = [
        LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1).fit(rows, numbers).score(queries, truth),
        LogisticRegression(C=1e3 / len(rows), max_iter=500).fit(rows, numbers).score(queries, truth),
        MLPClassifier((256,), max_iter=300, tol=1e-3, random_state=0)
        .fit(rows, numbers)
        .score(queries, truth),
    ]
    assert right(peer, test, truth) >= max(theirs) - 0.02  # one of 400 test pictures is 0.0025


def real_features(data_dir, models_dir, tmp_path):
    """Embed 600 training and about 400 test photographs of Sign digits with MobileNetV1."""
    unpack = [sys.executable, str(data_dir / "unpack.py"), "signdigits", str(tmp_path), "--limit", "60"]
    subprocess.run(unpack, check=True, capture_output=True, timeout=60)
    model = models_dir / "coral" / "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"
    parts = []
    with open_backbone(model) as backbone:
        for part in ("train", "test"):
            files = sorted((tmp_path / part).glob("*/*"))
            features = [backbone.embed(prepare(read_image(path), backbone.input_size)) for path in files]
            parts += [np.stack(features)[:, None], np.array([int(path.parent.name) for path in files])]
        return backbone.space, *parts
