"""Bytes as a text that people can type: Bech32m (Bitcoin BIP-350), which finds up to four wrong letters.

Without the letters 1, b, i and o in the data, so that none is taken for another; capitals do not matter. The
letters are written in groups; hyphens and spaces between them are for the eye and are not read.
"""

import functools
from collections.abc import Sequence

from edge_cl.errors import ProtocolError

LETTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
CONSTANT = 0x2BC830A3
CHECK_LETTERS = 6
GROUP = 6  # letters; about what one keeps in mind between reading and typing
MOST_LETTERS = 90  # with the prefix; beyond, four slips are no longer always found


def write(prefix: str, data: bytes) -> str:
    """Return the text of some bytes, in capitals and groups: `ECL1-QPZRY9-...`.

    Args:
        prefix: says what it is, letters only; part of what is checked.
        data: up to 50 bytes.
    """
    numbers = _regrouped(data, 8, 5)
    if len(prefix) + 1 + len(numbers) + CHECK_LETTERS > MOST_LETTERS:
        raise ValueError(f"{len(data)} bytes are too many to be checked")
    check = _remainder(prefix, [*numbers, *([0] * CHECK_LETTERS)]) ^ CONSTANT
    numbers += [check >> 5 * (CHECK_LETTERS - 1 - place) & 31 for place in range(CHECK_LETTERS)]
    letters = "".join(LETTERS[number] for number in numbers)
    groups = [letters[start : start + GROUP] for start in range(0, len(letters), GROUP)]
    return "-".join((f"{prefix}1", *groups)).upper()


def read(prefix: str, text: str) -> bytes:
    """Return the bytes that `write` was given.

    Raises:
        ProtocolError: something is missing or mistyped; the words name the group of a single wrong letter.
    """
    letters = "".join(text.replace("-", " ").split()).lower()
    start = f"{prefix}1"
    if not letters.startswith(start):
        raise ProtocolError(f"the code does not begin with {start.upper()}: copy it from its first letter on")
    letters = letters[len(start) :]
    _check_letters(letters)
    numbers = [LETTERS.index(letter) for letter in letters]
    slip = _remainder(prefix, numbers) ^ CONSTANT
    if slip:
        raise ProtocolError(_words(_wrong(slip, len(numbers))))
    data = _regrouped(numbers[:-CHECK_LETTERS], 5, 8)
    if _regrouped(data, 8, 5) != numbers[:-CHECK_LETTERS]:
        raise ProtocolError("the code is one that nobody writes: ask for a new one")
    return bytes(data)


def _check_letters(letters: str) -> None:
    for place, letter in enumerate(letters):
        if letter not in LETTERS:
            raise ProtocolError(
                f"{letter!r} in group {_group(place)} of the code is a letter that no code has: look again"
            )
    if not CHECK_LETTERS <= len(letters) <= MOST_LETTERS:
        raise ProtocolError(
            f"the code has {len(letters)} letters, which is too few or too many: copy it whole"
        )


def _wrong(slip: int, count: int) -> int | None:
    """Return which of `count` letters was changed, where one alone explains the remainder; else None.

    The remainder is linear: a letter changed by `change` at a place adds what `change` alone would leave.
    """
    for change in range(1, len(LETTERS)):
        left = change
        for after in range(count):
            if left == slip:
                return count - 1 - after
            left = _step(left, 0)
    return None


def _words(place: int | None) -> str:
    if place is None:
        return "the code is mistyped, or a part of it is missing: compare it with what the host printed"
    # BIP-173 advises to show the place and to leave the letter to the person.
    return f"group {_group(place)} of the code is mistyped: compare it with what the host printed"


def _group(place: int) -> int:
    return place // GROUP + 1


def _remainder(prefix: str, numbers: Sequence[int]) -> int:
    """Return the remainder of the polynomial over GF(32) that the letters are; CONSTANT for a good one."""
    codes = [ord(letter) for letter in prefix]
    letters = (*(code >> 5 for code in codes), 0, *(code & 31 for code in codes), *numbers)
    return functools.reduce(_step, letters, 1)


def _step(check: int, number: int) -> int:
    top = check >> 25
    check = (check & 0x1FFFFFF) << 5 ^ number
    for bit, term in enumerate(GENERATOR):
        check ^= term if top >> bit & 1 else 0
    return check


def _regrouped(numbers: Sequence[int], bits: int, into: int) -> list[int]:
    """Return the same bits in pieces of another width; filled with zeros upwards, cut off downwards."""
    whole, count = 0, len(numbers) * bits
    for number in numbers:
        whole = whole << bits | number
    pieces = -(-count // into) if into < bits else count // into
    spare = pieces * into - count
    whole = whole << spare if spare >= 0 else whole >> -spare
    return [whole >> into * (pieces - 1 - place) & (1 << into) - 1 for place in range(pieces)]
