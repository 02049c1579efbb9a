import pickle
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dataeff as de


def decoded(corpus):
    return [bytes(sample).decode() for sample in corpus.shard(0, len(corpus))]


@pytest.fixture
def poem(tmp_path):
    path = tmp_path / "poem.txt"
    path.write_bytes("Tyger Tyger,\r\nburning bright\n\n  \nIn the forests\nof the night — ✓".encode())
    return path


@pytest.mark.parametrize(
    ("sample_by", "expected"),
    [
        ("line", ["Tyger Tyger,", "burning bright", "In the forests", "of the night — ✓"]),
        ("paragraph", ["Tyger Tyger,\r\nburning bright", "In the forests\nof the night — ✓"]),
        ("document", ["Tyger Tyger,\r\nburning bright\n\n  \nIn the forests\nof the night — ✓"]),
    ],
)
def test_text_is_divided_as_asked(poem, sample_by, expected):
    assert decoded(de.corpus.open(poem, sample_by=sample_by)) == expected


def test_a_folder_is_read_in_order_of_names_without_hidden_files(tmp_path):
    for name, content in {"b.txt": "two", "a/z.md": "one", ".git/config": "no", "c.txt": "\n \n"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert decoded(de.corpus.open(tmp_path)) == ["one", "two"]


def test_a_file_that_is_not_text_is_named(tmp_path):
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ValueError, match=r"image.png is not UTF-8 text: .*; convert it, or leave it out"):
        de.corpus.open(tmp_path)


@pytest.mark.parametrize("content", ["", "\n \n\t\n"])
def test_an_empty_file_is_refused(tmp_path, content):
    (tmp_path / "empty.txt").write_text(content)
    with pytest.raises(ValueError, match="empty.txt holds no text"):
        de.corpus.open(tmp_path / "empty.txt")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no text"):
        de.corpus.open(tmp_path)


def test_a_path_where_nothing_is_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no corpus at .*nowhere: no such file or folder"):
        de.corpus.open(tmp_path / "nowhere")


def test_an_unknown_format_and_division_are_refused(poem):
    with pytest.raises(ValueError, match="unknown name 'txt' in corpora; did you mean 'text'"):
        de.corpus.open(poem, format="txt")
    with pytest.raises(ValueError, match="sample_by is 'word'; expected 'line', 'paragraph' or 'document'"):
        de.corpus.open(poem, sample_by="word")
    with pytest.raises(ValueError, match="cannot open a int as a corpus"):
        de.corpus.open(7)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_npy_rows_are_samples(tmp_path, dtype):
    rows = np.arange(12, dtype=dtype).reshape(4, 3)
    np.save(tmp_path / "rows.npy", rows)
    corpus = de.corpus.open(tmp_path / "rows.npy")
    shard = corpus.shard(1, 3)
    assert len(corpus) == 4
    assert shard.tokens.dtype == dtype
    assert [sample.tolist() for sample in shard] == rows[1:3].tolist()
    assert corpus[-1].tolist() == [9, 10, 11]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2), np.float32),
        np.array([["a"]]),
        np.zeros((1, 1, 1), np.int8),
        np.zeros((2, 2), ">u2"),
    ],
)
def test_npy_of_something_else_is_refused(tmp_path, array):
    np.save(tmp_path / "other.npy", array)
    with pytest.raises(
        ValueError, match=r"other.npy has shape .* and dtype .*; expected \(samples, length\) integers"
    ):
        de.corpus.open(tmp_path / "other.npy")


def test_a_pickle_in_npy_is_never_loaded(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="objects.npy is not a readable .npy file"):
        de.corpus.open(tmp_path / "objects.npy")


@pytest.mark.parametrize("keep", [6, 20, 80, 130])
def test_a_cut_npy_is_refused(tmp_path, keep):
    np.save(tmp_path / "cut.npy", np.zeros((4, 4), np.int64))
    content = (tmp_path / "cut.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(content[:keep])
    with pytest.raises(ValueError, match="cut.npy is not a readable .npy file"):
        de.corpus.open(tmp_path / "cut.npy")


@given(st.lists(st.lists(st.integers(0, 255), max_size=5), max_size=20), st.integers(1, 12))
def test_spans_cover_all_samples_once(samples, tokens):
    corpus = de.corpus.from_samples(samples)
    spans = list(corpus.spans(tokens))
    assert [i for start, stop in spans for i in range(start, stop)] == list(range(len(samples)))
    for start, stop in spans:
        assert stop == start + 1 or sum(map(len, samples[start:stop])) <= tokens


@given(st.lists(st.lists(st.integers(0, 2**40), max_size=6), min_size=1), st.integers(1, 7))
def test_windows_are_the_tokens_end_to_end(samples, length):
    flat = [token for sample in samples for token in sample]
    corpus = de.corpus.from_samples(samples)
    if len(flat) < length:
        with pytest.raises(
            ValueError, match=f"{len(flat)} tokens are too few for one window of length {length}"
        ):
            corpus.windows(length)
        return
    windows = corpus.windows(length)
    assert [w.tolist() for w in windows.shard(0, len(windows))] == [
        flat[i : i + length] for i in range(0, len(flat) - length + 1, length)
    ]


@pytest.mark.parametrize("index", [3, -4])
def test_a_sample_outside_is_an_index_error(index):
    with pytest.raises(IndexError, match=f"sample {index} of a corpus of 3 samples"):
        de.corpus.from_samples(["a", "b", "c"])[index]


def test_a_corpus_iterates_and_ends():
    assert [sample.tolist() for sample in de.corpus.from_samples([[1], [2, 3]])] == [[1], [2, 3]]


def test_the_dataset_gives_int64_tensors(poem):
    dataset = de.corpus.open(poem, sample_by="line").windows(8).dataset()
    assert len(dataset) == 7
    assert dataset[0].dtype == torch.int64
    assert bytes(dataset[0].tolist()) == b"Tyger Ty"


def test_corpora_pickle_to_the_same_content(poem, tmp_path):
    np.save(tmp_path / "rows.npy", np.arange(6).reshape(2, 3))
    for corpus in (
        de.corpus.open(poem, sample_by="paragraph"),
        de.corpus.open(tmp_path / "rows.npy"),
        de.corpus.open(poem).windows(5),
        de.corpus.from_samples([[1], [2, 3]]),
    ):
        copy = pickle.loads(pickle.dumps(corpus))  # noqa: S301
        assert type(copy) is type(corpus)
        assert copy.fingerprint() == corpus.fingerprint()


def test_a_pickled_file_is_its_path(tmp_path):
    np.save(tmp_path / "rows.npy", np.zeros((1000, 100)).astype(np.int64))
    assert len(pickle.dumps(de.corpus.open(tmp_path / "rows.npy").windows(10))) < 1000


def test_fingerprints_tell_content_and_division_apart_and_no_dtype(poem):
    corpora = [
        de.corpus.open(poem),
        de.corpus.open(poem, sample_by="paragraph"),
        de.corpus.from_samples([[1, 2], [3]]),
        de.corpus.from_samples([[1], [2, 3]]),
        de.corpus.from_samples([[1, 2], [3]]).windows(2),
        de.corpus.from_samples([[1, 2], [3]]).windows(3),
    ]
    assert len({corpus.fingerprint() for corpus in corpora}) == len(corpora)
    narrow = de.corpus.from_samples([np.array([1], np.int32), np.array([2, 3], np.int32)])
    assert narrow.fingerprint() == corpora[3].fingerprint()


@given(
    samples=st.lists(st.lists(st.integers(-9, 9), max_size=600), min_size=1, max_size=8),
    data=st.data(),
)
def test_any_changed_token_changes_the_fingerprint_and_cuts_do_not(samples, data):
    corpus = de.corpus.from_samples(samples)
    cut = data.draw(st.integers(0, len(samples)))
    assert corpus.fingerprint(cut) == de.corpus.from_samples(samples[:cut]).fingerprint()
    assert corpus.fingerprint() == de.corpus.as_fingerprint(
        corpus.digest(0, cut) + corpus.digest(cut, len(samples))
    )
    if corpus.token_offsets()[-1]:
        tokens = corpus.tokens.copy()
        tokens[data.draw(st.integers(0, len(tokens) - 1))] += data.draw(st.sampled_from([-1, 1, 3, 1000]))
        assert de.corpus.Ragged(tokens, corpus.token_offsets()).fingerprint() != corpus.fingerprint()


@pytest.mark.parametrize("sample", [[1.5], [[1]], 3, [None]])
def test_a_sample_that_is_no_row_of_integers_is_named(sample):
    with pytest.raises(ValueError, match=r"sample 1 is .*-D .*; expected a flat array of integers"):
        de.corpus.from_samples([[1], sample])


def test_an_array_or_tensor_of_samples_is_a_corpus():
    rows = np.arange(6).reshape(2, 3)
    for samples in (rows, torch.from_numpy(rows), rows.tolist()):
        assert [sample.tolist() for sample in de.corpus.open(samples)] == rows.tolist()


def test_a_text_of_uneven_lines_is_split_by_its_tokens(tmp_path):
    (tmp_path / "uneven.txt").write_text("\n".join(["a"] * 2000 + ["b" * 5000] * 30))
    spans = list(de.corpus.open(tmp_path / "uneven.txt", sample_by="line").spans(10_000))
    assert len(spans) >= 15


class Counted:
    """A dataset that counts how often it is read."""

    reads = 0

    def __len__(self):
        return 400

    def __getitem__(self, index):
        self.reads += 1
        return np.full(index % 5 + 1, index)


def test_how_long_samples_are_is_looked_up_once(tmp_path):
    rows = Counted()
    corpus = de.corpus.open(rows)
    first = list(corpus.spans(30))
    assert [list(corpus.spans(30)), list(corpus.spans(10))[-1][1], rows.reads] == [first, 400, 400]
    assert list(pickle.loads(pickle.dumps(corpus)).spans(30)) == first  # noqa: S301
    rows.reads = 0
    de.index.build(corpus, ["length", "vocab_rarity"], out=tmp_path, executor="serial", progress=False)
    assert rows.reads == 3 * 400


class Words:
    reads = 0

    def encode(self, text):
        self.reads += 1
        return [len(word) for word in text.split()]


@pytest.mark.parametrize("lines", [["to be"] * 40, ["to be", "or not to be"] * 20], ids=["even", "uneven"])
@pytest.mark.parametrize("format", ["megatron", "npy"])
def test_writing_tokenizes_once(tmp_path, format, lines):
    (tmp_path / "a.txt").write_text("\n".join(lines))
    words = Words()
    corpus = de.corpus.open(tmp_path / "a.txt", sample_by="line", tokenizer=words)
    words.reads = 0
    written = corpus.write(tmp_path / "written.npy", format, dtype="uint16")
    assert words.reads == 40
    assert [sample.tolist() for sample in written] == [[len(word) for word in line.split()] for line in lines]


def test_even_samples_are_written_as_rows(tmp_path):
    path = tmp_path / "a.npy"
    de.corpus.from_samples([[1], [2, 3]]).write(path, "npy")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.npy", "a.offsets.npy"]
    de.corpus.from_samples([[1, 2], [3, 4]]).write(path, "npy")
    assert np.load(path).tolist() == [[1, 2], [3, 4]]
    assert [file.name for file in tmp_path.iterdir()] == ["a.npy"]


@pytest.mark.parametrize("by", ["line", "paragraph"])
def test_opening_text_takes_little_memory_a_sample(tmp_path, by):
    (tmp_path / "a.txt").write_bytes(b"ab\n\n" * 100_000)
    de.corpus.open(tmp_path / "a.txt", sample_by=by)  # loads the kernels
    tracemalloc.start()
    try:
        corpus = de.corpus.open(tmp_path / "a.txt", sample_by=by)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(corpus) == 100_000
    assert kept < 20 * len(corpus)
    assert peak < 56 * len(corpus)


def test_offsets_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="offsets must rise from 0 to the number of tokens, 3"):
        de.corpus.Ragged(np.arange(3), np.array([0, 2]))
    with pytest.raises(ValueError, match="tokens are 2-D int64; expected a flat array of integers"):
        de.corpus.Ragged(np.zeros((2, 2), np.int64), np.array([0, 4]))


def test_a_dict_of_columns_is_no_corpus():
    with pytest.raises(
        ValueError, match="the corpus is a dict of 'id', 'text'; expected samples: give one of"
    ):
        de.corpus.open({"id": [1, 2], "text": ["a", "b"]})
    assert de.corpus.open({0: [1], 1: [2, 3]})[1].tolist() == [2, 3]


def test_a_text_that_is_none_is_named():
    with pytest.raises(ValueError, match="sample 1 is no valid text: surrogates not allowed"):
        de.corpus.open(["fine", "a\ud800b"])


def test_token_ids_of_the_other_byte_order_are_read():
    tokens, offsets = np.array([1, 2, 300], ">u2"), np.array([0, 1, 3], ">i4")
    ragged, listed = de.corpus.Ragged(tokens, offsets), de.corpus.open([tokens[:1], tokens[1:]])
    for corpus in (ragged, listed):
        assert corpus.shard(0, 2).tokens.dtype.isnative
        assert de.metrics.type_token_ratio()(corpus).tolist() == [1, 1]
        assert corpus.fingerprint() == de.corpus.from_samples([[1], [2, 300]]).fingerprint()


def test_a_hugging_face_dataset_is_read_through_its_transform():
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"text": ["to be", "or not"]})
    tokenized = rows.with_transform(lambda some: {"input_ids": [[7] * 3 for _ in some["text"]]})
    assert [sample.tolist() for sample in de.corpus.open(tokenized)] == [[7, 7, 7], [7, 7, 7]]
    with pytest.raises(
        ValueError, match=r"has a transform, .*; give dataeff.corpus.map_dataset\(dataset\) inst"
    ):
        de.corpus.hf_dataset(tokenized)
    for read in (de.corpus.open, de.corpus.hf_dataset):
        with pytest.raises(
            ValueError, match=r"a IterableDataset without len\(\) or .*: write the stream to files"
        ):
            read(rows.to_iterable_dataset())
