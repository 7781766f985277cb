"""Peers that die, stop and come back end where undisturbed ones do, and one network ships."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from edge_cl.errors import ConfigError, MismatchError

pytest.importorskip("keras", reason="peers train Keras networks")

from host_trainer.checkpoints import load_network, load_training, weights_of  # noqa: E402
from host_trainer.distillation.codistillation import plan as plans  # noqa: E402
from host_trainer.distillation.codistillation.engines import in_turn  # noqa: E402
from host_trainer.distillation.codistillation.learner import Peer  # noqa: E402
from host_trainer.distillation.codistillation.peer import Parts, home_of, open_seat, result_of  # noqa: E402
from host_trainer.distillation.codistillation.plan import Plan  # noqa: E402
from host_trainer.distillation.codistillation.session import run_codistillation  # noqa: E402
from host_trainer.training.session import Options  # noqa: E402

STEPS = 24  # 24 pictures in batches of 4, 4 epochs


def plan_of(folder: Path, network: Path, out: Path, **changes: Any) -> Plan:
    options = Options(
        data=folder, out=out, network=str(network), epochs=4, batch=4, rate=5e-3, augment=("flip",),
        save_every=5,
    )  # fmt: skip
    usual: dict[str, Any] = {"interval": 4, "burn_in": 0.25, "engine": "inline", "threads": 1}
    return Plan(options, **{**usual, **changes})


def crew_of(plan: Plan) -> list[Peer]:
    parts = Parts(plan)
    return [Peer(open_seat(plan, number, parts)) for number in range(plan.peers)]


def weights(model: Any) -> np.ndarray:
    return np.concatenate([values.ravel() for values in weights_of(model).values()])


@pytest.fixture(scope="module")
def undisturbed(cifar_folder: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """What each of two peers ends with, in lockstep."""
    plan = plan_of(cifar_folder, tiny, tmp_path_factory.mktemp("inline") / "out", lockstep=True)
    crew = crew_of(plan)
    while not crew[0].is_done:
        in_turn(crew)
    return [weights(peer.finish().model) for peer in crew]


def test_a_plan_survives_its_way_to_the_peers(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, tmp_path, tmp_path / "out", peers=3, max_age=100, lockstep=True)
    assert plans.from_json(plans.to_json(plan)) == plan
    with pytest.raises(ConfigError, match="17 peers"):
        replace(plan, peers=17)


def test_peers_differ_in_first_weights_and_order_and_agree_more_after_they_exchange(
    cifar_folder: Path, tiny: Path, tmp_path: Path
) -> None:
    plan = plan_of(cifar_folder, tiny, tmp_path / "out")
    drawn = replace(plan, options=replace(plan.options, network="separable:0.25/16"))
    first = [open_seat(drawn, number, Parts(drawn)).job.network.model for number in (0, 1)]
    assert not np.array_equal(first[0].get_weights()[0], first[1].get_weights()[0])
    one, two = crew_of(plan)
    assert not np.array_equal(one.seat.job.source(0)["images"], two.seat.job.source(0)["images"])
    heard: list[tuple[int, int, float]] = []
    while not one.is_done:
        in_turn([one, two], lambda peer, step, told: heard.append((peer, step, told["apart"])))
    assert all(apart == 0 for _, step, apart in heard if step <= 6)  # a quarter of the steps: alone
    assert all(apart > 0 for _, step, apart in heard if step > 6)
    assert one.held == {1: 22} and two.held == {0: 22}  # exchanges at 6, 10, ... 22


def test_the_teacher_is_the_mean_of_the_others_as_they_were(
    cifar_folder: Path, tiny: Path, tmp_path: Path
) -> None:
    crew = crew_of(plan_of(cifar_folder, tiny, tmp_path / "out", peers=3, burn_in=0.0, interval=100))
    for peer in crew:
        peer.publish()
    first = [peer.seat.job.network.model for peer in crew]
    images = crew[0].seat.job.source(0)["images"]
    logits = [np.asarray(model(images, training=False)) for model in first[1:]]
    mean = np.mean([np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in logits], axis=0)
    crew[0].read()
    for peer in crew[1:]:
        peer.learn()  # the copies held by the first peer do not follow
    np.testing.assert_allclose(np.exp(crew[0]._said((1, 2), images)), mean, atol=1e-5)


def test_a_peer_that_stops_goes_on_bit_for_bit_with_the_stale_copies_it_held(
    cifar_folder: Path, tiny: Path, tmp_path: Path, undisturbed: list[np.ndarray]
) -> None:
    plan = plan_of(cifar_folder, tiny, tmp_path / "out", lockstep=True)
    crew = crew_of(plan)
    for _ in range(9):
        in_turn(crew)
    crew[0].save()  # at step 9: the others' copies are of step 6
    parts = Parts(plan)
    back = Peer(open_seat(plan, 0, parts))
    assert (back.step, back.held) == (9, {1: 6})
    crew = [back, crew[1]]
    while not back.is_done:
        in_turn(crew)
    for peer, expected in zip(crew, undisturbed, strict=True):
        assert np.array_equal(weights(peer.finish().model), expected)


def test_one_network_ships_the_best_by_pictures_that_no_peer_learned_from(
    cifar_folder: Path, tiny: Path, tmp_path: Path
) -> None:
    plan = plan_of(cifar_folder, tiny, tmp_path / "out")
    outcome = run_codistillation(plan)
    assert outcome.validation[outcome.peer] == max(outcome.validation) and outcome.train == 24
    shipped = load_network(plan.options.out)
    assert shipped.classes == ("airplane", "automobile", "ship") and shipped.origin["peer"] == outcome.peer
    assert outcome.test_accuracy is not None and 0 <= outcome.test_accuracy <= 1
    assert not (plan.options.out / "running").exists()
    with pytest.raises(ConfigError, match="finished network"):
        run_codistillation(plan)


def test_a_stopped_codistillation_is_not_continued_with_other_options(
    cifar_folder: Path, tiny: Path, tmp_path: Path
) -> None:
    plan = plan_of(cifar_folder, tiny, tmp_path / "out")
    run = plan.options.out / "running"
    run.mkdir(parents=True)
    (run / "plan.json").write_text(plans.to_json(plan))
    with pytest.raises(MismatchError, match="interval"):
        run_codistillation(replace(plan, interval=9))


def test_a_peer_alone_is_a_training_without_teachers(cifar_folder: Path, tiny: Path, tmp_path: Path) -> None:
    outcome = run_codistillation(plan_of(cifar_folder, tiny, tmp_path / "out", peers=1))
    assert outcome.peer == 0 and len(outcome.validation) == 1


def start(path: Path, number: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
    environment |= dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
    module = "host_trainer.distillation.codistillation.peer"
    return subprocess.Popen(
        [sys.executable, "-m", module, str(path), str(number)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


@pytest.mark.slow
def test_a_peer_killed_and_started_again_ends_where_it_would_have_ended(
    cifar_folder: Path, tiny: Path, tmp_path: Path
) -> None:
    ends = []
    for name, deaths in (("calm", 0), ("deadly", 2)):
        plan = plan_of(cifar_folder, tiny, tmp_path / name, lockstep=True, engine="processes")
        parts = Parts(plan)
        for pictures in (parts.train, parts.validation):
            parts.pixels(pictures, (16, 16))  # as the launcher does: once, before anybody needs them
        path = tmp_path / f"{name}.json"
        path.write_text(plans.to_json(plan))
        other = start(path, 0)
        for _ in range(deaths):
            victim = start(path, 1)
            assert victim.stdout is not None and json.loads(victim.stdout.readline())["step"] in {10, 20}
            victim.send_signal(signal.SIGKILL)
            assert victim.wait() == -signal.SIGKILL
            victim.stdout.close()
        last = start(path, 1)
        for process in (other, last):
            assert (
                process.communicate(timeout=900)[0].endswith('{"done": true}\n') and process.returncode == 0
            )
        ends.append([weights(load_network(result_of(plan, number)).model) for number in (0, 1)])
    np.testing.assert_array_equal(ends[0], ends[1])


@pytest.mark.slow
def test_ctrl_c_saves_a_peer_and_it_goes_on(cifar_folder: Path, tiny: Path, tmp_path: Path) -> None:
    plan = plan_of(cifar_folder, tiny, tmp_path / "out", peers=1, engine="processes")
    plan = replace(plan, options=replace(plan.options, epochs=400, save_every=10**6))
    plan.options.out.mkdir()
    path = tmp_path / "plan.json"
    path.write_text(plans.to_json(plan))
    peer = start(path, 0)
    assert peer.stdout is not None and json.loads(peer.stdout.readline())["step"] == 10
    peer.send_signal(signal.SIGINT)
    rest, _ = peer.communicate(timeout=600)
    assert peer.returncode == 130
    saved = load_training(home_of(plan, 0))
    assert saved is not None and saved.step >= 10
    again = start(path, 0)
    assert again.stdout is not None
    assert json.loads(again.stdout.readline())["step"] == (saved.step // 10 + 1) * 10
    again.kill()
    again.communicate()


@pytest.mark.slow
def test_the_launcher_revives_a_peer_that_is_killed(cifar_folder: Path, tiny: Path, tmp_path: Path) -> None:
    plan = plan_of(cifar_folder, tiny, tmp_path / "out", engine="processes")
    plan = replace(plan, options=replace(plan.options, epochs=40))
    killed = Event()

    def kill_once(peer: int, step: int, told: Any) -> None:
        if peer == 1 and not killed.is_set():
            killed.set()
            found = subprocess.run(
                ["pgrep", "-f", f"codistillation.peer {plan.options.out}/running/plan.json 1"],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            os.kill(int(found.stdout.split()[0]), signal.SIGKILL)

    outcome = run_codistillation(plan, kill_once)
    assert outcome.restarts == 1 and len(outcome.validation) == 2


@pytest.mark.slow
def test_a_plan_that_a_peer_refuses_ends_the_whole_with_its_line(
    cifar_folder: Path, tiny: Path, tmp_path: Path
) -> None:
    plan = plan_of(cifar_folder, tiny, tmp_path / "out", engine="processes")
    plan = replace(plan, options=replace(plan.options, augment=("wind",)))
    with pytest.raises(ConfigError, match=r"peer \d: 'wind' changes no pictures"):
        run_codistillation(plan)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning:ray")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
def test_ray_actors_exchange_through_the_same_store(
    cifar_folder: Path, tiny: Path, tmp_path: Path, undisturbed: list[np.ndarray]
) -> None:
    pytest.importorskip("ray", reason="--engine ray needs Ray")
    plan = plan_of(cifar_folder, tiny, tmp_path / "out", engine="ray", lockstep=True)
    steps: list[int] = []
    outcome = run_codistillation(plan, lambda peer, step, told: steps.append(step))
    assert len(outcome.validation) == 2 and load_network(plan.options.out).origin["peer"] == outcome.peer
    np.testing.assert_allclose(weights(outcome.network.model), undisturbed[outcome.peer], atol=1e-5)
