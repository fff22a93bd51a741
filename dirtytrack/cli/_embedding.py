"""Word embeddings of the Python standard library's own source: the work that the demo tracks.

Skip-gram with negative sampling, in mini-batches of running text. A batch touches the rows of the words in it
and of a few sampled ones, and nothing else; word frequencies follow Zipf's law, so with rows sorted by
frequency the front of both arrays is always hot and the rest seldom touched. All chance is in the batches, so
that with the same ones the same training follows, bit for bit, from wherever the arrays are. Needs numpy.
"""

from __future__ import annotations

import collections
import os
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

import dirtytrack

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

_WORD = re.compile(r"[A-Za-z_]\w*")
_SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "pydoc_data"}
_WINDOW = 4  # words on either side that count as context
_SAMPLED = 24  # negative samples, shared by the whole batch
_NEGATIVES = 5  # weight of the negatives against one true pair
_RATE = 1.5
_FREQUENT = 1e-3  # words more frequent than this are thinned out


class Corpus(NamedTuple):
    """Running text as word numbers, the most frequent word being number 0.

    Attributes:
        files: how many files were read.
        words: the vocabulary; a word's number is its index.
        counts: how often each word occurs in the text.
        text: the word numbers, in the order of the text, words outside the vocabulary left out.
    """

    files: int
    words: list[str]
    counts: Ids
    text: Ids


def read_corpus(limit: int, vocabulary: int, rng: np.random.Generator) -> Corpus:
    """Read the standard library's source up to *limit* words; keep the *vocabulary* most frequent of them.

    Raises:
        FileNotFoundError: if this Python comes without its source.
    """
    library = sysconfig.get_path("stdlib")
    paths = list(_sources(library))
    text: list[str] = []
    files = 0
    for index in rng.permutation(len(paths)):
        if len(text) >= limit:
            break
        text += _WORD.findall(paths[index].read_text(encoding="utf-8", errors="replace"))
        files += 1
    del text[limit:]
    if not text:
        raise FileNotFoundError(f"no Python source under {library}: install your distribution's full Python")
    common = collections.Counter(text).most_common(vocabulary)
    numbers = {word: number for number, (word, _) in enumerate(common)}
    ids = np.array([numbers[word] for word in text if word in numbers], dtype=np.int64)
    return Corpus(files, list(numbers), np.array([count for _, count in common], dtype=np.int64), ids)


def _sources(library: str) -> Iterator[Path]:
    for folder, folders, names in os.walk(library):
        folders[:] = sorted(set(folders) - _SKIPPED)
        paths = (Path(folder, name) for name in sorted(names) if name.endswith(".py"))
        yield from (path for path in paths if path.is_file())  # Debian's may be links to a missing /etc


class Batch(NamedTuple):
    """What one step of training learns from.

    Attributes:
        text: a stretch of it, as word numbers.
        others: the words sampled as negatives, each once.
    """

    text: Ids
    others: Ids


def batches(corpus: Corpus, size: int, rng: np.random.Generator) -> Iterator[Batch]:
    """Yield stretches of *size* words of the text for ever, frequent words thinned out anew in every pass."""
    share = corpus.counts / corpus.counts.sum()
    kept = np.minimum(1.0, np.sqrt(_FREQUENT / share))
    sampling = corpus.counts**0.75
    cumulative = np.cumsum(sampling / sampling.sum())
    while True:
        text = corpus.text[rng.random(len(corpus.text)) < kept[corpus.text]]
        for start in range(0, max(1, len(text) - size + 1), size):
            drawn = np.searchsorted(cumulative, rng.random(_SAMPLED))
            yield Batch(text[start : start + size], np.unique(np.minimum(drawn, len(cumulative) - 1)))


class Embedding:
    """The two parameter arrays, those of the optimiser, and one step of training.

    All are page-aligned, and written in place only.

    Attributes:
        inputs: one row per word, as a centre.
        outputs: one row per word, as a context.
        input_scale: of each row of the inputs, its squared gradients so far.
        output_scale: likewise of the outputs.
    """

    def __init__(self, words: int, dimension: int, rng: np.random.Generator) -> None:
        shape = (words, dimension)
        self.inputs: Floats = dirtytrack.empty(shape, np.float32)
        self.outputs: Floats = dirtytrack.empty(shape, np.float32)
        self.input_scale: Floats = dirtytrack.empty(words, np.float32)
        self.output_scale: Floats = dirtytrack.empty(words, np.float32)
        self.inputs[:] = (rng.random(shape, dtype=np.float32) - 0.5) / dimension
        self.outputs[:] = 0
        self.input_scale[:] = self.output_scale[:] = 1e-8

    def step(self, batch: Batch, rate: float) -> float:
        """Train on one batch and return the loss per true pair, before the step."""
        rows, place = np.unique(batch.text, return_inverse=True)
        others = batch.others
        pairs = _count_pairs(place, len(rows))
        weight: Floats = pairs.sum(axis=1, keepdims=True) * np.float32(_NEGATIVES / len(others))
        centre, context, other = self.inputs[rows], self.outputs[rows], self.outputs[others]
        true = _sigmoid(centre @ context.T)
        false = _sigmoid(centre @ other.T)
        tiny = np.float32(1e-9)
        loss = -(pairs * np.log(true + tiny)).sum() - (weight * np.log(1 - false + tiny)).sum()
        pull: Floats = pairs * (true - np.float32(1))
        push: Floats = weight * false
        _descend(self.inputs, self.input_scale, rows, pull @ context + push @ other, rate)
        _descend(self.outputs, self.output_scale, rows, pull.T @ centre, rate)
        _descend(self.outputs, self.output_scale, others, push.T @ centre, rate)
        return float(loss / max(1.0, pairs.sum()))

    def neighbours(self, number: int, count: int, among: int) -> list[int]:
        """The *count* words nearest to a word by cosine, among the *among* most frequent; itself left out."""
        rows = self.inputs[:among]
        likeness = rows @ self.inputs[number] / np.linalg.norm(rows, axis=1)
        return [int(n) for n in np.argsort(-likeness) if n != number][:count]


def learning_rate(progress: float) -> float:
    """The step size at *progress* from 0 to 1: falls linearly, to a twentieth."""
    return _RATE * (1 - 0.95 * progress)


def _count_pairs(place: Ids, rows: int) -> Floats:
    """How often each row of the batch has each other row within its window, as a symmetric matrix."""
    pairs = np.zeros(rows * rows, dtype=np.float32)
    for distance in range(1, _WINDOW + 1):
        pairs += np.bincount(place[:-distance] * rows + place[distance:], minlength=rows * rows)
    square = pairs.reshape(rows, rows)
    square = square + square.T
    np.fill_diagonal(square, 0)
    return square


def _sigmoid(x: Floats) -> Floats:
    one = np.float32(1)
    return one / (one + np.exp(-np.clip(x, -30, 30), dtype=np.float32))


def _descend(array: Floats, scale: Floats, rows: Ids, gradient: Floats, rate: float) -> None:
    """One step of Adagrad with a scale per row, in place: writes these rows of *array* and no others."""
    scale[rows] += (gradient * gradient).sum(axis=1)
    array[rows] -= gradient * (np.float32(rate) / np.sqrt(scale[rows]))[:, None]
