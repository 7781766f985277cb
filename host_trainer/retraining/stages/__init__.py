"""Carries out the stages of a run, each from what earlier ones left: the shell around the rules beside it.

intake -> update -> export -> head -> bundle -> gate -> publication. Statistics are made of the features of
the file that devices run, so a new backbone is exported, and has looked at all pictures, before a head is
made.
"""

from collections.abc import Callable
from pathlib import Path

from host_trainer.retraining.deployed import PUBLICATION
from host_trainer.retraining.job import BUNDLE, EXPORT, GATE, HEAD, INTAKE, UPDATE, Job
from host_trainer.retraining.runs import Facts
from host_trainer.retraining.stages.bundle import assemble
from host_trainer.retraining.stages.export import export
from host_trainer.retraining.stages.gate import pass_judgement
from host_trainer.retraining.stages.head import make_head
from host_trainer.retraining.stages.intake import take_in
from host_trainer.retraining.stages.publication import publish
from host_trainer.retraining.stages.update import update

STAGES: tuple[tuple[str, Callable[[Job, Path], Facts]], ...] = (
    (INTAKE, take_in),
    (UPDATE, update),
    (EXPORT, export),
    (HEAD, make_head),
    (BUNDLE, assemble),
    (GATE, pass_judgement),
    (PUBLICATION, publish),
)
