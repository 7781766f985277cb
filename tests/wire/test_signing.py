"""Only the holder of the key makes a request that counts, and each counts once."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_cl.errors import ProtocolError
from edge_cl.wire.signing import (
    WINDOW,
    Request,
    Window,
    canonical,
    counted,
    digest,
    header,
    is_genuine,
    is_timely,
    read_header,
    sign,
)

KEY = bytes(range(32))
REQUEST = Request("pi-1", 7, 1_800_000_000, "PUT", "/v1/chunks?offset=0", digest(b"body"))


def genuine(said, key=KEY, method=REQUEST.method, target=REQUEST.target, body=REQUEST.body) -> bool:
    return is_genuine(key, said, method, target, body)


def test_a_signed_request_is_believed():
    said = read_header(header(KEY, REQUEST))
    assert (said.device, said.counter, said.time) == ("pi-1", 7, 1_800_000_000)
    assert genuine(said)


def test_the_signature_is_the_one_that_anybody_else_would_compute():
    text = "edge-cl-1\npi-1\n7\n1800000000\nPUT\n/v1/chunks?offset=0\n" + hashlib.sha256(b"body").hexdigest()
    assert canonical(REQUEST) == text.encode()
    assert sign(KEY, REQUEST) == hmac.new(KEY, text.encode(), "sha256").hexdigest()


def test_nothing_of_it_can_be_changed():
    said = read_header(header(KEY, REQUEST))
    assert not genuine(said, key=bytes(32))
    assert not genuine(said, method="GET")
    assert not genuine(said, target="/v1/chunks?offset=1")
    assert not genuine(said, body=digest(b"other"))
    assert not genuine(said._replace(device="pi-2"))
    assert not genuine(said._replace(counter=8))
    assert not genuine(said._replace(time=said.time + 1))
    assert not genuine(said._replace(signature="0" * 64))


def test_two_requests_never_have_one_text():
    first = REQUEST._replace(target="/a", method="PUT")
    for other in (
        REQUEST._replace(target="/a\nPUT"),
        REQUEST._replace(device="pi-1\n7"),
        first._replace(method="P T"),
    ):
        with pytest.raises(ValueError):
            canonical(other)


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33)])
def test_a_key_of_another_length_is_none(key):
    with pytest.raises(ValueError):
        sign(key, REQUEST)
    assert not genuine(read_header(header(KEY, REQUEST)), key=key)


HEADERS = {
    "nothing": "",
    "another scheme": "Bearer abc",
    "another version": header(KEY, REQUEST).replace("edge-cl-1", "edge-cl-2"),
    "a space more": header(KEY, REQUEST) + " ",
    "a newline more": header(KEY, REQUEST) + "\n",
    "a field more": header(KEY, REQUEST) + ",admin=1",
    "leading zeros": header(KEY, REQUEST).replace("counter=7", "counter=07"),
    "a sign": header(KEY, REQUEST).replace("counter=7", "counter=-7"),
    "digits of another script": header(KEY, REQUEST).replace("counter=7", "counter=٧"),
    "a counter of 40 digits": header(KEY, REQUEST).replace("counter=7", "counter=" + "7" * 40),
    "a device that is a path": header(KEY, REQUEST).replace("pi-1", "../pi-1"),
    "a signature in capitals": header(KEY, REQUEST).upper(),
    "a signature cut off": header(KEY, REQUEST)[:-1],
    "a megabyte": "edge-cl-1 device=" + "a" * (1 << 20),
}


@pytest.mark.parametrize("text", HEADERS.values(), ids=HEADERS.keys())
def test_a_header_of_another_form_is_refused(text):
    with pytest.raises(ProtocolError):
        read_header(text)


@given(st.text(max_size=300))
def test_any_header_is_refused(text):
    with pytest.raises(ProtocolError):
        read_header(text)


@given(st.lists(st.integers(0, 200), max_size=120))
def test_every_counter_counts_once_and_the_old_ones_not_at_all(counters):
    window, taken = Window(), set()
    for counter in counters:
        may = counter not in taken and counter > max(taken, default=-1) - WINDOW
        try:
            window = counted(window, counter)
        except ProtocolError as error:
            assert not may
            assert str(max(taken)) in str(error)
        else:
            assert may
            taken.add(counter)
        assert window.seen < 1 << WINDOW
    assert window.highest == max(taken, default=-1)


def test_a_far_jump_leaves_nothing_behind():
    window = counted(counted(Window(), 5), 10**15)
    assert window == Window(10**15, 1)
    with pytest.raises(ProtocolError):
        counted(window, 5)


def test_the_clock_of_a_board_may_be_a_little_wrong():
    said = read_header(header(KEY, REQUEST))
    assert is_timely(said, said.time + 900)
    assert not is_timely(said, said.time + 901)
    assert not is_timely(said, said.time - 901)
