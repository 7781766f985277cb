"""A code comes over as it was, a slip of the finger is found, and questions and answers are read strictly."""

import pytest
from checks.messages import records
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_cl.errors import ProtocolError
from edge_cl.wire import bech32, canonical, enrolment, messages, routes
from edge_cl.wire.enrolment import (
    FINGERPRINT_BYTES,
    TOKEN_BYTES,
    Code,
    Enrol,
    Enrolled,
    read_code,
    read_enrol,
    read_enrolled,
    write_code,
)

CODE = Code(bytes(range(TOKEN_BYTES)), bytes(range(100, 100 + FINGERPRINT_BYTES)))
TEXT = write_code(CODE)
ENROL = Enrol(CODE.token, bytes(16), "pi-1", ("edgetpu", "any"), "0.1.0")
ENROLLED = Enrolled("pi-1", bytes(32), "waste", "canary", "features", b"{}", 1_800_000_000)

codes = st.builds(
    Code,
    st.binary(min_size=TOKEN_BYTES, max_size=TOKEN_BYTES),
    st.just(b"") | st.binary(min_size=FINGERPRINT_BYTES, max_size=FINGERPRINT_BYTES),
)


@given(codes)
def test_a_code_comes_over_as_it_was(code):
    text = write_code(code)
    assert read_code(text) == code
    assert read_code(f"  {text.lower().replace('-', ' ')}\n") == code
    assert len(text) <= 92
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")  # what a QR code packs tightest


def test_the_text_is_the_one_that_any_reader_of_bech32m_knows():
    # Valid strings of BIP-350 with a prefix of letters.
    assert bech32.read("a", "A1LQFN3A") == b""
    assert bech32.write("a", b"").replace("-", "") == "A1LQFN3A"
    with pytest.raises(ProtocolError):
        bech32.read("a", "A12UEL5L")  # Bech32 of old, which this is not


@given(codes, st.data())
def test_up_to_four_wrong_letters_are_always_found(code, data):
    letters = list(write_code(code))
    places = [place for place in range(5, len(letters)) if letters[place] != "-"]
    wrong = data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=4, unique=True))
    for place in wrong:
        others = sorted(set(bech32.LETTERS.upper()) - {letters[place]})
        letters[place] = data.draw(st.sampled_from(others))
    with pytest.raises(ProtocolError, match="group|mistyped"):
        read_code("".join(letters))


def test_one_wrong_letter_is_found_in_its_group():
    groups = TEXT.split("-")
    groups[7] = groups[7][:2] + ("Q" if groups[7][2] != "Q" else "P") + groups[7][3:]
    with pytest.raises(ProtocolError, match="group 7"):
        read_code("-".join(groups))


@pytest.mark.parametrize(
    ("text", "words"),
    {
        "nothing": ("", "ECL1"),
        "another thing": ("https://host", "ECL1"),
        "a prefix alone": ("ECL1", "too few"),
        "a group less": (TEXT.rpartition("-")[0], "missing"),
        "a group more": (TEXT + "-QQQQQQ", "missing|mistyped|too many"),
        "two letters swapped": (TEXT[:7] + TEXT[8] + TEXT[7] + TEXT[9:], "mistyped"),
        "a letter that none has": (TEXT[:5] + "O" + TEXT[6:], "'o' in group 1"),
        "of another thing": (bech32.write("abc", CODE.token), "ECL1"),
        "a thousand letters": ("ECL1" + "Q" * 1000, "too many"),
        "of another length": (bech32.write("ecl", bytes(20)), "whole"),
    }.values(),
)
def test_what_is_no_code_is_refused_with_words_that_help(text, words):
    with pytest.raises(ProtocolError, match=words) as caught:
        read_code(text)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=100))
def test_any_text_is_a_code_or_refused(text):
    try:
        code = read_code(text)
    except ProtocolError:
        return
    assert read_code(write_code(code)) == code


@pytest.mark.parametrize(
    ("record", "read"), [(Enrol, read_enrol), (Enrolled, read_enrolled)], ids=["question", "answer"]
)
def test_question_and_answer_come_over_as_they_were(record, read):
    @settings(max_examples=20, deadline=None)
    @given(records(record))
    def comes_over(found):
        assert read(enrolment.write(found)) == found

    comes_over()


def test_the_largest_answer_can_be_sent():
    large = Enrolled(**{**vars(ENROLLED), "root": b"x" * enrolment.MAX_ROOT_BYTES})
    assert read_enrolled(enrolment.write(large)) == large


PLAIN = canonical.read(enrolment.write(ENROL))


@pytest.mark.parametrize(
    "plain",
    [
        {**PLAIN, "token": PLAIN["token"].upper() + "AA"},
        {**PLAIN, "token": "ab"},
        {**PLAIN, "token": 5},
        {**PLAIN, "token": "0 " + "0" * 18},
        {**PLAIN, "nonce": "0" * 30},
        {**PLAIN, "device": "../../etc"},
        {**PLAIN, "device": None},
        {**PLAIN, "hardware": ["a"] * 2},
        {**PLAIN, "hardware": [str(number) for number in range(9)]},
        {**PLAIN, "runtime": "latest"},
        {**PLAIN, "admin": True},
        {name: value for name, value in PLAIN.items() if name != "nonce"},
        [],
    ],
    ids=str,
)
def test_a_question_that_nobody_asks_is_refused(plain):
    with pytest.raises(ProtocolError):
        read_enrol(canonical.write(plain))


def test_secret_bytes_are_not_shown_where_they_are_wrong():
    with pytest.raises(ValueError, match="key") as caught:
        Enrolled(**{**vars(ENROLLED), "key": b"secret"})
    assert "secret" not in str(caught.value)


def test_every_refusal_has_a_status():
    assert set(routes.STATUS) == set(messages.REFUSALS)
