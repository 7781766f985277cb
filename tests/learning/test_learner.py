"""The learner as a whole: taught, asked, corrected, interrupted, stored and restored."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_cl.learning import gate
from edge_cl.learning.learner import EdgeLearner, LearnerConfig
from edge_cl.learning.residual import ResidualConfig
from edge_cl.learning.statistics import SAMPLE_WEIGHT
from edge_cl.memory.buffer import SLOT_OVERHEAD_BYTES
from edge_cl.sample import FeatureSpace
from edge_cl.wire.tensors import pack, unpack

SIZE, VIEWS, STEPS = 32, 2, 12
SPACE = FeatureSpace("made for tests", SIZE, "int8", 0.1, -9)
NETWORK = ResidualConfig(hidden=16, density=0.25, stage_steps=8)
NAMES = ("mug", "fork", "lamp", "vase")


def config(slots=1000, **values):
    sample_bytes = VIEWS * SIZE + SLOT_OVERHEAD_BYTES
    defaults = {"views": VIEWS, "network": NETWORK, "steps_per_update": STEPS, "removal_steps": 4}
    return LearnerConfig(buffer_bytes=slots * sample_bytes, **{**defaults, **values})


def new(slots=1000, **values):
    return EdgeLearner(SPACE, config(slots, **values))


def made(count, names=NAMES, seed=0, spread=9.0):
    """Return features (N, V, D) of clusters that overlap a little, and their labels."""
    rng = np.random.default_rng((seed, 3))
    centres = {name: np.random.default_rng(sum(name.encode())).normal(0, 16, SIZE) for name in NAMES}
    labels = [names[i] for i in rng.integers(len(names), size=count)]
    values = np.stack([centres[label] for label in labels]) + spread * rng.normal(size=(count, SIZE))
    values = values[:, None] + 2 * rng.normal(size=(count, VIEWS, SIZE)) + SPACE.zero_point
    return np.clip(np.round(values), -128, 127).astype(np.int8), labels


def taught(count=80, slots=1000, updates=4, seed=0, learner=None, names=NAMES, **values):
    learner = learner or new(slots, **values)
    features, labels = made(count, names, seed)
    for part in np.array_split(np.arange(count), updates):
        learner.learn_many(features[part], [labels[i] for i in part])
        learner.consolidate()
    return learner


def accuracy(learner, features, labels):
    return np.mean([a.best == label for a, label in zip(learner.predict_many(features), labels, strict=True)])


def state(learner):
    return {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in learner.flatten().items()}


def same_state(first, second):
    one, other = state(first), state(second)
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []
    return True


def buffered(learner):
    """Return the features that a store keeps for the learner."""
    slots = learner.buffer.filled
    return {int(learner.buffer.slots.sample[k]): learner.buffer.features[k].copy() for k in slots}


# asking and teaching


def test_a_learner_that_knows_nothing_says_so():
    learner, (features, _) = new(), made(3)
    assert [answer.label for answer in learner.predict_many(features)] == [None] * 3
    assert learner.scores_many(features).shape == (3, 0)
    assert learner.report() == ([], [], None, None)
    assert learner.consolidate().steps == 0
    assert learner.suspects() == []


def test_a_new_class_is_answered_from_its_first_sample():
    learner, (features, labels) = taught(60, names=NAMES[:3]), made(40, NAMES[3:], seed=5)
    assert accuracy(learner, features, labels) == 0
    lesson = learner.learn_one(features[0], labels[0])
    assert lesson.new_class
    assert lesson.correct is None
    assert lesson.predicted in NAMES[:3]
    assert accuracy(learner, features, labels) > 0.6


def test_spellings_that_differ_in_case_or_width_are_one_class_named_as_first_taught():
    learner, (features, _) = new(), made(4, ("mug",))
    lessons = learner.learn_many(features, ["Mug", "mug", "MUG", "ｍｕｇ"])
    assert learner.labels == ("Mug",)
    assert [lesson.label for lesson in lessons] == ["Mug"] * 4
    assert [lesson.new_class for lesson in lessons] == [True, False, False, False]
    assert learner.relabel(1, "muG").was == "Mug"
    assert learner.forget_label("mUg").exact == 4
    assert learner.labels == ()


def test_teaching_many_is_teaching_one_after_the_other_bit_for_bit():
    features, labels = made(50)
    many, one = new(20), new(20)
    lessons = many.learn_many(features, labels)
    assert [one.learn_one(f, label) for f, label in zip(features, labels, strict=True)] == lessons
    assert same_state(many, one)


def test_the_same_lessons_give_the_same_state_bit_for_bit():
    assert same_state(taught(slots=30), taught(slots=30))


def test_another_seed_gives_another_state():
    assert state(taught(slots=30)) != state(taught(slots=30, seed=1))


def test_lessons_tell_the_answer_before_learning():
    learner, (features, labels) = taught(80), made(40, seed=2)
    for sample, label in zip(features, labels, strict=True):
        row = learner.scores_many(sample[None, :1])[0]
        lesson = learner.learn_one(sample, label)
        assert lesson.predicted == learner.labels[int(row.argmax())]
        assert lesson.correct == (lesson.predicted == label)
        assert not lesson.new_class


def test_samples_are_numbered_upwards_and_may_be_given_numbers():
    learner, (features, labels) = new(), made(4)
    first = learner.learn_one(features[0], labels[0]).sample
    assert learner.learn_one(features[1], labels[1]).sample == first + 1
    assert learner.learn_one(features[2], labels[2], 70).sample == 70
    assert learner.learn_one(features[3], labels[3]).sample == 71
    assert learner.live_samples() == {first, first + 1, 70, 71}


def test_an_evicted_sample_is_named_and_gone():
    learner, (features, labels) = new(5), made(30)
    live = set()
    for sample, label in zip(features, labels, strict=True):
        lesson = learner.learn_one(sample, label)
        kept = learner.buffer.find(lesson.sample) is not None
        live = (live - {lesson.evicted}) | ({lesson.sample} if kept else set())
        assert learner.live_samples() == live
    assert len(live) == 5


def test_fewer_views_are_repeated_and_count_as_one_sample():
    features, labels = made(30)
    single, repeated = new(), new()
    single.learn_many(features[:, :1], labels)
    repeated.learn_many(features[:, [0, 0]], labels)
    assert same_state(single, repeated)
    assert single.base.weight == 30 * SAMPLE_WEIGHT


@pytest.mark.parametrize(
    "shape", [(SIZE,), (VIEWS + 1, SIZE), (0, SIZE), (VIEWS, SIZE + 1), (1, VIEWS, SIZE)]
)
def test_features_of_the_wrong_shape_are_refused_and_leave_no_trace(shape):
    learner = taught(20)
    before = state(learner)
    with pytest.raises(ValueError, match="features are"):
        learner.learn_one(np.zeros(shape, np.int8), "anvil")
    assert state(learner) == before


def test_no_array_that_is_given_is_changed():
    features, labels = made(40)
    before = features.copy()
    learner = new()
    learner.learn_many(features, labels)
    learner.consolidate()
    learner.predict_many(features)
    learner.scores_many(features)
    learner.relabel(1, "vase")
    learner.forget_sample(2)
    assert np.array_equal(features, before)


def test_predictions_are_probabilities_of_the_scores():
    learner, (features, _) = taught(120), made(50, seed=3)
    scores = learner.scores_many(features)
    chances = np.exp(scores - scores.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    for row, answer in zip(chances, learner.predict_many(features), strict=True):
        order = np.argsort(-row)
        assert answer.best == learner.labels[order[0]]
        assert answer.second == learner.labels[order[1]]
        assert answer.probability == pytest.approx(row[order[0]])
        assert answer.second_probability == pytest.approx(row[order[1]])
        assert 0 <= answer.familiarity <= 1
        assert answer.label in (None, answer.best)
    assert learner.predict_one(features[0]).best == learner.predict_many(features)[0].best


def test_asking_changes_nothing_of_what_follows_to_the_last_bit():
    asked_often, never_asked = taught(60), taught(60)
    features, labels = made(8, seed=3)  # too few for the base to be solved anew, which would hide it
    for sample, label in zip(features, labels, strict=True):
        asked_often.predict_many(features)
        asked_often.scores_many(features)
        asked_often.report()
        asked_often.suspects()
        asked_often.state_bytes()
        for learner in (asked_often, never_asked):
            learner.learn_one(sample, label)
    scores = [learner.scores_many(features).tobytes() for learner in (asked_often, never_asked)]
    assert scores[0] == scores[1]
    for learner in (asked_often, never_asked):
        learner.consolidate()
    assert same_state(asked_often, never_asked)


def test_far_away_inputs_are_called_unknown_and_usual_ones_are_not():
    learner, (usual, _) = taught(200), made(200, seed=3)
    strange = np.random.default_rng(0).integers(-128, 128, (200, VIEWS, SIZE)).astype(np.int8)
    unknown = [np.mean([a.label is None for a in learner.predict_many(f)]) for f in (usual, strange)]
    assert unknown[0] <= 0.1
    assert unknown[1] >= 0.9


def test_views_are_averaged_at_prediction_whatever_their_number():
    learner, (features, _) = taught(80), made(20, seed=3)
    each = [learner.scores_many(features[:, [v]]) for v in range(VIEWS)]
    np.testing.assert_allclose(learner.scores_many(features), np.mean(each, axis=0), rtol=1e-5, atol=1e-4)
    assert len(learner.predict_many(np.tile(features, (1, 3, 1)))) == 20


# classes, domains and visits


def test_class_after_class_is_learned_and_none_forgotten():
    learner = new(60)
    for name in NAMES:
        taught(40, learner=learner, names=(name,), updates=2)
    assert accuracy(learner, *made(200, seed=9)) > 0.9


def test_the_order_of_the_classes_hardly_matters():
    asked = made(200, seed=9)
    found = []
    for order in (NAMES, NAMES[::-1]):
        learner = new(60)
        for name in order:
            taught(40, learner=learner, names=(name,), updates=2)
        found.append(accuracy(learner, *asked))
    assert abs(found[0] - found[1]) < 0.05


def drifted(count, seed):
    """Return the classes of `made` seen through another camera: every feature rolled by a few places."""
    features, labels = made(count, seed=seed)
    return np.roll(features, 5, axis=2), labels


def test_a_drifting_domain_is_followed_and_the_old_one_kept():
    learner, asked = taught(120), drifted(200, seed=8)
    before = accuracy(learner, *asked)
    features, labels = drifted(120, seed=4)
    for part in np.array_split(np.arange(120), 4):
        learner.learn_many(features[part], [labels[i] for i in part])
        learner.consolidate()
    assert before < 0.7
    assert accuracy(learner, *asked) > 0.9
    assert accuracy(learner, *made(200, seed=9)) > 0.9


def test_repeated_visits_to_an_old_class_do_not_drown_the_others():
    learner = taught(80)
    for visit in range(4):
        taught(40, learner=learner, names=("mug",), updates=2, seed=20 + visit)
    assert accuracy(learner, *made(200, seed=9)) > 0.9
    kept = learner.buffer.kept()
    assert kept.min() >= 10


# consolidating


def test_a_consolidation_does_as_many_steps_as_asked():
    learner = taught(40)
    step = learner.residual.step
    found = learner.consolidate(7)
    assert found.steps == 7
    assert learner.residual.step == step + 7
    assert np.isfinite(found.loss)
    assert learner.consolidate().steps == STEPS
    assert learner.consolidate(0).steps == 0
    assert learner.consolidate(3).gate in gate.CANDIDATES


class After:
    """Asks to stop once it was asked `count` times, and does something each time."""

    def __init__(self, count, act):
        self.count, self.act, self.times = count, act, 0

    def __call__(self):
        self.act()
        self.times += 1
        return self.times > self.count


@pytest.mark.parametrize("count", [0, 1, 5, STEPS])
def test_an_interrupted_consolidation_is_one_of_the_steps_done(count):
    features, labels = made(60)
    stopped, planned = new(30), new(30)
    for learner in (stopped, planned):
        learner.learn_many(features, labels)
        learner.consolidate(5)
        learner.learn_many(features[::-1], labels[::-1])
    assert stopped.consolidate(STEPS, After(count, lambda: None)).steps == count
    planned.consolidate(count)
    assert same_state(stopped, planned)


def test_the_model_answers_at_every_moment_of_a_consolidation():
    (features, labels), asked = made(80), made(100, seed=6)
    learner, other = new(), new()
    for one in (learner, other):
        one.learn_many(features, labels)
    found = []
    learner.consolidate(STEPS, After(STEPS + 9, lambda: found.append(accuracy(learner, *asked))))
    other.consolidate(STEPS)
    assert len(found) == STEPS
    assert min(found) > 0.85
    assert same_state(learner, other)  # asking on the way changed nothing


def test_without_the_residual_a_consolidation_still_reports_its_steps():
    learner = taught(40, residual=False)
    assert learner.consolidate(9).steps == 9
    assert learner.residual.step == 0
    assert learner.gate == 0.0


def test_the_density_stays_as_configured_when_stages_end():
    learner = taught(200, updates=20)
    learner.consolidate(NETWORK.stage_steps * 3)
    extra = learner.residual.extra / (SIZE // NETWORK.block)
    assert learner.density() == pytest.approx(NETWORK.density + extra)
    assert learner.residual.step > 2 * NETWORK.stage_steps


def test_held_back_samples_never_train_the_residual():
    learner = taught(120)
    slots = learner.buffer.slots
    held = gate.is_held_back(slots.sample) & (slots.sample > 0)
    assert held.sum() > 10
    assert not slots.shown[held].any()
    assert slots.shown.sum() > 0


def test_the_published_masked_loss_learns_too():
    assert accuracy(taught(120, masked_loss=True), *made(200, seed=9)) > 0.9


def test_training_goes_on_after_all_samples_of_the_round_were_forgotten():
    """Removal leaves the hardest in the round; once those are forgotten the others must serve."""
    learner = taught(60, updates=1)
    learner.consolidate(4 * learner.config.cutoff)
    slots = learner.buffer.slots
    in_round = [int(s) for s in slots.sample[learner.training.kept & (slots.sample > 0)]]
    assert 0 < len(in_round) < 60
    for sample in in_round:
        learner.forget_sample(sample)
    assert learner.consolidate(5).steps == 5


# correcting


def test_relabelling_moves_a_sample():
    features, labels = made(40)
    slip = "vase" if labels[3] != "vase" else "mug"
    wrong = [slip if i == 3 else label for i, label in enumerate(labels)]
    learner, right = new(), new()
    learner.learn_many(features, wrong)
    right.learn_many(features, labels)
    found = learner.relabel(4, labels[3])
    assert (found.exact, found.was) == (True, slip)
    order = [right.labels.index(label) for label in learner.labels]
    ours, theirs = learner.base.statistics, right.base.statistics
    assert np.array_equal(ours.counts, theirs.counts[order])
    assert np.array_equal(ours.sums, theirs.sums[order])
    assert np.array_equal(ours.moment, theirs.moment)
    assert learner.buffer.slots.confirmed[learner.buffer.find(4)]


def test_a_class_known_only_from_a_correction_is_a_class():
    learner, (features, _) = taught(40), made(1, seed=7)
    sample = learner.learn_one(features[0], "mug").sample
    learner.relabel(sample, "anvil")
    assert learner.labels[-1] == "anvil"
    assert learner.predict_one(features[0]).best == "anvil"
    learner.consolidate()
    assert accuracy(learner, *made(100, seed=9)) > 0.8


def test_a_class_that_was_a_slip_of_the_pen_never_answers():
    learner, (features, labels) = taught(40), made(1, seed=7)
    sample = learner.learn_one(features[0], "mgu").sample
    learner.relabel(sample, labels[0])
    learner.consolidate()
    strange = np.random.default_rng(0).integers(-128, 128, (300, VIEWS, SIZE)).astype(np.int8)
    for asked in (strange, made(100, seed=9)[0]):
        assert not [a for a in learner.predict_many(asked) if "mgu" in (a.best, a.label)]


@pytest.mark.parametrize("correct", ["relabel", "forget_sample"])
def test_a_class_that_has_lost_its_last_sample_is_listed_no_more(correct):
    learner, (features, labels) = taught(40), made(2, seed=7)
    slips = [lesson.sample for lesson in learner.learn_many(features, ["mgu", "mgu"])]
    learner.consolidate()
    before = learner.labels
    for sample, label in zip(slips, labels, strict=True):
        assert "mgu" in learner.labels
        learner.relabel(sample, label) if correct == "relabel" else learner.forget_sample(sample)
    assert learner.labels == tuple(name for name in before if name != "mgu")
    assert "mgu" not in {c.label for c in learner.report().classes}
    learner.consolidate()
    assert accuracy(learner, *made(100, seed=9)) > 0.8


def test_an_empty_class_stays_listed_while_a_suspect_speaks_of_it():
    learner, (features, labels) = taught(40), made(1, seed=7)
    sample = learner.learn_one(features[0], "mgu").sample
    number = learner.labels.index("mgu")
    learner.docket.departed = learner.docket.departed.with_one(999, number, 0, 0.9)
    learner.relabel(sample, labels[0])
    assert "mgu" in learner.labels
    learner.forget_sample(999)
    assert "mgu" not in learner.labels


def test_what_has_left_the_memory_cannot_be_relabelled():
    learner = taught(60, slots=5)
    gone = next(s for s in range(1, 61) if s not in learner.live_samples())
    before = state(learner)
    assert learner.relabel(gone, "mug") == (False, None)
    assert learner.forget_sample(gone) == (0, 1, ())
    assert learner.forget_sample(-1) == (0, 1, ())
    assert state(learner) == before


def test_confirming_a_fresh_sample_leaves_it_fresh():
    learner, (features, labels) = taught(40), made(1, seed=7)
    sample = learner.learn_one(features[0], labels[0]).sample
    learner.relabel(sample, labels[0])
    assert learner.buffer.slots.fresh[learner.buffer.find(sample)]


def test_a_forgotten_sample_leaves_no_trace_in_the_statistics():
    features, labels = made(40)
    learner, never = new(), new()
    lessons = learner.learn_many(features, labels)
    learner.consolidate()
    found = learner.forget_sample(lessons[30].sample)
    assert found == (1, 0, (lessons[30].sample,))
    rest = [i for i in range(40) if i != 30]
    never.learn_many(features[rest], [labels[i] for i in rest])
    ours, theirs = learner.base.statistics, never.base.statistics
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert lessons[30].sample not in learner.live_samples()
    assert not learner.residual.weights.second.any()  # trained weights cannot unlearn: they start anew


@pytest.mark.parametrize("label", NAMES)
def test_a_forgotten_class_leaves_no_trace_while_all_was_in_memory(label):
    features, labels = made(60)
    learner, never = new(audit=False), new(audit=False)
    learner.learn_many(features, labels)
    learner.consolidate()
    found = learner.forget_label(label)
    members = [i for i in range(60) if labels[i] == label]
    rest = [i for i in range(60) if labels[i] != label]
    never.learn_many(features[rest], [labels[i] for i in rest])
    assert found == (len(members), 0, tuple(i + 1 for i in members))
    order = [never.labels.index(name) for name in learner.labels]
    ours, theirs = learner.base.statistics, never.base.statistics
    assert np.array_equal(ours.counts, theirs.counts[order])
    assert np.array_equal(ours.sums, theirs.sums[order])
    assert np.array_equal(ours.moment, theirs.moment)
    assert ours.residue == 0
    assert label not in learner.labels
    assert learner.live_samples().isdisjoint(found.samples)
    assert learner.scores_many(features).shape == (60, len(NAMES) - 1)
    assert label not in {c.label for c in learner.report().classes}
    learner.consolidate()
    assert accuracy(learner, features[rest], [labels[i] for i in rest]) > 0.9


def test_a_class_that_has_partly_left_the_memory_is_forgotten_approximately():
    learner = taught(100, slots=20, audit=False)
    taught_as = learner.report().classes[1].taught
    label = learner.labels[1]
    found = learner.forget_label(label)
    assert found.exact == len(found.samples) > 0
    assert found.exact + found.approximate == taught_as
    assert label not in learner.labels
    assert {a.best for a in learner.predict_many(made(100, seed=9)[0])} <= set(learner.labels)


def test_a_class_can_be_taught_again_after_it_was_forgotten():
    learner = taught(80)
    learner.forget_label("lamp")
    taught(40, learner=learner, names=("lamp",), seed=5)
    assert accuracy(learner, *made(200, seed=9)) > 0.9


def test_a_suspect_that_has_left_the_memory_is_still_listed_and_can_be_forgotten_exactly():
    learner = taught()
    learner.docket.departed = learner.docket.departed.with_one(999, 0, 1, 0.75)
    assert learner.suspects()[0][:3] == (999, learner.labels[0], learner.labels[1])
    before = learner.base.statistics.sums.copy()
    assert learner.forget_sample(999) == (1, 0, ())
    assert 999 not in {suspect.sample for suspect in learner.suspects()}
    assert np.array_equal(learner.base.statistics.sums, before)


def test_features_of_another_dtype_are_refused():
    with pytest.raises(ValueError, match="float64, not int8"):
        new().learn_one(np.zeros((VIEWS, SIZE)), "mug")


def test_forgetting_what_was_never_taught_is_refused():
    with pytest.raises(ValueError, match="no class"):
        taught(20).forget_label("anvil")


def test_everything_can_be_forgotten():
    learner = taught(40)
    for label in learner.labels:
        learner.forget_label(label)
    assert learner.labels == ()
    assert learner.base.weight == 0
    assert learner.live_samples() == frozenset()
    assert learner.predict_one(made(1)[0][0]).label is None
    assert accuracy(taught(80, learner=learner), *made(100, seed=9)) > 0.85


# explaining


def test_the_report_counts_and_scores_every_class():
    learner = taught(120, slots=60)
    report = learner.report()
    assert [c.label for c in report.classes] == list(learner.labels)
    labels = made(120)[1]
    for c in report.classes:
        assert c.taught == labels.count(c.label)
        assert 0 <= c.leave_one_out <= 1
        assert 0 <= c.before_learning <= 1
        assert c.advice
    assert sum(c.buffered for c in report.classes) == 60
    assert report.accuracy_leave_one_out > 0.85
    assert report.accuracy_before_learning > 0.6
    assert sum(c.suspects for c in report.classes) == len(learner.suspects())
    assert all(taught_as != answered and times > 0 for taught_as, answered, times in report.confusions)


def test_the_leave_one_out_accuracy_is_an_honest_estimate():
    learner = new(audit=False)
    learner.learn_many(*made(240, spread=40.0))
    learner.consolidate(0)
    found = accuracy(learner, *made(800, seed=9, spread=40.0))
    assert 0.6 < found < 0.95  # neither trivial nor hopeless
    assert abs(learner.report().accuracy_leave_one_out - found) < 0.07


def test_the_state_is_measured_in_the_bytes_of_its_arrays():
    learner = taught(40)
    told = learner.state_bytes()
    statistics = learner.base.statistics
    assert told["base"] == statistics.counts.nbytes + statistics.sums.nbytes + statistics.moment.nbytes
    assert 0 < told["residual"] < 3 * 4 * (SIZE * NETWORK.hidden + NETWORK.hidden * (len(NAMES) + 1))
    assert told["buffer"] >= 40 * VIEWS * SIZE
    more = taught(40, learner=learner, seed=6).state_bytes()
    assert more["buffer"] - told["buffer"] == 40 * VIEWS * SIZE
    assert more["base"] == told["base"]


def test_a_full_buffer_stays_within_the_budget_of_the_config():
    learner = taught(120, slots=30)
    assert learner.state_bytes()["buffer"] <= learner.config.buffer_bytes
    assert len(learner.live_samples()) == 30


def test_a_config_comes_back_from_its_plain_values():
    changed = config(7, lam=0.25, audit=False)
    assert LearnerConfig.from_dict(changed.to_dict()) == changed
    assert LearnerConfig.from_dict({}) == LearnerConfig()


# state as data


def test_a_flattened_state_is_a_snapshot_that_later_lessons_do_not_change():
    learner = taught(60, slots=30)
    tensors = learner.flatten()
    before = {name: array.copy() for name, array in tensors.items()}
    taught(40, learner=learner, seed=4)
    learner.relabel(min(learner.live_samples()), "anvil")
    assert [name for name in before if not np.array_equal(before[name], tensors[name])] == []


def test_a_flattened_state_travels_through_the_wire_format():
    learner = taught(60, slots=30)
    tensors, _ = unpack(pack(learner.flatten()))
    restored = EdgeLearner.restore(SPACE, learner.config, tensors, buffered(learner))
    assert same_state(learner, restored)
    asked = made(50, seed=3)[0]
    assert learner.scores_many(asked).tobytes() == restored.scores_many(asked).tobytes()
    assert learner.predict_many(asked) == restored.predict_many(asked)
    assert learner.suspects() == restored.suspects()
    assert learner.report() == restored.report()


def test_a_learner_that_knows_nothing_can_be_stored_too():
    tensors, _ = unpack(pack(new().flatten()))
    restored = EdgeLearner.restore(SPACE, config(), tensors, {})
    assert same_state(taught(40, learner=restored), taught(40))


def test_large_sums_are_stored_exactly():
    learner = new()
    features, _ = made(1)
    loud = np.where(np.arange(SIZE) == 0, 127, SPACE.zero_point).astype(np.int8)[None]
    for _ in range(30):
        learner.learn_one(loud, "mug")  # 30 samples * 12 * 4096 ** 2 is beyond 32 bits
    learner.learn_one(features[0], "fork")
    assert learner.flatten()["base.moment"].dtype == np.int64
    restored = EdgeLearner.restore(SPACE, learner.config, learner.flatten(), buffered(learner))
    assert np.array_equal(restored.base.statistics.moment, learner.base.statistics.moment)


def test_samples_whose_features_were_lost_leave_the_memory_but_not_the_statistics():
    learner = taught(60)
    features = buffered(learner)
    lost = sorted(features)[::3]
    restored = EdgeLearner.restore(
        SPACE, learner.config, learner.flatten(), {s: f for s, f in features.items() if s not in lost}
    )
    assert restored.live_samples() == learner.live_samples() - set(lost)
    assert restored.base.weight == learner.base.weight
    restored.consolidate()
    assert accuracy(restored, *made(100, seed=9)) > 0.85


LABELS = st.sampled_from([*NAMES, "MUG", "anvil"])
EVENTS = st.one_of(
    st.tuples(st.just("learn"), st.integers(0, 39), LABELS),
    st.tuples(st.just("many"), st.integers(0, 25), st.integers(2, 14)),
    st.tuples(st.just("consolidate"), st.integers(0, 10)),
    st.tuples(st.just("relabel"), st.integers(1, 60), LABELS),
    st.tuples(st.just("forget"), st.integers(1, 60)),
    st.tuples(st.just("forget label"), LABELS),
)
SHOWN = made(40)


def tell(learner, event):
    """Apply one event of a log, as the device does."""
    kind, *values = event
    features, labels = SHOWN
    if kind == "learn":
        learner.learn_one(features[values[0]], values[1])
    elif kind == "many":
        part = slice(values[0], values[0] + values[1])
        learner.learn_many(features[part], labels[part])
    elif kind == "consolidate":
        learner.consolidate(values[0])
    elif kind == "relabel":
        learner.relabel(*values)
    elif kind == "forget":
        learner.forget_sample(values[0])
    elif values[0] in learner.labels:
        learner.forget_label(values[0])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(EVENTS, min_size=2, max_size=14),
    st.integers(0, 14),
    st.sampled_from([4, 12, 1000]),
    st.booleans(),
)
def test_a_checkpoint_and_the_rest_of_the_log_are_the_uninterrupted_run(events, cut, slots, audit):
    """The finest promise: replay equals history, bit for bit, wherever the plug is pulled."""
    values = {"audit": audit, "masked_loss": not audit}
    history, first = new(slots, **values), new(slots, **values)
    for event in events[:cut]:
        tell(history, event)
        tell(first, event)
    history.settle()
    tensors, _ = unpack(pack(first.flatten()))
    restored = EdgeLearner.restore(SPACE, first.config, tensors, buffered(first))
    for event in events[cut:]:
        tell(history, event)
        tell(restored, event)
    asked = SHOWN[0]
    if history.labels:
        assert history.scores_many(asked).tobytes() == restored.scores_many(asked).tobytes()
    assert history.predict_many(asked) == restored.predict_many(asked)
    assert same_state(history, restored)


def long_life():
    """Return events of a long life: wrong labels, corrections, drift, a memory that overflows."""
    rng, events = np.random.default_rng(4), []
    for turn in range(16):
        for place in rng.integers(40, size=12):
            label = SHOWN[1][place] if rng.random() > 0.15 else NAMES[rng.integers(4)]
            events.append(("learn", int(place), label))
        events.append(("consolidate", int(rng.integers(20))))
        if turn % 3 == 2:
            events += [("relabel", turn * 11, NAMES[turn % 4]), ("forget", turn * 12)]
    events.insert(120, ("forget label", "lamp"))
    return events


@pytest.mark.parametrize("slots", [80, 1000])
@pytest.mark.parametrize("cut", [1, 60, 121, 190])
def test_a_long_life_is_replayed_bit_for_bit_from_a_checkpoint(slots, cut):
    history, first, events = new(slots), new(slots), long_life()
    for event in events[:cut]:
        tell(history, event)
        tell(first, event)
    history.settle()
    tensors, _ = unpack(pack(first.flatten()))
    restored = EdgeLearner.restore(SPACE, first.config, tensors, buffered(first))
    for event in events[cut:]:
        tell(history, event)
        tell(restored, event)
    assert same_state(history, restored)
    assert history.suspects() == restored.suspects()
    # The life was a full one: the mask was adjusted, data was removed, labels were doubted.
    assert history.residual.step > 2 * NETWORK.stage_steps
    assert not history.training.kept.all()
    assert history.calibration.noise > 0
    assert history.suspects()


@settings(deadline=None, max_examples=60)
@given(st.lists(EVENTS, min_size=1, max_size=14), st.sampled_from([4, 12, 1000]))
def test_whatever_happens_the_books_agree(events, slots):
    learner = new(slots)
    for event in events:
        tell(learner, event)
    filled, counts = learner.buffer.filled, learner.base.counts
    heard = filled[~learner.buffer.slots.suspect[filled]]
    kept = np.bincount(learner.buffer.slots.number[heard], minlength=len(learner.labels))
    classes = len(learner.labels)
    assert (counts >= kept * SAMPLE_WEIGHT).all()
    assert len(counts) == classes == len(learner.progress.taught) == len(learner.buffer.offered)
    assert learner.residual.weights.second.shape == (NETWORK.hidden, classes)
    assert len(filled) <= slots
    assert len({label.casefold() for label in learner.labels}) == classes
    answers = learner.predict_many(SHOWN[0])
    assert all(np.isfinite(a.probability) and 0 <= a.familiarity <= 1 for a in answers)
    assert {a.best for a in answers} <= {*learner.labels, None}
    moment = learner.base.statistics.moment
    assert np.array_equal(moment, moment.T)
    assert np.array_equal(moment, np.rint(moment))


def test_a_class_that_is_called_otherwise_knows_all_that_it_knew():
    features, labels = made(60)
    learner = taught(60)
    named, before, scores = learner.labels, learner.base.statistics, learner.scores_many(features)
    learner.rename_label(labels[0].upper(), "vessel")
    assert learner.labels == tuple("vessel" if name == labels[0] else name for name in named)
    assert all(np.array_equal(a, b) for a, b in zip(learner.base.statistics, before, strict=True))
    assert np.array_equal(learner.scores_many(features), scores)


def test_two_classes_of_one_name_become_one_as_if_always_taught_so():
    features, labels = made(80)
    both, one = taught(80), new()
    one.learn_many(features, [NAMES[1] if label == NAMES[0] else label for label in labels])
    both.rename_label(NAMES[0], NAMES[1])
    assert set(both.labels) == set(NAMES[1:])
    order = [one.labels.index(name) for name in both.labels]
    joined, always = both.base.statistics, one.base.statistics
    assert joined.counts.tolist() == always.counts[order].tolist()
    assert np.array_equal(joined.sums, always.sums[order])
    assert np.array_equal(joined.moment, always.moment)
    assert both.progress.taught.tolist() == one.progress.taught[order].tolist()
    assert both.buffer.kept().tolist() == one.buffer.kept()[order].tolist()
    assert len(both.training.trained) == both.residual.weights.second.shape[1] == len(both.labels)
    both.consolidate(8)
    assert accuracy(both, features, [NAMES[1] if label == NAMES[0] else label for label in labels]) > 0.9


def test_a_class_that_is_not_there_cannot_be_called_otherwise():
    with pytest.raises(ValueError, match="no class"):
        taught(20).rename_label("nothing", "something")
