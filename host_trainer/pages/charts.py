"""Draws charts as SVG that lies inside a page: it takes the page's colours, and a reader program can read it.

Series are told apart by colour, dashes and a legend in words; each point says its value when pointed at.
"""

from collections.abc import Iterator, Sequence
from math import ceil, floor, isfinite, log10
from typing import NamedTuple

from host_trainer.pages.figures import NONE, Format, plain, shortened, text

WIDTH, HEIGHT = 360, 224  # of a chart's own units: about pixels on a phone
TOP, RIGHT, BOTTOM = 32, 16, 36  # room for names above, the last tick, ticks and name below
CHARACTER = 6.1  # width of one, at the size of ticks
COLOURS = 6  # that the page defines: --s0 ... --s5
DOTS = 30  # a line of more points shows none of them
ROW, BAR, NAMES = 21, 12, 22  # height of a bar's row and of the bar; longest name in characters
TICKS = 5
# Seconds between two ticks that a clock would show: 1 s ... 30 s, 1 min ... 30 min, 1 h ... 1 d.
CLOCK = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 36000, 86400)
FLAT = 1e-9  # a shorter span, as a share of the values, is one value
CLOSE = 6.0  # nearer words on the horizontal axis would run into one another


class Axis(NamedTuple):
    """An axis.

    Attributes:
        name: what it says.
        low, high: its ends where they are fixed; None for a little around the values.
        write: how values are written.
        tick: how its ticks are; None for as values.
        strides: between ticks, where others than 1, 2 and 5 times a power of ten are round.
        logarithmic: equal ratios are equally long.
    """

    name: str
    low: float | None = None
    high: float | None = None
    write: Format = plain
    tick: Format | None = None
    strides: Sequence[float] = ()
    logarithmic: bool = False


class Series(NamedTuple):
    """A named line of (x, y)."""

    name: str
    points: Sequence[tuple[float, float]]


class Mark(NamedTuple):
    """A numbered point: what it stands for, where it is, its colour, and the points it is the mean of."""

    number: int
    name: str
    x: float
    y: float
    colour: int = 0
    around: Sequence[tuple[float, float]] = ()


class _Scale(NamedTuple):
    """Where values lie on the paper: `low` at `start`, `high` at `end`."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool

    def at(self, value: float) -> float:
        """Return the place of a value."""
        low, high = (log10(self.low), log10(self.high)) if self.logarithmic else (self.low, self.high)
        where = log10(value) if self.logarithmic else value
        return self.start + (where - low) / (high - low) * (self.end - self.start)


def line(
    title: str, series: Sequence[Series], x: Axis, y: Axis, ends: Sequence[tuple[float, str]] = ()
) -> str:
    """Return a chart of lines; at each of `ends` (x, name) a part of the run begins."""
    return _lines(title, series, x, y, ends, stairs=False)


def step(
    title: str, series: Sequence[Series], x: Axis, y: Axis, ends: Sequence[tuple[float, str]] = ()
) -> str:
    """Return a chart of values that hold from their x to the next one."""
    return _lines(title, series, x, y, ends, stairs=True)


def scatter(title: str, marks: Sequence[Mark], x: Axis, y: Axis) -> str:
    """Return a chart of numbered points, with the single ones around each."""
    every = [point for mark in marks for point in ((mark.x, mark.y), *mark.around)]
    across, up, grid = _frame(every, x, y)
    drawn = [
        f'<circle class="c{m.colour % COLOURS} near" cx="{across.at(a):.1f}" cy="{up.at(b):.1f}" r="2.5"/>'
        for m in marks
        for a, b in m.around
    ]
    for mark in marks:
        told = text(f"{mark.name}: {x.write(mark.x)}, {y.write(mark.y)}")
        left, top = across.at(mark.x), up.at(mark.y)
        drawn.append(
            f'<g><title>{told}</title><circle class="c{mark.colour % COLOURS} mark" cx="{left:.1f}"'
            f' cy="{top:.1f}"'
            f' r="8"/><text class="number" x="{left:.1f}" y="{top + 3.5:.1f}">{mark.number}</text></g>'
        )
    told = "; ".join(f"{m.number} {m.name}: {x.write(m.x)}, {y.write(m.y)}" for m in marks)
    return _svg(title, told, [*grid, *drawn], HEIGHT)


def bars(title: str, rows: Sequence[tuple[str, float]], axis: Axis) -> str:
    """Return a chart of named horizontal bars from zero, each with its value."""
    high = axis.high if axis.high is not None else max([value for _, value in rows], default=0.0) or 1.0
    start = 8 + CHARACTER * max([min(len(name), NAMES) for name, _ in rows], default=0)
    room = WIDTH - start - 8 - CHARACTER * max([len(axis.write(value)) for _, value in rows], default=0)
    drawn = []
    for at, (name, value) in enumerate(rows):
        top, length = at * ROW + 4, max(0.0, value / high * room)
        middle = top + BAR / 2 + 4
        drawn.append(
            f"<g><title>{text(name)}: {text(axis.write(value))}</title>"
            f'<text class="name" x="{start - 6:.1f}" y="{middle:.1f}">{text(shortened(name, NAMES))}</text>'
            f'<rect class="c0" x="{start:.1f}" y="{top}" width="{length:.1f}" height="{BAR}" rx="2"/>'
            f'<text class="value" x="{start + length + 5:.1f}" y="{middle:.1f}">'
            f"{text(axis.write(value))}</text></g>"
        )
    told = f"{axis.name}: " + "; ".join(f"{name} {axis.write(value)}" for name, value in rows)
    return _svg(title, told, drawn, len(rows) * ROW + 6)


def heat(
    title: str,
    corner: str,
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Sequence[Sequence[float | None]],
) -> str:
    """Return a table of shares, each cell as deep in colour as its value; None is a dash."""
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in columns)
    body = "".join(
        f'<tr><th scope="row">{text(name)}</th>{"".join(map(_cell, values))}</tr>'
        for name, values in zip(rows, cells, strict=True)
    )
    return (
        f'<div class="wide"><table class="heat"><caption>{text(title)}</caption>'
        f'<thead><tr><th scope="col">{text(corner)}</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]], words: bool = False) -> str:
    """Return a table; the first cell of a row names it. One of `words` is aligned to the left."""
    caption = f"<caption>{text(title)}</caption>" if title else ""
    top = "".join(f'<th scope="col">{text(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{text(first)}</th>{"".join(f"<td>{text(value)}</td>" for value in rest)}</tr>'
        for first, *rest in rows
    )
    kind = ' class="words"' if words else ""
    return (
        f'<div class="wide"><table{kind}>{caption}<thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def ticks(low: float, high: float, strides: Sequence[float] = (), logarithmic: bool = False) -> list[float]:
    """Return round values between two ends: steps of 1, 2 or 5 times a power of ten, or of given strides."""
    if logarithmic and strides:
        return [one for one in strides if low <= one <= high]
    if logarithmic:
        powers = range(floor(log10(low)), ceil(log10(high)) + 1)
        return [v for p in powers for v in (10.0**p, 2 * 10.0**p, 5 * 10.0**p) if low <= v <= high]
    raw = (high - low) / TICKS
    power = 10.0 ** floor(log10(raw))
    usual = [power * factor for factor in (1, 2, 5, 10)]
    given = strides if strides and strides[0] <= raw <= strides[-1] else usual
    stride = next(one for one in given if one >= raw * 0.999)
    first = ceil(low / stride - 1e-9)
    return [at * stride for at in range(first, floor(high / stride + 1e-9) + 1)]


def _lines(
    title: str, series: Sequence[Series], x: Axis, y: Axis, ends: Sequence[tuple[float, str]], stairs: bool
) -> str:
    across, up, grid = _frame([point for one in series for point in one.points], x, y)
    bounds = [_bound(across.at(at), name) for at, name in ends]
    drawn = [part for at, one in enumerate(series) for part in _line(at, one, x, y, across, up, stairs)]
    told = "; ".join(_told(one, y) for one in series)
    return _legend(series) + _svg(title, f"{y.name} by {x.name}. {told}", [*grid, *bounds, *drawn], HEIGHT)


def _line(
    at: int, series: Series, x: Axis, y: Axis, across: _Scale, up: _Scale, stairs: bool
) -> Iterator[str]:
    places = [(across.at(a), up.at(b)) for a, b in series.points]
    if stairs and places:
        places = [
            p for one, two in zip(places, places[1:], strict=False) for p in (one, (two[0], one[1]))
        ] + places[-1:]
    path = " ".join(f"{left:.1f},{top:.1f}" for left, top in places)
    yield f'<polyline class="l{at % COLOURS}" points="{path}"/>'
    kind, radius = ("unseen", 6) if stairs else (f"c{at % COLOURS}", 3)  # stairs only say their values
    for a, b in series.points if len(series.points) <= DOTS else ():
        told = text(f"{series.name}: {x.name} {x.write(a)}, {y.write(b)}")
        place = f'cx="{across.at(a):.1f}" cy="{up.at(b):.1f}"'
        yield f'<circle class="{kind}" {place} r="{radius}"><title>{told}</title></circle>'


def _frame(values: Sequence[tuple[float, float]], x: Axis, y: Axis) -> tuple[_Scale, _Scale, list[str]]:
    """Return the scales of both axes, and the grid that is drawn below the data."""
    if not all(isfinite(number) for point in values for number in point):
        raise ValueError("a chart takes finite numbers only")
    low, high = _ends([b for _, b in values], y)
    up = _Scale(low, high, HEIGHT - BOTTOM, TOP, y.logarithmic)
    labels = _labels(up, y)
    left = 10 + CHARACTER * max([len(label) for _, label in labels], default=0)
    across = _Scale(*_ends([a for a, _ in values], x), left, WIDTH - RIGHT, x.logarithmic)
    grid = [
        f'<line class="rule" x1="{left:.1f}" x2="{WIDTH - RIGHT}" y1="{up.at(v):.1f}" y2="{up.at(v):.1f}"/>'
        f'<text class="tick up" x="{left - 5:.1f}" y="{up.at(v) + 4:.1f}">{text(label)}</text>'
        for v, label in labels
    ]
    grid += [
        f'<text class="tick" x="{across.at(v):.1f}" y="{HEIGHT - BOTTOM + 15}">{text(label)}</text>'
        for v, label in _apart(across, _labels(across, x))
    ]
    floor = HEIGHT - BOTTOM
    base = f'<line class="axis" x1="{left:.1f}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>'
    names = (
        f'<text class="of up" x="{WIDTH - RIGHT}" y="{HEIGHT - 5}">{text(x.name)}</text>'
        f'<text class="of" x="2" y="11">{text(y.name)}</text>'
    )
    return across, up, [*grid, base, names]


def _labels(scale: _Scale, axis: Axis) -> list[tuple[float, str]]:
    write = axis.tick or axis.write
    found = ticks(scale.low, scale.high, axis.strides, scale.logarithmic)
    return [(value, label) for value in found if (label := write(value))]


def _apart(scale: _Scale, labels: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Return the labels of the horizontal axis that do not touch one another."""
    shown: list[tuple[float, str]] = []
    free = -CLOSE
    for value, label in labels:
        half = CHARACTER * len(label) / 2
        if scale.at(value) - half > free + CLOSE:
            shown.append((value, label))
            free = scale.at(value) + half
    return shown


def _ends(values: Sequence[float], axis: Axis) -> tuple[float, float]:
    """Return where an axis begins and ends: as fixed, else a little around its values."""
    if axis.logarithmic:
        known = [value for value in values if value > 0] or [1.0]
        return axis.low or min(known) / 1.4, axis.high or max(known) * 1.4
    least, most = min(values, default=0.0), max(values, default=1.0)
    spare = (most - least) * 0.06
    low = axis.low if axis.low is not None else least - spare
    high = axis.high if axis.high is not None else most + spare
    if high - low > FLAT * max(abs(low), abs(high), 1.0):
        return low, high
    room = abs(low) if abs(low) > FLAT else 1.0
    return (low, low + room) if axis.low is not None else (low - room / 2, low + room / 2)


def _bound(left: float, name: str) -> str:
    return (
        f'<line class="bound" x1="{left:.1f}" x2="{left:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text class="part" x="{left + 2:.1f}" y="{TOP - 4}">{text(name)}</text>'
    )


def _told(series: Series, y: Axis) -> str:
    if not series.points:
        return f"{series.name}: no values"
    first, last = series.points[0][1], series.points[-1][1]
    values = [value for _, value in series.points]
    return (
        f"{series.name}: from {y.write(first)} to {y.write(last)},"
        f" least {y.write(min(values))}, most {y.write(max(values))}"
    )


def _legend(series: Sequence[Series]) -> str:
    if len(series) < 2:
        return ""
    items = "".join(
        f'<li><svg viewBox="0 0 22 8" width="22" height="8" aria-hidden="true"><line class="l{at % COLOURS}"'
        f' x1="0" x2="22" y1="4" y2="4"/></svg>{text(one.name)}</li>'
        for at, one in enumerate(series)
    )
    return f'<ul class="legend">{items}</ul>'


def _cell(share: float | None) -> str:
    if share is None:
        return f'<td class="none">{NONE}</td>'
    depth = 0.55 * min(max(share, 0.0), 1.0)  # deeper would leave the number without contrast
    return f'<td style="background:rgba(60,130,220,{depth:.3f})">{100 * share:.1f}</td>'


def _svg(title: str, told: str, parts: Sequence[str], height: float) -> str:
    return (
        f'<svg class="chart" role="img" viewBox="0 0 {WIDTH} {height}">'
        f"<title>{text(title)}</title><desc>{text(told)}</desc>{''.join(parts)}</svg>"
    )
