"""What a field of a record may hold, checked in the same way when it is made here and when it is read.

A record is a frozen dataclass; each annotation carries a `Kind`, so that the dataclass is the whole format:

    @dataclass(frozen=True)
    class Greet(Record):
        device: Name
        samples: Count
"""

import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np

from edge_cl.errors import LabelError, ProtocolError
from edge_cl.sample import clean_label

MAX_COUNT = 2**53 - 1  # the largest whole number that every JSON reader keeps

R = TypeVar("R", bound="Record")


class Kind:
    """Says which values a field may hold and how they stand in JSON.

    `check` raises ValueError; `to_plain` and `from_plain` go to JSON values and back, unchecked.
    """

    in_header = True  # False: the value travels in the body

    def check(self, value: Any, name: str) -> None:
        """Raise ValueError when the field `name` may not hold the value."""
        raise NotImplementedError

    def to_plain(self, value: Any) -> Any:
        """Return the value as JSON can hold it."""
        return value

    def from_plain(self, plain: Any) -> Any:
        """Return the value that `to_plain` was given; ValueError when the shape is another."""
        return plain


@dataclass(frozen=True)
class Text(Kind):
    """A text that fully matches a pattern."""

    pattern: str

    def check(self, value: Any, name: str) -> None:
        """See `Kind`."""
        if type(value) is not str or not re.fullmatch(self.pattern, value, re.ASCII):
            raise ValueError(f"{name} is not a text of the form {self.pattern}")


@dataclass(frozen=True)
class LabelText(Kind):
    """A class name as `clean_label` returns it."""

    def check(self, value: Any, name: str) -> None:
        """See `Kind`."""
        try:
            is_clean = type(value) is str and clean_label(value) == value
        except LabelError:
            is_clean = False
        if not is_clean:
            raise ValueError(f"{name} is not a class name")


@dataclass(frozen=True)
class Whole(Kind):
    """A whole number within bounds."""

    least: int
    most: int

    def check(self, value: Any, name: str) -> None:
        """See `Kind`."""
        if type(value) is not int or not self.least <= value <= self.most:
            raise ValueError(f"{name} is not a whole number from {self.least} to {self.most}")


@dataclass(frozen=True)
class Real(Kind):
    """A finite float64 within bounds; in JSON as hexadecimal text, which has no rounding."""

    least: float
    most: float

    def check(self, value: Any, name: str) -> None:
        """See `Kind`; not-a-number is within no bounds."""
        if type(value) is not float or not self.least <= value <= self.most:
            raise ValueError(f"{name} is not a number from {self.least} to {self.most}")

    def to_plain(self, value: Any) -> Any:
        """See `Kind`."""
        return value.hex()

    def from_plain(self, plain: Any) -> Any:
        """See `Kind`; of the spellings of a number only its own is taken."""
        try:
            value = float.fromhex(plain)
        except (TypeError, OverflowError) as error:
            raise ValueError("not a number") from error
        if value.hex() != plain:
            raise ValueError("not a number in its one form")
        return value


@dataclass(frozen=True)
class Truth(Kind):
    """True or False."""

    def check(self, value: Any, name: str) -> None:
        """See `Kind`."""
        if type(value) is not bool:
            raise ValueError(f"{name} is neither true nor false")


@dataclass(frozen=True)
class Choice(Kind):
    """One of a few texts."""

    values: tuple[str, ...]

    def check(self, value: Any, name: str) -> None:
        """See `Kind`."""
        if type(value) is not str or value not in self.values:
            raise ValueError(f"{name} is none of {', '.join(self.values)}")


@dataclass(frozen=True)
class Maybe(Kind):
    """Nothing, or a value of another kind."""

    of: Kind

    def check(self, value: Any, name: str) -> None:
        """See `Kind`."""
        if value is not None:
            self.of.check(value, name)

    def to_plain(self, value: Any) -> Any:
        """See `Kind`."""
        return None if value is None else self.of.to_plain(value)

    def from_plain(self, plain: Any) -> Any:
        """See `Kind`."""
        return None if plain is None else self.of.from_plain(plain)


@dataclass(frozen=True)
class Many(Kind):
    """A tuple of values of one kind; `most` of them, each once if `is_set`."""

    of: Kind
    most: int
    is_set: bool = False

    def check(self, value: Any, name: str) -> None:
        """See `Kind`."""
        if type(value) is not tuple or len(value) > self.most:
            raise ValueError(f"{name} is not a list of at most {self.most}")
        for each in value:
            self.of.check(each, name)
        if self.is_set and len(set(value)) != len(value):
            raise ValueError(f"{name} names something twice")

    def to_plain(self, value: Any) -> Any:
        """See `Kind`."""
        return [self.of.to_plain(each) for each in value]

    def from_plain(self, plain: Any) -> Any:
        """See `Kind`."""
        if not isinstance(plain, list) or len(plain) > self.most:
            raise ValueError(f"not a list of at most {self.most}")
        return tuple(self.of.from_plain(each) for each in plain)


@dataclass(frozen=True)
class One(Kind):
    """Another record."""

    record: "type[Record]"

    def check(self, value: Any, name: str) -> None:
        """See `Kind`; a record of the right class was checked when it was made."""
        if type(value) is not self.record:
            raise ValueError(f"{name} is not a {self.record.__name__}")

    def to_plain(self, value: Any) -> Any:
        """See `Kind`."""
        return to_plain(value)

    def from_plain(self, plain: Any) -> Any:
        """See `Kind`."""
        return _read(self.record, plain, {})


@dataclass(frozen=True)
class Array(Kind):
    """A numpy array, of one of `dtypes` and a shape by dimension letters; equal letters, equal lengths.

    A number in place of a letter is a fixed length.
    """

    dtypes: tuple[str, ...]
    shape: tuple[str | int, ...]
    in_header = False

    def check(self, value: Any, name: str) -> None:
        """See `Kind`; lengths are compared by `Record`."""
        if not isinstance(value, np.ndarray) or value.dtype.name not in self.dtypes:
            raise ValueError(f"{name} is not an array of {' or '.join(self.dtypes)}")
        if value.ndim != len(self.shape):
            raise ValueError(f"{name} has {value.ndim} dimensions, not {len(self.shape)}")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ValueError(f"{name} holds a value that is not finite")


@dataclass(frozen=True)
class Bytes(Kind):
    """From `least` to `most` bytes that stand in the header, as hexadecimal text."""

    least: int
    most: int

    def check(self, value: Any, name: str) -> None:
        """See `Kind`; the words do not show the bytes, which may be secret."""
        if type(value) is not bytes or not self.least <= len(value) <= self.most:
            raise ValueError(f"{name} is not {self.least} to {self.most} bytes")

    def to_plain(self, value: Any) -> Any:
        """See `Kind`."""
        return value.hex()

    def from_plain(self, plain: Any) -> Any:
        """See `Kind`; `fromhex` would also take capitals and spaces."""
        if type(plain) is not str or not re.fullmatch("([0-9a-f]{2})*", plain, re.ASCII):
            raise ValueError("not bytes in hexadecimal")
        return bytes.fromhex(plain)


@dataclass(frozen=True)
class Raw(Kind):
    """Bytes as they are, `most` of them."""

    most: int
    in_header = False

    def check(self, value: Any, name: str) -> None:
        """See `Kind`."""
        if type(value) is not bytes or len(value) > self.most:
            raise ValueError(f"{name} is not at most {self.most} bytes")


NAME = r"[a-z0-9][a-z0-9._-]{0,63}"
SHA256 = r"[0-9a-f]{64}"
Name = Annotated[str, Text(NAME)]  # of a device, a model, a channel, a part
Version = Annotated[str, Text(r"[0-9]{1,4}(\.[0-9]{1,6}){0,3}")]
Sha256 = Annotated[str, Text(SHA256)]
SpaceId = Annotated[str, Text(r"[0-9a-f]{16}")]  # of `FeatureSpace`
Label = Annotated[str, LabelText()]
Count = Annotated[int, Whole(0, MAX_COUNT)]
PerMille = Annotated[int, Whole(0, 1000)]
Flag = Annotated[bool, Truth()]
Words = Annotated[str, Text(r"[ -~]{0,200}")]  # for people, one line of ASCII


@dataclass(frozen=True, eq=False)
class Record:
    """A frozen dataclass whose fields are checked when it is made; ValueError for what may not be."""

    KINDS: ClassVar[Mapping[str, Kind]] = {}  # of each field, in order

    def __init_subclass__(cls) -> None:
        hints = typing.get_type_hints(cls, include_extras=True)
        own = {name: hint for name, hint in hints.items() if typing.get_origin(hint) is not ClassVar}
        cls.KINDS = {name: _kind(hint) for name, hint in own.items()}

    def __post_init__(self) -> None:
        lengths: dict[str, int] = {}
        for name, kind in self.KINDS.items():
            value = getattr(self, name)
            kind.check(value, name)
            if isinstance(kind, Array):
                check_shape(value.shape, kind.shape, lengths, name)
        self.check()

    def check(self) -> None:
        """Raise ValueError for fields that do not go together."""


def to_plain(record: Record) -> dict[str, Any]:
    """Return the fields of a record that stand in a header, as JSON can hold them."""
    return {
        name: kind.to_plain(getattr(record, name)) for name, kind in record.KINDS.items() if kind.in_header
    }


def from_plain(record: type[R], plain: Any, body: Mapping[str, Any] | None = None) -> R:
    """Return the record of `to_plain`, and of what its body held.

    Raises:
        ProtocolError: a field is missing, unknown, or holds what it may not.
    """
    try:
        return _read(record, plain, body or {})
    except ValueError as error:
        raise ProtocolError(f"{record.__name__}: {error}") from error


def _read(record: type[R], plain: Any, body: Mapping[str, Any]) -> R:
    found = record.KINDS
    wanted = {name for name, kind in found.items() if kind.in_header}
    if not isinstance(plain, dict) or plain.keys() != wanted:
        names = sorted(plain.keys() ^ wanted)[:3] if isinstance(plain, dict) else "nothing"
        raise ValueError(f"the fields are not the agreed ones: {names}")
    if body.keys() != found.keys() - wanted:
        raise ValueError(
            f"the body is not the agreed one: {sorted(body.keys() ^ (found.keys() - wanted))[:3]}"
        )
    return record(**{name: found[name].from_plain(plain[name]) for name in wanted}, **body)


def _kind(hint: Any) -> Kind:
    """Return the kind that an annotation stands for."""
    if typing.get_origin(hint) is Annotated:
        return next(each for each in hint.__metadata__ if isinstance(each, Kind))
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        (of,) = (each for each in typing.get_args(hint) if each is not type(None))
        return Maybe(_kind(of))
    if is_dataclass(hint):
        return One(hint)  # type: ignore[arg-type]
    raise TypeError(f"{hint} says no kind")


def many(hint: Any, most: int, is_set: bool = False) -> Many:
    """Return the kind of a tuple whose members have another annotation."""
    return Many(_kind(hint), most, is_set)


def check_shape(
    shape: tuple[int, ...], wanted: tuple[str | int, ...], lengths: dict[str, int], name: str
) -> None:
    """Compare a shape with letters and numbers; ValueError for a letter of two lengths. `lengths` learns."""
    for have, want in zip(shape, wanted, strict=True):
        if have != (lengths.setdefault(want, have) if isinstance(want, str) else want):
            raise ValueError(f"{name} has a length of {have} for {want}")
