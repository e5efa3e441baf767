import pytest
from fake_model import ByteTokenizer
from hypothesis import given
from hypothesis import strategies as st

from spiketrain.runtime.tokenizer import Detokenizer
from spiketrain.serving.engine.text import CompletionText, StopMatcher


def shown(stops, *pieces):
    matcher = StopMatcher(stops)
    out = []
    for piece in pieces:
        out.append(matcher.push(piece))
        if matcher.matched:
            return out, matcher.matched
    return [*out, matcher.flush()], matcher.matched


def test_text_passes_through_without_stop_sequences():
    assert shown((), "ab", "c") == (["ab", "c", ""], "")


def test_a_stop_sequence_is_cut_off_with_what_follows():
    assert shown(("END",), "a END b") == (["a "], "END")


def test_a_stop_sequence_may_arrive_in_pieces():
    assert shown(("END",), "a E", "N", "D b") == (["a ", "", ""], "END")


def test_text_that_only_began_like_a_stop_sequence_is_shown_after_all():
    assert shown(("END",), "E", "NE", "N", "x") == (["", "EN", "", "ENx", ""], "")


def test_held_text_is_shown_at_the_end():
    assert shown(("END",), "a EN") == (["a ", "EN"], "")


def test_the_earliest_stop_sequence_wins():
    assert shown(("cd", "bc"), "abcd") == (["a"], "bc")


@given(
    text=st.text("ab", max_size=30),
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
)
def test_pieces_never_show_more_than_the_text_before_a_stop_sequence(text, stops):
    out, matched = shown(tuple(stops), *text)
    full = "".join(out)
    assert text.startswith(full)
    assert not any(stop in full for stop in stops)
    assert bool(matched) == any(stop in text for stop in stops)
    if matched:
        assert text.startswith(full + matched)
    else:
        assert full == text


@pytest.mark.parametrize("stops", [(), ("€",)])
def test_characters_are_never_split(stops):
    text = CompletionText(Detokenizer(ByteTokenizer(), continues=True), stops)
    out = [text.push(byte) for byte in "aé🦀".encode()]
    assert out == ["a", "", "é", "", "", "", "🦀"]
    assert text.flush() == ""


def test_an_unfinished_character_is_replaced_at_the_end():
    text = CompletionText(Detokenizer(ByteTokenizer(), continues=True), ())
    assert text.push("é".encode()[0]) == ""
    assert text.flush() == "\ufffd"


def test_without_a_tokenizer_there_is_no_text():
    text = CompletionText(None, ())
    assert text.push(3) == text.flush() == ""
