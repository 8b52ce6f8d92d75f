"""Tokens of positions that are made many at once are those that are made one by one."""

import os

import pytest

from stateroom.feed.positions import Place


@pytest.mark.parametrize("parts", range(1, 9))
def test_texts_are_those_of_moving_there(parts):
    for part in range(parts):
        vector = [(7 * number, number) for number in range(parts)]
        place, moved = (Place(os.urandom(12), vector) for _ in range(2))
        moved._packed[:12] = place._packed[:12]
        ats = [os.urandom(10) for _ in range(20)]
        before = place.text
        expected = []
        for at in ats:
            moved.move(part, at)
            expected.append(moved.text)
        assert place.texts(part, ats) == expected
        assert place.texts(part, []) == []
        assert place.text == before
