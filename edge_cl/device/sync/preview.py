"""Says in plain values what would leave this device, by class and content, and what would not, and why."""

from collections import Counter
from typing import Any

from edge_cl.device.sync.disclosure import TOLD, Verdict
from edge_cl.device.sync.knowledge import Knowledge
from edge_cl.device.sync.loading import Load
from edge_cl.wire.codec import encode
from edge_cl.wire.messages import FEATURES, IMAGES, Statistics

COUNT_BYTES = 8  # of a class's count


def preview(load: Load, known: Knowledge) -> dict[str, Any]:
    """Return what a load tells: {"classes": [...], "contents": [...], ...}, JSON's values only."""
    pieces = {level: _by_class(load, known, level) for level in (FEATURES, IMAGES)}
    spoken = load.statistics
    return {
        "level": load.level,
        "classes": [_class(each, spoken, pieces) for each in load.verdicts],
        "spread_bytes": 0 if spoken is None else _spread_bytes(spoken),
        "withdrawn_samples": list(load.withdrawn),
        "contents": [
            {"id": each.id, "level": each.level, "size_bytes": each.size} for each in load.contents()
        ],
        "size_bytes": sum(each.size for each in load.contents()),
        "packed_statistics_bytes": 0 if spoken is None else len(encode(spoken)),
        "waiting": [{"level": level, "samples": samples} for level, samples in load.waiting],
    }


def nothing(level: str) -> dict[str, Any]:
    """Return what `preview` says where nothing was taught yet."""
    return {
        "level": level,
        "classes": [],
        "spread_bytes": 0,
        "withdrawn_samples": [],
        "contents": [],
        "size_bytes": 0,
        "packed_statistics_bytes": 0,
        "waiting": [],
    }


def _class(each: Verdict, spoken: Statistics | None, pieces: dict[str, Any]) -> dict[str, Any]:
    is_spoken = spoken is not None and each.label in spoken.labels
    sums = 0 if spoken is None else spoken.sums.shape[1] * spoken.sums.dtype.itemsize
    counts = {level: found.get(each.label, (0, 0)) for level, found in pieces.items()}
    return {
        "label": each.label,
        "level": each.level,
        "samples": each.samples,
        "told_before": each.told,
        "verdict": each.word,
        "statistics_bytes": sums + COUNT_BYTES + len(each.label.encode()) if is_spoken else 0,
        "features": counts[FEATURES][0],
        "features_bytes": counts[FEATURES][1],
        "images": counts[IMAGES][0],
        "images_bytes": counts[IMAGES][1],
    }


def _spread_bytes(spoken: Statistics) -> int:
    return spoken.factors.nbytes + spoken.weights.nbytes + spoken.spread.nbytes


def _by_class(load: Load, known: Knowledge, level: str) -> dict[str, tuple[int, int]]:
    """Return {label: (samples, bytes about)} of what goes at a level."""
    sizes = {each.sample: each for each in known.held}
    samples: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for _, size, parcel in load.fresh:
        if parcel.level == level:
            share = size // max(1, len(parcel.samples))
            for sample, label in parcel.samples:
                samples[label] += 1
                count[label] += share if level == FEATURES else sizes[sample].picture_bytes
    return {label: (samples[label], count[label]) for label in samples}


def words(found: dict[str, Any]) -> list[str]:
    """Put what `preview` returns about classes into a line each."""
    return [f"{each['label']}: {_words(each)}" for each in found["classes"]]


def _words(each: dict[str, Any]) -> str:
    has_news = each["verdict"] == TOLD
    parts = [_VERDICTS[each["verdict"]].format(**each)]
    if has_news:
        parts[0] += f" ({each['statistics_bytes']} bytes)"
    for level in ("features", "images"):
        if each[level]:
            parts.append(f"{level} of {each[level]} samples ({each[f'{level}_bytes']} bytes)")
    return ", ".join(parts)


_VERDICTS = {
    "told": "count and mean of {samples} samples",
    "unchanged": "nothing new",
    "waits": "nothing yet: too few new samples to hide each other",
    "too few": "nothing: {samples} samples do not hide each other yet",
    "private": "nothing: private",
    "taken back": "what was told is taken back",
}
