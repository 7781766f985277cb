"""The files of options: those that come with the program make plans, and others are refused in one line."""

import shlex
from pathlib import Path

import pytest
import typer.main
from simulators.foreman import refused

from edge_cl.errors import ConfigError
from host_trainer.backbones.networks import parse_spec
from host_trainer.commands import app
from host_trainer.commands.train import _options
from host_trainer.datasets.named import NAMES
from host_trainer.sparcl.configs import read_config
from host_trainer.sparcl.options import new_plan
from host_trainer.sparcl.tasks import PROTOCOLS

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "benchmarks" / "configs").glob("*.toml"))
SETS, BUFFERS = ("split-cifar10", "split-cifar100", "split-tiny-imagenet"), (200, 500)
METHODS = ("derpp", "cls-er", "sparcl-paper", "sparcl-official", "sparcl-edge")


def test_there_is_one_for_each_set_buffer_and_method() -> None:
    wanted = {f"{name}-{buffer}-{method}" for name in SETS for buffer in BUFFERS for method in METHODS}
    assert {path.stem for path in CONFIGS} == wanted


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_a_file_makes_the_plan_that_its_name_says(path: Path) -> None:
    config = read_config(path)
    options = _options({**config.given, "out": Path("out")})
    plan = new_plan(options)
    rules = plan.sparsity
    assert f"-{plan.buffer}-" in path.stem and plan.batch == plan.replay == 32
    assert path.stem.endswith(f"-sparcl-{rules.mode}" if rules else f"-{plan.method.name}")
    assert rules is None or (plan.method.name, rules.sparsity) == ("sparcl-derpp", 0.75)
    assert options.data in NAMES and options.protocol in PROTOCOLS
    assert (parse_spec(options.network or "").family, parse_spec(options.network or "").width) == (
        "resnet18",
        1,
    )
    assert (options.tasks, plan.epochs) == {"split-cifar10-": (5, 50), "split-cifar100": (10, 50)}.get(
        path.stem[:14], (10, 100)
    )
    expected = config.expected
    assert expected.hours and expected.basis.startswith("estimate:")
    assert (expected.class_il is None) == (not expected.source)
    program, command, *words = shlex.split(config.command)
    assert (program, command) == ("host-trainer", "train")
    assert f"benchmarks/configs/{path.name}" in words
    typer.main.get_group(app).commands["train"].make_context("train", list(words))


BAD = {
    "no TOML": ("data = ", "is not TOML"),
    "no options": ('command = "x"', "there is no [train]"),
    "another table": ("[train]\n[more]", "'more' is nothing of"),
    "an unknown option": ("[train]\nspeed = 3", "'speed' in"),
    "a wrong kind": ('[train]\nepochs = "five"', "epochs = 'five'"),
    "a truth for a number": ("[train]\nepochs = true", "epochs = True"),
    "an unknown expectation": ("[train]\n[expected]\nluck = 1.0", "luck = 1.0"),
}


@pytest.mark.parametrize(("text", "said"), BAD.values(), ids=BAD)
def test_a_file_that_is_none_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "none.toml")


def test_options_of_the_command_go_before_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[train]\nmethod = "er"\ndata = "nowhere"\nbuffer = 7\nrate = 1', encoding="utf-8")
    out = tmp_path / "out"
    assert "nowhere" in refused("train", "--config", path, "--out", out, "--network", "separable:0.25/16")
    assert "buffer of 0" in refused("train", "--config", path, "--out", out, "--buffer", 0)
    assert "give --out" in refused("train", "--config", path)


MANY = {
    "no seeds": (("--seeds", "one"), "no list of whole numbers"),
    "no engine": (("--seeds", "0,1", "--engine", "steam"), "give processes or ray"),
    "an engine for one": (("--engine", "ray"), "give --seeds"),
    "a seed twice": (("--seeds", "1,1"), "two runs of the same name"),
}


@pytest.mark.parametrize(("words", "said"), MANY.values(), ids=MANY)
def test_many_trainings_that_cannot_be_are_refused(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    usual = ("train", "--data", tmp_path, "--out", tmp_path / "out", "--method", "er")
    assert said in refused(*usual, *words)
    assert "give --method" in refused(
        "train", "--data", tmp_path, "--out", tmp_path / "out", "--seeds", "0,1"
    )
