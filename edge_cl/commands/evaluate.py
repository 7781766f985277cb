"""`edge-cl eval`: how well a learner learns from a stream of pictures, beside its peers."""

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_cl.commands.terminal import Progress, fraction, listed, megabytes, percent, size_bytes, whole_number
from edge_cl.config import MAX_THREADS, MAX_VIEWS
from edge_cl.device import shipped
from edge_cl.errors import ConfigError
from edge_cl.resident import peak_resident_bytes

if TYPE_CHECKING:
    from edge_cl.evaluation.protocols import Noise, Plan, Samples
    from edge_cl.evaluation.trial import Trial
    from edge_cl.sample import FeatureSpace

PROTOCOL_NAMES = ("class-incremental", "domain-incremental", "stream")
EDGE_LEARNERS = ("edge", "base")  # base: the edge learner without its residual
LEARNER_NAMES = (*EDGE_LEARNERS, "ncm", "slda", "ridge", "softmax", "replay", "joint")
MAX_STEPS = 100_000  # SGD steps of one consolidation; a minute on a small board
MAX_UPDATE = 1_000_000  # samples between two consolidations; more than any task here has
MAX_HIDDEN = 65_536  # units; 256 MB of dense weights at D = 1024
MAX_TASKS = 1_000_000  # the protocols refuse far fewer in words of their own
DIGITS = 6  # of accuracies in the result: one picture in a million
CACHE_NAME = "features.db"


def add_parser(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "eval",
        help="measure a learner on your pictures, beside its peers",
        description="Teach DIR/train/CLASS/* once, in tasks, and ask about DIR/test/CLASS/* after each."
        " No state folder is touched.",
    )
    parser.add_argument(
        "--backbone",
        type=Path,
        metavar="FILE",
        help="a .tflite or .onnx image model (default: the small one that ships)",
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="holds train/CLASS/ and test/CLASS/"
    )
    parser.add_argument(
        "--protocol", choices=PROTOCOL_NAMES, default=PROTOCOL_NAMES[0], help="what arrives when"
    )
    parser.add_argument(
        "--tasks", type=whole_number(1, MAX_TASKS), default=1, metavar="N", help="parts of the stream"
    )
    parser.add_argument("--learner", choices=LEARNER_NAMES, default="edge", help="who learns")
    parser.add_argument(
        "--seed", type=whole_number(0, 2**31 - 1), default=0, metavar="S", help="of all that is drawn"
    )
    _add_learner_options(parser)
    parser.add_argument("--threads", type=whole_number(1, MAX_THREADS), default=1, metavar="T",
                        help="of interpreter and matrix products (default: %(default)s)")  # fmt: skip
    parser.add_argument("--cache", type=Path, default=default_cache(), metavar="FILE",
                        help="features by picture and backbone (default: %(default)s)")  # fmt: skip


def _add_learner_options(parser: argparse.ArgumentParser) -> None:
    """Add how the learner is taught; None means as the learner has it."""
    whole = whole_number
    group = parser.add_argument_group("learner")
    add = group.add_argument
    add("--views", type=whole(1, MAX_VIEWS), default=4, metavar="V", help="views taught of a picture (4)")
    add(
        "--predict-views",
        type=whole(1, MAX_VIEWS),
        default=1,
        metavar="P",
        help="views averaged in answers (1)",
    )
    add("--no-mirror", action="store_true", help="left and right differ in meaning")
    add("--buffer-bytes", type=size_bytes, default=4_000_000, metavar="B", help="rehearsal memory (4M)")
    add("--density", type=fraction, metavar="D", help="share of the residual's weights that live")
    add("--hidden", type=whole(1, MAX_HIDDEN), metavar="H", help="hidden units of residual and replay")
    add("--lam", type=share, metavar="L", help="chance that a place in a batch is an old sample")
    add(
        "--steps-per-update",
        type=whole(0, MAX_STEPS),
        default=64,
        metavar="N",
        help="SGD steps after an update (64)",
    )
    add(
        "--update-size", type=whole(1, MAX_UPDATE), default=64, metavar="U", help="pictures of an update (64)"
    )
    add("--label-noise", type=share, default=0.0, metavar="P", help="share of training labels made wrong")


def share(text: str) -> float:
    """Parse a number in [0, 1], for argparse."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in 0..1")
    return value


def default_cache() -> Path:
    """Return where features are cached: under the XDG cache home."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(home) if Path(home).is_absolute() else Path(os.environ.get("HOME") or "~") / ".cache"
    return base.expanduser() / "edge-cl" / CACHE_NAME


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run the trial and return its figures."""
    # Read when numpy is first imported, which nothing has done yet when this is the command line.
    os.environ["OPENBLAS_NUM_THREADS"] = str(args.threads)
    from edge_cl.commands import dataset
    from edge_cl.evaluation.protocols import PROTOCOLS, wrong_labels
    from edge_cl.memory.cache import FeatureCache

    file = shipped.named_or_shipped(args.backbone)
    data = dataset.read_data_set(args.data)
    with (
        dataset.opened_at_embedding(file, args.threads, args.cache.parent / "engines") as backbone,
        FeatureCache(args.cache) as cache,
    ):
        space, kernels = backbone.space, backbone.kernels
        embedder = dataset.Embedder(backbone, cache, max(args.views, args.predict_views), not args.no_mirror)
        with Progress(len(data.train) + len(data.test)) as bar:
            train = embedder.embed(data.train, data.taken, bar.show)
            test = embedder.embed(
                data.test, data.taken, lambda n, words: bar.show(len(data.train) + n, words)
            )
        embed_ms = embedder.probe(data.train)
    plan = PROTOCOLS[args.protocol](train.samples, test.samples, args.tasks, args.seed)
    noise = wrong_labels(train.samples.labels, plan, args.label_noise, args.seed)
    taught = train.samples._replace(labels=noise.labels)
    learner, trial = _try(args, space, plan, taught, test.samples)
    return {
        **_settings(args, file.name, space, kernels, train.samples, test.samples),
        **_figures(learner, trial, embed_ms),
        **_audit(learner, trial, noise, args),
        "flash_bytes_written": _flash_bytes(args, space, learner, trial, taught),
        "peak_rss_bytes": peak_resident_bytes(),
        "refused": [
            {"file": found.name, "reason": found.reason}
            for found in (*data.refused, *train.refused, *test.refused)
        ],
    }


def _try(
    args: argparse.Namespace, space: "FeatureSpace", plan: "Plan", train: "Samples", test: "Samples"
) -> tuple[Any, "Trial"]:
    from edge_cl.evaluation.trial import TrialConfig, run_trial

    learner = make_learner(args, space)
    config = TrialConfig(args.views, args.predict_views, args.update_size, args.steps_per_update)
    alone = base_scores(learner) if args.learner in EDGE_LEARNERS else None
    with Progress(len(train.labels)) as bar:
        return learner, run_trial(learner, plan, train, test, config, time.perf_counter, alone, bar.show)


def make_learner(args: argparse.Namespace, space: "FeatureSpace") -> Any:
    """Return the learner that the options name.

    Raises:
        ConfigError: options that make no sense for it.
    """
    if args.learner not in EDGE_LEARNERS:
        from edge_cl.learning.peers import PEERS, PeerConfig

        asked = {"hidden": args.hidden, "lam": args.lam}
        known = {name: value for name, value in asked.items() if value is not None}
        return PEERS[args.learner](
            space,
            PeerConfig(
                args.views, args.buffer_bytes, steps_per_update=args.steps_per_update, seed=args.seed, **known
            ),
        )
    from edge_cl.learning.learner import EdgeLearner, LearnerConfig
    from edge_cl.learning.residual import ResidualConfig

    asked = {"density": args.density, "hidden": args.hidden}
    network = {name: value for name, value in asked.items() if value is not None}
    options: dict[str, Any] = {} if args.lam is None else {"lam": args.lam}
    try:
        return EdgeLearner(
            space,
            LearnerConfig(
                views=args.views, buffer_bytes=args.buffer_bytes, steps_per_update=args.steps_per_update,
                seed=args.seed, residual=args.learner == "edge",
                network=ResidualConfig(**network),
                **options,
            ),
        )  # fmt: skip
    except ValueError as error:
        raise ConfigError(
            f"these options do not go together ({error}): change --hidden or --buffer-bytes"
        ) from error


def base_scores(learner: Any) -> Any:
    """Return a function that scores (B, V, D) by the edge learner's base alone."""
    from edge_cl.learning.embedding import embed

    return lambda features: learner.base.scores(embed(features, learner.space.zero_point)).mean(axis=1)


def _settings(
    args: argparse.Namespace,
    backbone: str,
    space: "FeatureSpace",
    kernels: str,
    train: "Samples",
    test: "Samples",
) -> dict[str, Any]:
    return {
        "learner": args.learner,
        "protocol": args.protocol,
        "seed": args.seed,
        "tasks": args.tasks,
        "views": args.views,
        "predict_views": args.predict_views,
        "mirror": not args.no_mirror,
        "label_noise": args.label_noise,
        "lam": args.lam,
        "steps_per_update": args.steps_per_update,
        "update_size": args.update_size,
        "buffer_bytes": args.buffer_bytes,
        "threads": args.threads,
        "backbone": {"file": backbone, "space": space.id, "kernels": kernels},
        "classes": len(set(train.labels)),
        "train_pictures": len(train.labels),
        "test_pictures": len(test.labels),
    }


def _figures(learner: Any, trial: "Trial", embed_ms: list[float]) -> dict[str, Any]:
    import numpy as np

    from edge_cl.evaluation import metrics

    final = trial.accuracy_per_task[-1]
    return {
        "accuracy_per_task": [_rounded(value) for value in trial.accuracy_per_task],
        "final_accuracy": _rounded(final),
        "final_accuracy_by_views": {
            str(views): _rounded(value) for views, value in trial.final_by_views.items()
        },
        "base_final_accuracy": _rounded(trial.base_final),
        "average_accuracy": _rounded(metrics.average_accuracy(trial.accuracy_per_task)),
        "forgetting": _rounded(metrics.forgetting(trial.matrix)),
        "backward_transfer": _rounded(metrics.backward_transfer(trial.matrix)),
        "accuracy_matrix": [[_rounded(value) for value in row] for row in trial.matrix],
        "learn_ms_median": _rounded(float(np.median(trial.learn_ms))),
        "consolidate_ms_total": _rounded(sum(trial.consolidate_ms)),
        "answer_ms_total": _rounded(trial.answer_ms),
        "embed_ms_median": _rounded(float(np.median(embed_ms))) if embed_ms else None,
        "state_bytes": {name: int(count) for name, count in learner.state_bytes().items()},
        "density": _rounded(float(learner.density())) if hasattr(learner, "density") else None,
        "chosen": getattr(learner, "chosen", None),
    }


def _audit(learner: Any, trial: "Trial", noise: "Noise", args: argparse.Namespace) -> dict[str, Any]:
    """Return how well the label audit found the wrong labels; nothing for peers and clean labels."""
    if not args.label_noise or args.learner not in EDGE_LEARNERS:
        return {}
    import numpy as np

    arrival = np.concatenate(trial.updates)  # sample id 1 is its first entry
    suspects = [suspect.sample for suspect in learner.suspects()]
    right = sum(bool(noise.wrong[arrival[sample - 1]]) for sample in suspects)
    wrong = int(noise.wrong.sum())
    return {
        "audit": {
            "suspects": len(suspects),
            "wrong_labels": wrong,
            "recall": _rounded(right / wrong) if wrong else None,
            "precision": _rounded(right / len(suspects)) if suspects else None,
        }
    }


def _flash_bytes(
    args: argparse.Namespace, space: "FeatureSpace", learner: Any, trial: "Trial", train: "Samples"
) -> int | None:
    """Return what the device would have written for this: its log, measured, and its checkpoints."""
    if args.learner not in EDGE_LEARNERS:
        return None
    from edge_cl.memory.wear import Teaching, log_bytes

    updates = (
        [Teaching(train.labels[i], train.features[i, : args.views]) for i in update]
        for update in trial.updates
    )
    sizes = [len(update) for update in trial.updates]
    checkpoints = _checkpoints(sizes, args.steps_per_update) * _checkpoint_bytes(learner)
    return log_bytes(space, updates, args.steps_per_update) + checkpoints


def _checkpoints(sizes: list[int], steps: int) -> int:
    """Return how many checkpoints fall due in updates of these sizes, with the one at the end."""
    from edge_cl.device.agent import CHECKPOINT_SAMPLES, CHECKPOINT_STEPS

    due, samples, done = 1, 0, 0
    for size in sizes:
        samples, done = samples + size, done + steps
        if samples >= CHECKPOINT_SAMPLES or done >= CHECKPOINT_STEPS:
            due, samples, done = due + 1, 0, 0
    return due


def _checkpoint_bytes(learner: Any) -> int:
    """Return the size of a checkpoint of the learner as it is; earlier ones were hardly smaller."""
    from edge_cl.wire.tensors import pack

    return len(pack(learner.flatten()))


def _rounded(value: float | None) -> float | None:
    return None if value is None or value != value else round(float(value), DIGITS)


def show(result: dict[str, Any]) -> str:
    """Put the result into words."""
    per_task = " ".join(percent(value) for value in result["accuracy_per_task"])
    lines = [
        f"{result['learner']} on {result['train_pictures']} pictures of {result['classes']} classes,"
        f" {result['protocol']}, {result['tasks']} tasks, seed {result['seed']}",
        f"accuracy after each task: {per_task}",
        f"final {percent(result['final_accuracy'])}, average {percent(result['average_accuracy'])},"
        f" forgetting {percent(result['forgetting'])},"
        f" backward transfer {percent(result['backward_transfer'])}",
    ]
    if result["base_final_accuracy"] is not None:
        lines.append(f"its base alone: {percent(result['base_final_accuracy'])}")
    if "audit" in result:
        audit = result["audit"]
        lines.append(
            f"label audit: {audit['suspects']} suspects, {percent(audit['precision'])} of them rightly;"
            f" {percent(audit['recall'])} of the wrong labels are found"
        )
    lines.append(f"learning one picture: {result['learn_ms_median']:.2f} ms, state: {_state(result)}")
    return "\n".join(lines + listed("not used", (f"{f['file']}: {f['reason']}" for f in result["refused"])))


def _state(result: dict[str, Any]) -> str:
    return ", ".join(f"{name} {megabytes(count)}" for name, count in result["state_bytes"].items() if count)
