"""Keeps continual trainings on the disk: what a stopped one goes on from, and what a finished one left.

Both are one checkpoint of the network as it is trained, with masks, buffer, averages and place beside it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ModelError
from host_trainer.checkpoints import (
    Training,
    check_facts,
    load_network,
    load_training,
    optimizer_state,
    restore_optimizer,
    save_network,
    weights_of,
)
from host_trainer.network import Network
from host_trainer.sparcl.course import Place, Sums
from host_trainer.sparcl.learner import Learner
from host_trainer.sparcl.plan import Plan, plan_of
from host_trainer.sparcl.recorder import Recorder, packed, unpacked
from host_trainer.sparcl.tasks import classes_match

CONTINUAL = "continual"  # folder inside --out from which a later training goes on
# Facts of a training that are no option a person gave, or follow from the others.
WIDE, PLAN = "wide", "plan"


def save_training(
    folder: Path, learner: Learner, facts: Mapping[str, Any], recorder: Recorder, place: Place, sums: Sums
) -> None:
    """Write everything that the same training needs to go on.

    Raises:
        StoreError: no space, no permission.
    """
    state = learner.state()
    more = {"place": packed(place), "sums": packed(sums), "told": recorder.state()}
    training = Training(learner.steps, optimizer_state(learner.optimizer), {**state, **more}, dict(facts))
    save_network(folder, learner.saved(), training)


def take_up(
    folder: Path, learner: Learner, facts: Mapping[str, Any], recorder: Recorder
) -> tuple[Place, Sums] | None:
    """Take up what a stopped training left, and return where it stood; None where there is nothing.

    Raises:
        ConfigError: the data's classes are others now.
        MismatchError: it was given other options.
        ModelError: it is damaged.
    """
    saved = load_training(folder) if folder.is_dir() else None
    if saved is None:
        return None
    classes_match(saved.facts["classes"], facts["classes"])
    check_facts(saved._replace(facts=_by_option(saved.facts)), _by_option(facts), folder)
    restore_optimizer(learner.optimizer, saved.optimizer)
    learner.restore(weights_of(load_network(folder).model), saved.state, saved.step)
    recorder.restore(saved.state["told"])
    return Place(*unpacked(saved.state["place"])), Sums(*unpacked(saved.state["sums"]))


class Finished(NamedTuple):
    """What a finished training left.

    Attributes:
        network: as it was trained.
        wide: the whole network around it, without weights.
        state: of its learner.
        steps: taken.
        plan: how it was trained.
        taught: tasks, over all trainings that went on from one another.
    """

    network: Network
    wide: Any
    state: dict[str, NDArray[np.generic]]
    steps: int
    plan: Plan
    taught: int


def open_finished(folder: Path) -> Finished:
    """Read what a finished continual training left in its --out.

    Raises:
        ModelError: it is none, or damaged.
    """
    import keras

    place = folder / CONTINUAL
    saved = load_training(place) if place.is_dir() else None
    if saved is None:
        raise ModelError(
            f"{folder} holds no continual training (it has no {CONTINUAL}/): give a folder that"
            " `host-trainer train --method ...` finished"
        )
    facts = saved.facts
    wide = keras.models.model_from_json(json.dumps(facts[WIDE]))
    taught = facts["before"] + facts["tasks"]
    return Finished(load_network(place), wide, saved.state, saved.step, plan_of(facts[PLAN]), taught)


def _by_option(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts by the names that a refusal gives them: the plan's parts each for itself, no graph."""
    plan = facts[PLAN]
    told = {name: value for name, value in facts.items() if name not in (WIDE, PLAN)}
    return {
        **told,
        **{name: value for name, value in plan.items() if name != "sparsity"},
        **(plan["sparsity"] or {}),
    }
