"""The commit metadata: what is written comes back, and nothing else is ever believed."""

import base64
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.offsets.commit_metadata import CommitState, Suspicion, UnreadableMetadata, decode, encode

MAX_OFFSET = 2**63 - 1


@st.composite
def commit_states(draw: st.DrawFn) -> CommitState:
    next_offset = draw(st.integers(0, 2**40) | st.integers(MAX_OFFSET - 10_000, MAX_OFFSET - 5_000))
    distances = draw(st.sets(st.integers(0, 300), max_size=60) | st.sets(st.integers(0, 4_000), max_size=5))
    incomplete = tuple(sorted(next_offset + distance for distance in distances))
    highest = incomplete[-1] if incomplete else next_offset - 1
    highest += draw(st.integers(0, 500))
    suspicions = {}
    if incomplete:
        suspicions = draw(
            st.dictionaries(
                st.sampled_from(incomplete),
                st.builds(Suspicion, crashes=st.integers(0, 1_000), running=st.booleans()),
                max_size=10,
            )
        )
    log_start = draw(st.just(0) | st.integers(next_offset + 1, next_offset + 1_000))
    return CommitState(next_offset, highest, incomplete, draw(st.booleans()), suspicions, log_start)


def sealed(body: str) -> str:
    """A body with the right prefix and the right checksum."""
    return f"dk1.{zlib.crc32(body.encode()):08x}.{body}"


@given(commit_states())
def test_what_was_encoded_is_decoded_the_same(state: CommitState) -> None:
    assert decode(state.next_offset, encode(state)) == state


@given(commit_states(), st.data())
def test_a_truncated_text_is_not_believed(state: CommitState, data: st.DataObject) -> None:
    text = encode(state)
    kept = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(UnreadableMetadata):
        decode(state.next_offset, text[:kept])


@given(commit_states(), st.data())
def test_a_text_with_one_character_changed_is_not_believed(state: CommitState, data: st.DataObject) -> None:
    text = encode(state)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda character: character != text[at]))
    with pytest.raises(UnreadableMetadata):
        decode(state.next_offset, text[:at] + other + text[at + 1 :])


@given(st.text(alphabet=st.characters(), max_size=200))
@example("")
@example("dk1.")
@example("dk1.00000000.")
@example("dk1.\ud800.\ud800")
@example("offset=17;host=somebody")
@example("dk2.00000000.AAAA")
def test_foreign_text_is_not_believed(text: str) -> None:
    with pytest.raises(UnreadableMetadata):
        decode(7, text)


@given(commit_states())
def test_a_newer_version_is_not_believed(state: CommitState) -> None:
    with pytest.raises(UnreadableMetadata):
        decode(state.next_offset, encode(state).replace("dk1.", "dk2.", 1))


@given(st.lists(st.integers(0, 6), max_size=12).map(bytes) | st.binary(max_size=24))
@example(bytes([0, 3, 2, 1, 0, 0]))
@example(bytes([2, 0, 0, 0]))
@example(bytes([0, 0, 0, 0, 0]))
@example(bytes([0, 0, 0, 0, 1, 1]))
def test_a_body_with_the_right_checksum_is_refused_or_makes_sense(body: bytes) -> None:
    try:
        state = decode(100, sealed(base64.urlsafe_b64encode(body).decode().rstrip("=")))
    except UnreadableMetadata:
        return
    assert state.next_offset == 100
    assert state.highest >= 99
    assert list(state.incomplete) == sorted(set(state.incomplete))
    assert all(100 <= offset <= state.highest for offset in state.incomplete)
    assert set(state.suspicions) <= set(state.incomplete)
    assert state.log_start == 0 or state.log_start > 100
    assert decode(100, encode(state)) == state
