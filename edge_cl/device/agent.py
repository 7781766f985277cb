"""The shell that owns store, learner and backbone: every change passes through the log before it counts.

    picture -> embed -> store.append (the acknowledgement) -> learner.learn_one -> consolidate -> checkpoint

What the learner knows is a fold of the log, `replay`; a checkpoint only shortens it. This module touches the
world through the store, the installer, the frame reader and `Timings`. `opening` makes an agent.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_cl.config import Settings
from edge_cl.device import install
from edge_cl.device.folders import Picture
from edge_cl.device.installation.lent import exemplar_features
from edge_cl.device.replay import replay, spelling
from edge_cl.device.staged import learner_config, open_staged
from edge_cl.device.teaching import Run, Seen, Taught, hash_of
from edge_cl.device.timings import Timings
from edge_cl.errors import ConfigError, EngineError, InputError, LabelError, MismatchError
from edge_cl.learning.learner import EdgeLearner, LearnerConfig, never
from edge_cl.learning.report import Report
from edge_cl.memory.store import Event, EventKind, SampleInfo, Sizes, Store
from edge_cl.sample import FeatureSpace, Prediction, clean_label, label_key
from edge_cl.vision.backbone import Backbone, Manifest
from edge_cl.vision.frames import decode_image, read_bytes
from edge_cl.vision.preprocess import views

if TYPE_CHECKING:
    from edge_cl.device.installation.probation import Watch

UPDATE_SAMPLES = 64  # taught between two consolidations; LearnerConfig.steps_per_update is chosen for it
CHECKPOINT_SAMPLES = 1_024  # taught between two checkpoints: one writes 2 to 9 MB of flash
CHECKPOINT_STEPS = 16_384  # SGD steps between two checkpoints: replaying more takes seconds on a small board
CLOSING_UPDATES = (
    4  # consolidations not in a checkpoint at the end; replaying one takes seconds on a small board
)


class Shown(NamedTuple):
    """A picture of the store: sample id, label, file name; `is_live` while its features are kept."""

    sample: int
    label: str
    source: str
    is_live: bool


class Agent:
    """A learner at work on one state folder; made by `opening.open_agent`. One thread at a time.

    Attributes:
        folder: the state folder.
        settings: of its config.toml, with what the caller overrode.
        learner: knows what the log says; change it only through the agent.
        store: the log.
        timings: where the time went so far.
        notes: what a person should know about how opening went, a line each.
        taken: the newest statistics of this device that the release in use has; None: none.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        store: Store,
        backbone: Backbone | None,
        manifest: Manifest,
        current: install.Current,
        loaded: install.Loaded | None,
        watch: "Watch | None",
        reopen: Callable[[install.Life], "Agent"],
    ) -> None:
        self.folder, self.settings, self.store = folder, settings, store
        self.timings = Timings()
        self.notes: list[str] = []
        self.taken: str | None = None
        self._backbone, self._manifest, self._life = backbone, manifest, current.life
        self._fallback, self._watch, self._reopen = current.fallback, watch, reopen
        self._twin: Backbone | None = None
        self._pending: list[Event] = []  # of no value to the person who teaches: written with the next commit
        self._newest: dict[str, Any] | None = None  # header of the checkpoint in use
        self._needed: list[dict[str, Any] | None] = [None]  # of the one before it, and those of the fallback
        self._samples_since = self._steps_since = self._updates_since = 0  # since the last checkpoint
        self._unconsolidated = 0
        self.learner, seq = self._from_checkpoint(loaded, learner_config(settings))
        self._replay_after(seq)

    def __enter__(self) -> "Agent":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.save()
        finally:
            self.close()

    # -- teaching ----------------------------------------------------------------------------------------

    def teach(
        self,
        pictures: Iterable[Picture],
        *,
        views: int | None = None,
        mirror: bool | None = None,
        steps: int | None = None,
        overrule: bool = False,
        should_stop: Callable[[], bool] = never,
        watch: Callable[[Taught, Picture], None] = lambda taught, picture: None,
    ) -> Taught:
        """Teach pictures in order: each is acknowledged within a commit of COMMIT_ROWS, and usable at once.

        A picture that was taught before under this label is skipped; under another label it is relabelled,
        unless a person has relabelled it since and `overrule` is not set. A picture that comes twice here
        under two labels keeps the first. Consolidates after every UPDATE_SAMPLES, and at the end.

        Arguments:
            views: made of each picture, at most the learner's; None takes the learner's.
            mirror: whether a mirrored picture means the same; None takes the setting.
            steps: SGD steps of a consolidation; None takes the learner's.
            overrule: these labels are a person's latest word.
            should_stop: asked before each picture and between steps; what was seen so far is kept.
            watch: called after each picture.

        Raises:
            StoreError: the storage refuses; what was acknowledged before is kept.
            EngineError: the engine failed, or fell back to another kind of features.
        """
        run = Run(self, self._view_count(views), self._mirror(mirror), overrule)
        with self._watch.guarded() if self._watch else contextlib.nullcontext():
            for picture in pictures:
                if should_stop():
                    run.taught.was_stopped = True
                    break
                run.take(picture)
                if self._unconsolidated + len(run.batch) >= UPDATE_SAMPLES:
                    run.keep()
                    run.taught.steps += self.consolidate(steps, should_stop)
                watch(run.taught, picture)
            run.keep()
        if self._unconsolidated and not should_stop():
            run.taught.steps += self.consolidate(steps, should_stop)
        run.taught.was_stopped |= should_stop()
        return run.taught

    def consolidate(self, steps: int | None = None, should_stop: Callable[[], bool] = never) -> int:
        """Rehearse and return the SGD steps really done; logged with the next commit."""
        with self.timings.count("consolidate_ms"):
            done = self.learner.consolidate(steps, should_stop).steps
        self._pending.append(Event(0, EventKind.CONSOLIDATE, amount=done))
        self._unconsolidated = 0
        self._steps_since += done
        self._updates_since += 1
        self._checkpoint_if_due()
        return done

    def relabel(self, sample: int, label: str, by: str = "") -> str:
        """Correct the label of a sample, or confirm it; return the label it had.

        `by` names who says so, where it is nobody here: such a label is not a person's word on this device.

        Raises:
            InputError: no such sample, or its features have left the memory.
            LabelError: the class cannot have that name.
        """
        name = self.spelling(label)
        known = self.known(sample)
        if not known.is_live:
            raise InputError(
                f"sample {sample} ({known.source}) has left the memory: teach the picture again with"
                f" `edge-cl learn --label {name} FILE`"
            )
        self._commit([Event(0, EventKind.RELABEL, sample, name, source=by)])
        self.learner.relabel(sample, name)
        self._samples[sample] = self._samples[sample]._replace(label=name)
        if not by:
            self._relabelled.add(sample)
        self._unconsolidated += 1
        return known.label

    def rename_class(self, label: str, into: str) -> None:
        """Call a class by another name, with all that was ever taught of it; two of one name become one.

        Raises:
            LabelError: no such class, or no class can have that name.
        """
        name, new = self.taught_label(label), clean_label(into)
        if label_key(name) != label_key(new):
            new = self.spelling(new)
        self._commit([Event(0, EventKind.RENAME, label=name, source=new)])
        self.learner.rename_label(name, new)
        self._unconsolidated += 1
        for known in list(self._samples.values()):
            if label_key(known.label) == label_key(name):
                self._samples[known.sample] = known._replace(label=new)

    def forget(self, samples: Iterable[int] = (), *, label: str | None = None) -> tuple[int, int]:
        """Forget samples, or a whole class, in the learner and on the storage; return (exact, approximate).

        Approximate are samples whose features had left the memory: their class's sums keep a trace of them,
        unless the whole class goes.

        Raises:
            InputError: no such sample.
            LabelError: no such class.
        """
        chosen = {sample: self.known(sample) for sample in samples}
        events = [Event(0, EventKind.FORGET_SAMPLE, sample) for sample in chosen]
        if label is not None:
            name = self.taught_label(label)
            events.append(Event(0, EventKind.FORGET_CLASS, label=name))
            chosen |= {known.sample: known for known in self.samples() if known.label == name}
        self._commit(events, erase=chosen)
        done = [self._forget(event) for event in events]
        self._erase()
        return sum(exact for exact, _ in done), sum(approximate for _, approximate in done)

    def save(self) -> None:
        """Write down what waits for the next commit, and a checkpoint when one is due."""
        if not self.store.is_read_only:
            self._commit([])
            if self._updates_since >= CLOSING_UPDATES:
                self.checkpoint()
                self._commit([])

    def checkpoint(self) -> None:
        """Write what the learner knows, so that opening need not replay what came before."""
        with self.timings.count("checkpoint_ms"):
            # A checkpoint holds what is derived solved anew; the log says so, for who replays past it.
            self._commit([Event(0, EventKind.REFRESH)])
            tensors = self.learner.flatten()
            name = install.save_checkpoint(self.folder, tensors, self._header())
            install.point_to(self.folder, checkpoint=name)
            self._needed[0], self._newest = self._newest, self._header()
            self._samples_since = self._steps_since = self._updates_since = 0
            self._clean()
            # Settling twice is settling once; this entry carries the bytes that the checkpoint has written.
            self._pending.append(Event(0, EventKind.REFRESH))

    def close(self) -> None:
        """Close files and engine; what was not saved is replayed or lost, as after a pulled plug."""
        self.store.close()
        for backbone in (self._backbone, self._twin):
            if backbone is not None:
                backbone.close()

    # -- asking ------------------------------------------------------------------------------------------

    def answer(self, path: Path, views: int = 1, mirror: bool | None = None) -> Prediction:
        """Answer a picture file; several views are averaged.

        Raises:
            ImageError: the picture cannot be read.
        """
        latency_us: list[int] = []
        with self._watch.answering(latency_us) if self._watch else contextlib.nullcontext():
            before = self.timings.embed_ms
            features, _ = self.embed_picture(read_bytes(path), path.name, views, self._mirror(mirror))
            latency_us.append(round(1000 * (self.timings.embed_ms - before) / len(features)))
            return self.learner.predict_one(features)

    def report(self) -> Report:
        """Return what the learner knows about itself."""
        return self.learner.report()

    def report_before_learning(self) -> float:
        """Return the running share of right answers before learning; -1 before there is one."""
        progress = self.learner.progress
        seen = float(progress.seen.sum())
        return float(progress.right.sum()) / seen if seen else -1.0

    def samples(self) -> list[Shown]:
        """Return every remembered sample in the order of teaching."""
        live = self.learner.live_samples()
        return [
            Shown(known.sample, spelling(self.learner, known.label), known.source, known.sample in live)
            for known in self._samples.values()
        ]

    def known(self, sample: int) -> Shown:
        """Return one remembered sample.

        Raises:
            InputError: there is none of that id.
        """
        info = self._samples.get(sample)
        if info is None:
            raise InputError(f"there is no sample {sample}: `edge-cl status` lists those that matter")
        is_live = sample in self.learner.live_samples()
        return Shown(sample, spelling(self.learner, info.label), info.source, is_live)

    def find(self, path: Path) -> Shown:
        """Return the sample that was taught from this very picture.

        Raises:
            ImageError: the file cannot be read.
            InputError: it was never taught.
        """
        sample = self._by_hash.get(hash_of(read_bytes(path)))
        if sample is None:
            raise InputError(f"{path.name} was never taught here: teach it with `edge-cl learn --label`")
        return self.known(sample)

    def sample_of(self, image_hash: bytes) -> int | None:
        """Return the sample that was taught from the picture of this hash."""
        return self._by_hash.get(image_hash)

    def is_corrected(self, sample: int) -> bool:
        """Tell whether the sample was relabelled, or its label confirmed, after it was taught."""
        return sample in self._relabelled

    def spelling(self, label: str) -> str:
        """Return the name of a class as it was first taught; a clean new name when it was not.

        Raises:
            LabelError: no class can have that name.
        """
        return spelling(self.learner, clean_label(label))

    def sizes(self) -> Sizes:
        """Measure the store."""
        return self.store.sizes()

    @property
    def space(self) -> FeatureSpace:
        """Which features are kept here."""
        return self.store.space

    @property
    def bundle(self) -> str:
        """Hash of the bundle in use."""
        return self._life.bundle or ""

    # -- opening -----------------------------------------------------------------------------------------

    def _from_checkpoint(
        self, loaded: install.Loaded | None, config: LearnerConfig
    ) -> tuple[EdgeLearner, int]:
        """Return the learner of a checkpoint, and the position in the log that it stands for."""
        if loaded is None:
            return EdgeLearner(self.space, config), 0
        self._check_header(loaded.header, config)
        self._newest = loaded.header
        self.taken = loaded.header.get("taken")
        features = self._remembered(loaded.header["live"], config.views)
        return EdgeLearner.restore(self.space, config, loaded.tensors, features), int(loaded.header["seq"])

    def _remembered(self, live: Sequence[int], views: int) -> dict[int, NDArray[Any]]:
        """Return the (V, D) features of samples, taught here or lent by the release in use."""
        taught = [sample for sample in live if sample > 0]
        kept = self.store.features(taught)
        lost = len(taught) - len(kept)
        self.notes += [f"{lost} remembered samples are lost with the damaged database"] if lost else []
        # The log keeps the views that were taught; the learner repeats them in turn, as when it learned them.
        whole = {sample: found[np.arange(views) % len(found)] for sample, found in kept.items()}
        if len(taught) < len(live):
            whole |= exemplar_features(self.folder, self._life.bundle, views)
        return whole

    def _replay_after(self, seq: int) -> None:
        """Fold in what happened since the checkpoint, and read who is who."""
        found = replay(self.learner, self.store.events_after(seq))
        header = self._newest or {}
        self._samples_since, self._steps_since = found.samples, found.steps
        self._updates_since = found.updates
        before = 0 if found.updates else int(header.get("unconsolidated", 0))
        self._unconsolidated = before + found.unconsolidated
        self._relabelled = set(found.relabelled) | set(header.get("relabelled", []))
        self._samples: dict[int, SampleInfo] = {info.sample: info for info in self.store.samples()}
        self._by_hash = {info.image_hash: info.sample for info in self._samples.values()}
        if self.store.dropped:
            self.notes.append(f"{self.store.dropped} samples taught since the last checkpoint are damaged")

    def put_in_order(self) -> None:
        """Finish what an interrupted run left half done."""
        salvage = self.store.salvage
        if salvage is not None:
            self.notes.append(
                f"the database was damaged: {salvage.rows_kept} rows were saved,"
                f" {salvage.rows_lost} are lost; the damaged one is kept as {salvage.aside}"
            )
        if self._newest is not None:
            self.store.skip_to(int(self._newest["seq"]) + 1, int(self._newest["next_sample"]))
        install.tidy(self.folder)
        self._needed = [each.header if each else None for each in install.load_others(self.folder)]
        if self.store.erasures():
            self._erase()
        self._clean()

    def _check_header(self, header: Mapping[str, Any], config: LearnerConfig) -> None:
        if header["space"] != self.space.id:
            raise MismatchError(
                f"{self.folder} was taught with backbone {header['space']}, not {self.space.id}:"
                " use that backbone, or choose another --state"
            )
        if header["config"] != _plain(config):
            raise ConfigError(
                f"[learner] in {self.folder}/config.toml is not what this learner was taught with: put it"
                " back, or `edge-cl init` another --state"
            )

    def _clean(self) -> None:
        """Give up features that no checkpoint needs; none while one to return to is missing."""
        headers = [header for header in (self._newest, *self._needed) if header is not None]
        if len(headers) == 1 + len(self._needed):
            live = {sample for header in headers for sample in header["live"]}
            self.store.clean(live, min(int(header["seq"]) for header in headers))

    # -- keeping -----------------------------------------------------------------------------------------

    def _commit(self, events: Iterable[Event], erase: Iterable[int] = ()) -> None:
        """Append what is pending, then these events; numbers them."""
        waiting = [*self._pending, *events]
        if not waiting:
            return
        start = self.store.next_seq
        with self.timings.count("store_ms"):
            numbered = [event._replace(seq=start + i) for i, event in enumerate(waiting)]
            self.store.append(numbered, erase=erase)
        self._pending = []

    def keep(self, batch: Iterable[Seen], taught: Taught) -> None:
        """Acknowledge a batch, then learn it."""
        first = self.store.next_sample
        events = [
            Event(0, EventKind.TEACH, first + i, seen.label, 0, *seen[1:4], seen.source, seen.jpeg, seen.twin)
            for i, seen in enumerate(batch)
        ]
        if not events:
            return
        self._commit(events)
        judged, right = taught.judged, taught.right
        with self.timings.count("learn_ms"):
            for event in events:
                self._learn(event, taught)
        if self._watch is not None:
            self._watch.judged(taught.judged - judged, taught.right - right)
        self._checkpoint_if_due()

    def _learn(self, event: Event, taught: Taught) -> None:
        assert event.features is not None
        lesson = self.learner.learn_one(event.features, event.label, event.sample)
        taught.learned[lesson.label] += 1
        if lesson.correct is not None:
            taught.judged, taught.right = taught.judged + 1, taught.right + lesson.correct
        self._samples_since += 1
        self._unconsolidated += 1
        self._samples[event.sample] = SampleInfo(
            event.sample, 0, event.label, event.image_hash, event.session, event.source, len(event.features)
        )
        self._by_hash[event.image_hash] = event.sample

    def _checkpoint_if_due(self) -> None:
        if self._samples_since >= CHECKPOINT_SAMPLES or self._steps_since >= CHECKPOINT_STEPS:
            self.checkpoint()

    def secure(self) -> None:
        """Make sure that two checkpoints of this life are whole: it can be returned to from then on."""
        self._commit([])
        while self._newest is None or self._needed[0] is None:
            self.checkpoint()

    def header(self, learner: EdgeLearner, taken: str | None) -> dict[str, Any]:
        """Return the header of a checkpoint of a learner that stands where the log ends, rehearsed."""
        live = learner.live_samples()
        return {
            "seq": self.store.next_seq - 1,
            "next_sample": self.store.next_sample,
            "live": sorted(live),
            "space": learner.space.id,
            "config": _plain(learner.config),
            "unconsolidated": 0,
            "relabelled": sorted(self._relabelled & live),
            "taken": taken,
        }

    def _header(self) -> dict[str, Any]:
        return {**self.header(self.learner, self.taken), "unconsolidated": self._unconsolidated}

    def taught_label(self, label: str) -> str:
        """Return the name of a class as it was first taught.

        Raises:
            LabelError: there is no such class.
        """
        name = self.spelling(label)
        if name not in self.learner.labels:
            raise LabelError(f"there is no class {name!r}: `edge-cl status` lists them")
        return name

    def _forget(self, event: Event) -> tuple[int, int]:
        if event.kind is EventKind.FORGET_CLASS:
            found = self.learner.forget_label(event.label)
        else:
            found = self.learner.forget_sample(event.sample)
        return found.exact, found.approximate

    def _erase(self) -> None:
        """Destroy what was forgotten, once no checkpoint that may be returned to knows it."""
        gone = self.store.erasures()
        self.checkpoint()
        self.checkpoint()
        self._renew_fallback()
        events = self.store.events_after(0)
        labels = {event.label for event in events if event.kind is EventKind.FORGET_CLASS}
        self.store.forget(gone, labels=labels)
        for sample in gone:
            info = self._samples.pop(sample, None)
            if info is not None and self._by_hash.get(info.image_hash) == sample:
                del self._by_hash[info.image_hash]

    def _renew_fallback(self) -> None:
        """Let what may be returned to forget what was forgotten here: move its checkpoints to now."""
        if self._fallback is None:
            return
        with contextlib.closing(self._reopen(self._fallback)) as other:
            tensors, header = other.learner.flatten(), other._header()
        names = [install.save_checkpoint(self.folder, tensors, header) for _ in range(2)]
        self._fallback = install.renew_fallback(self.folder, (names[1], names[0])).fallback
        self._needed[1:] = [header, header]

    # -- seeing ------------------------------------------------------------------------------------------

    def embed_picture(
        self, data: bytes, name: str, count: int, mirror: bool
    ) -> tuple[NDArray[Any], Image.Image]:
        """Return (V, D) features of a picture's bytes, and the picture."""
        backbone = self._backbone
        if backbone is None:
            raise RuntimeError("the agent was opened without its backbone")
        with self.timings.count("decode_ms"):
            image = decode_image(data, name)
        with self.timings.count("prepare_ms"):
            pixels = views(image, count, backbone.input_size, backbone.policy, mirror)
        with self.timings.count("embed_ms"):
            features = backbone.embed_many(pixels)
        if backbone.space.id != self.space.id:
            raise EngineError(
                f"the engine failed ({backbone.fallback_reason}) and the CPU took over:"
                " its features differ; start again with the accelerator, or teach a new --state without it"
            )
        return features, image

    def embed_twin(self, image: Image.Image, count: int, mirror: bool) -> NDArray[Any] | None:
        """Return (V, D) features of the space that may be returned to; None where there is none.

        While a release with another backbone is on probation, what is taught is kept in both spaces.
        """
        wanted, life = self.store.other_space, self._fallback
        if wanted is None or life is None or life.bundle is None:
            return None
        if self._twin is None:
            self._twin = open_staged(self.folder, self.settings, life.bundle)
        twin = self._twin
        with self.timings.count("embed_ms"):
            return twin.embed_many(views(image, count, twin.input_size, twin.policy, mirror))

    def _mirror(self, asked: bool | None) -> bool:
        return self._manifest.mirror and self.settings.teaching.mirror if asked is None else asked

    def _view_count(self, asked: int | None) -> int:
        most = self.learner.config.views
        if asked is not None and not 1 <= asked <= most:
            raise ConfigError(
                f"this learner keeps {most} views of a picture, not {asked}: give --views 1..{most}"
            )
        return asked or most


def _plain(config: LearnerConfig) -> dict[str, Any]:
    """Return a configuration as it reads back from JSON."""
    return dict(json.loads(json.dumps(config.to_dict())))
