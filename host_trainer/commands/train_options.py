"""The options that trainings share, and those of `host-trainer train`, as the parser takes them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from edge_cl.errors import ConfigError

Data = Annotated[
    Path, typer.Option("--data", metavar="DIR", help="Holds train/CLASS/* and test/CLASS/*, or CLASS/*.")
]
Out = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Folder for the result; must not be there yet.")
]
OutOr = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Folder for the result; must not be there yet.")
]
NetworkName = Annotated[
    str,
    typer.Option(
        "--network",
        metavar="NETWORK",
        help="FAMILY[:WIDTH][/SIZE][+haar]: mobilenetv1, mobilenetv2, resnet18, separable; or a checkpoint"
        " folder, or a .tflite file.",
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        "--weights",
        metavar="WEIGHTS",
        help="random, imagenet (downloaded by Keras), FILE.npz or a checkpoint folder.",
    ),
]
Epochs = Annotated[
    float, typer.Option("--epochs", metavar="N", min=0.001, help="How often each picture is seen.")
]
BatchSize = Annotated[int, typer.Option("--batch", metavar="N", min=2, max=4096, help="Pictures a step.")]
EpochsOr = Annotated[
    float | None,
    typer.Option(
        "--epochs",
        metavar="N",
        min=0.001,
        help="How often each picture is seen [usual: 20; with --method 5 a task, up to 50 for 300 steps].",
    ),
]
BatchOr = Annotated[
    int | None,
    typer.Option(
        "--batch", metavar="N", min=2, max=4096, help="Pictures a step [usual: 64; with --method 32]."
    ),
]
RateOr = Annotated[
    float | None,
    typer.Option(
        "--rate", metavar="RATE", help="Highest learning rate [usual: 0.002; with --method as published]."
    ),
]
Rate = Annotated[float, typer.Option("--rate", metavar="RATE", help="Highest learning rate.")]
Augment = Annotated[
    str,
    typer.Option(
        "--augment",
        metavar="NAMES",
        help="Changes, by name: flip, crop, colour, rotation, cutout, noise, mixup; or none.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of weights, order and augmentation.")]
WeightsOr = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="WEIGHTS",
        help="random [usual], imagenet (downloaded by Keras), FILE.npz or a checkpoint folder.",
    ),
]
AugmentOr = Annotated[
    str | None,
    typer.Option(
        "--augment",
        metavar="NAMES",
        help="Changes, by name: flip, crop, colour, rotation, cutout, noise, mixup; or none [usual:"
        " flip,crop].",
    ),
]
SeedOr = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", min=0, help="Of weights, order and augmentation [usual: 0]."),
]
Cache = Annotated[
    Path | None,
    typer.Option("--cache", metavar="DIR", help="Keep decoded pictures here (default: inside --out)."),
]
SaveEveryOr = Annotated[
    int | None,
    typer.Option("--save-every", metavar="N", min=1, help="Steps between two checkpoints [usual: 500]."),
]
SaveEvery = Annotated[
    int, typer.Option("--save-every", metavar="N", min=1, help="Steps between two checkpoints.")
]
Events = Annotated[
    Path | None, typer.Option("--tensorboard", metavar="DIR", help="Write TensorBoard event files here.")
]


CONTINUAL = "Task after task"  # the panel of the help that holds these options


def _continual(*names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=CONTINUAL, **more)


DataName = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DIR|NAME",
        help="Holds train/CLASS/* and test/CLASS/*, or CLASS/*. With --method also cifar10, cifar100,"
        " tiny-imagenet, mnist, rot-mnist, perm-mnist.",
    ),
]
NetworkOr = Annotated[
    str | None,
    typer.Option(
        "--network",
        metavar="NETWORK",
        help="FAMILY[:WIDTH][/SIZE][+haar]: mobilenetv1, mobilenetv2, resnet18, separable; or a checkpoint"
        " folder, or a .tflite file. Usual: mobilenetv2:0.35/96; with --method resnet18:0.5.",
    ),
]
MethodName = Annotated[
    str | None,
    _continual(
        "--method",
        metavar="METHOD",
        help="sgd, joint, er, der, derpp, er-ace, cls-er, sparcl-er, sparcl-derpp: train task after task.",
    ),
]
Protocol = Annotated[
    str | None,
    _continual(
        "--protocol",
        metavar="NAME",
        help="class-incremental [usual], task-incremental or domain-incremental.",
    ),
]
Tasks = Annotated[
    int | None,
    _continual(
        "--tasks",
        metavar="N",
        help="Into how many the classes are cut [usual: 5; with --from 1].",
        min=1,
    ),
]
Mode = Annotated[
    str | None,
    _continual(
        "--mode",
        metavar="NAME",
        help="Of a sparcl method: edge (whole channels: saves time; usual), paper, or official (its authors'"
        " code).",
    ),
]
SparsityShare = Annotated[
    float | None,
    _continual("--sparsity", metavar="SHARE", help="Share of weights that are zero [usual: 0.9]."),
]
Without = Annotated[
    str | None,
    _continual("--without", metavar="NAMES", help="Parts of SparCL to leave out: masks, removal, gradients."),
]
Places = Annotated[
    int | None, _continual("--buffer", metavar="N", help="Pictures kept for replay [usual: 200].")
]
Alpha = Annotated[
    float | None,
    _continual("--alpha", metavar="WEIGHT", help="Of the logits kept with replayed pictures [as published]."),
]
Beta = Annotated[
    float | None,
    _continual("--beta", metavar="WEIGHT", help="Of the labels of replayed pictures [as published]."),
]
Clip = Annotated[
    float | None, _continual("--clip", metavar="LENGTH", help="Longest gradient; 0 for no bound [usual].")
]
Origin = Annotated[
    Path | None,
    _continual(
        "--from",
        metavar="DIR",
        help="Go on from a finished training, with --new-data: its network, method, masks and buffer; epochs,"
        " batch, rate, clip, augmentation and seed too, where no others are given.",
    ),
]
NewData = Annotated[
    str | None, _continual("--new-data", metavar="DIR", help="What to learn on top; its classes may be new.")
]
Count = Annotated[
    int | None,
    _continual(
        "--workers",
        metavar="N",
        min=1,
        max=64,
        help="Processes of this machine that share each batch [usual: 1]; on several machines start the same"
        " command on each with TF_CONFIG, as TensorFlow has it, and folders that all see.",
    ),
]
Root = Annotated[
    Path | None, _continual("--data-root", metavar="DIR", help="Where data sets called by name lie [here].")
]


MANY = "Many trainings"  # the panel of the help that holds these options


def _many(*names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=MANY, **more)


Configs = Annotated[
    list[Path] | None,
    _many(
        "--config",
        metavar="FILE",
        help="Options from a TOML file, such as those in benchmarks/configs; the command's own go before. May"
        " repeat: then each is a training.",
    ),
]
Seeds = Annotated[
    str | None,
    _many("--seeds", metavar="N,N,...", help="One training for each seed, and a page that compares them."),
]
Engine = Annotated[
    str | None,
    _many(
        "--engine",
        metavar="NAME",
        help="Of many: processes on this machine [usual], or ray: tasks on the cluster of RAY_ADDRESS.",
    ),
]
Jobs = Annotated[
    int | None,
    _many("--jobs", metavar="N", min=1, max=256, help="Processes at a time [usual: one a core]."),
]


def listed(text: str) -> tuple[str, ...]:
    """Read a list with commas between."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def names_of(text: str) -> tuple[str, ...]:
    """Read a list of names with commas between; `none` is the empty one."""
    names = listed(text)
    if names == ("none",):
        return ()
    if "none" in names:
        raise ConfigError("--augment none goes with nothing else: give names, or none")
    return names
