"""Sentences and reviews with labels, 0 for bad and 1 for good, and what is held out of them."""

import random
from collections.abc import Iterator

import attrs

from tests import realdata
from tests.benchmarks.study import _text

HELD_OUT = 10  # one text in so many


@attrs.frozen(eq=False)
class Reviews:
    """Texts with their labels, in two parts."""

    train: list[str]
    train_labels: list[int]
    test: list[str]
    test_labels: list[int]


def load(source: str) -> Reviews:
    """Those of a source: "rotten_tomatoes" (sentences), "imdb" (pages) or "toy" (made up here).

    A text is held out by its hash: copies are on one side.
    """
    parts: dict[bool, list[tuple[str, int]]] = {False: [], True: []}
    for text, label in _toy() if source == "toy" else _real(source):
        parts[_text.is_held_out(text, HELD_OUT)].append((text, label))
    (train, train_labels), (test, test_labels) = (map(list, zip(*parts[side], strict=True)) for side in parts)
    return Reviews(train, train_labels, test, test_labels)


def _real(source: str) -> Iterator[tuple[str, int]]:
    for row in realdata.labelled_reviews():
        if row["source"] == source:
            yield row["text"], int(row["label"])


WORDS = {
    0: ["awful", "boring", "clumsy", "dull", "empty", "flat", "hollow", "lifeless", "poor", "weak"],
    1: ["bright", "charming", "clever", "fresh", "funny", "graceful", "lovely", "moving", "rich", "warm"],
}
NEUTRAL = ["a", "and", "film", "in", "is", "it", "of", "plot", "scene", "story", "that", "the", "this"]


def _toy() -> Iterator[tuple[str, int]]:
    drawn = random.Random(1)
    for i in range(500):
        words = [drawn.choice(NEUTRAL) for _ in range(drawn.randint(3, 9))]
        words[drawn.randrange(len(words))] = drawn.choice(WORDS[i % 2])
        yield " ".join(words), i % 2
