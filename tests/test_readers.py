"""Every format: what is written is read, found from its content, and refused by name when it is wrong."""

import functools
import json
import pickle
import shutil
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dataeff as de
from dataeff.corpus import Joined, _arrow, as_tokenizer, from_samples

SAMPLES = [[1, 2, 3], [], [40_000], [5, 6]]
TEXTS = ["to be", "or not ✓", "to be"]


class Words:
    """A tokenizer as anyone may write it."""

    def encode(self, text):
        return [len(word) for word in text.split()]

    def decode(self, ids):
        return " ".join("x" * i for i in ids)


def content(corpus):
    return [sample.tolist() for sample in corpus.shard(0, len(corpus))]


def write_pair(prefix, samples, dtype, code, *, documents=None):
    """A Megatron pair by hand, from its description."""
    tokens = [np.array(sample, dtype) for sample in samples]
    lengths = np.array([len(sample) for sample in samples], "<i4")
    pointers = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype("<i8") * np.dtype(dtype).itemsize
    documents = np.array(range(len(samples) + 1) if documents is None else documents, "<i8")
    head = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(samples), len(documents))
    prefix.with_name(prefix.name + ".bin").write_bytes(b"".join(t.tobytes() for t in tokens))
    prefix.with_name(prefix.name + ".idx").write_bytes(
        head + lengths.tobytes() + pointers.tobytes() + documents.tobytes()
    )


@pytest.fixture
def tables(tmp_path):
    """The same rows as Parquet of two row groups, Arrow file, Arrow stream and saved dataset."""
    table = pa.table({"id": [0, 1, 2, 3], "input_ids": SAMPLES, "text": ["a", "b", "c", "d"]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    with pa.ipc.new_file(str(tmp_path / "file.arrow"), table.schema) as file:
        file.write_table(table, max_chunksize=2)
    with pa.ipc.new_stream(str(tmp_path / "stream.arrow"), table.schema) as file:
        file.write_table(table, max_chunksize=3)
    datasets.Dataset.from_dict(table.to_pydict()).save_to_disk(str(tmp_path / "saved"))
    return tmp_path


MEGATRON = [("u1", 1), ("i1", 2), ("i2", 3), ("i4", 4), ("i8", 5), ("u2", 8)]
DEEPSPEED = [("u1", 1), ("i1", 2), ("i2", 3), ("i4", 4), ("i8", 5), ("u2", 6), ("u8", 8)]


@pytest.mark.parametrize(("dtype", "code"), [*MEGATRON, *DEEPSPEED])
def test_both_tables_of_megatron_s_dtypes_are_told_apart(tmp_path, dtype, code):
    samples = [[1, 2, 3], [], [100], [5, 6]]
    write_pair(tmp_path / "pair", samples, dtype, code)
    for path in ("pair", "pair.idx", "pair.bin"):
        corpus = de.corpus.open(tmp_path / path)
        assert content(corpus) == samples
        assert corpus.shard(0, 1).tokens.dtype == dtype


def test_a_dtype_that_stays_ambiguous_is_asked_for(tmp_path):
    write_pair(tmp_path / "pair", SAMPLES, "u4", 7)
    with pytest.raises(
        ValueError,
        match=r"pair.idx: dtype has the code 7, which is float32 or uint32, .*; give dtype='uint32'",
    ):
        de.corpus.open(tmp_path / "pair")
    assert content(de.corpus.open(tmp_path / "pair", dtype="uint32")) == SAMPLES
    with pytest.raises(ValueError, match=r"dtype is int16; .*pair.idx has float32 or uint32"):
        de.corpus.open(tmp_path / "pair", dtype="int16")
    with pytest.raises(ValueError, match="dtype is 'foo'; expected integers, such as uint16"):
        de.corpus.open(tmp_path / "pair", dtype="foo")


@pytest.mark.parametrize(("dtype", "code", "name"), [("f8", 6, "float64"), ("f4", 7, "float32")])
def test_floats_are_no_tokens(tmp_path, dtype, code, name):
    write_pair(tmp_path / "pair", [[1.5]], dtype, code)
    with pytest.raises(ValueError, match=rf"pair.idx: dtype is {name} \(code {code}\); expected integers"):
        de.corpus.open(tmp_path / "pair", dtype=name)


@pytest.mark.parametrize(
    ("field", "place", "value", "message"),
    [
        ("<Q", 9, 2, "version is 2; expected 1"),
        ("<B", 17, 9, "dtype has the code 9; expected 1 to 8"),
        ("<Q", 18, 2**60, r"1152921504606846976 sequences and 4 documents take \d+ bytes; the file has"),
        ("<i", 34, 7, r"pair.bin has 12 bytes; the index says 10 tokens of code 8, 20 or 80 bytes"),
        ("<i", 34, -1, "lengths hold -1; expected 0 or more"),
        ("<q", 34 + 12 + 8, 2, "the pointer of sequence 1 is 2; its predecessors end at 6"),
        ("<q", 34 + 36, 1, "documents reach from 1 to 3; expected from 0 to 3 at most"),
        ("<q", 34 + 36 + 16, -5, "document 2 begins at -5, before the one before it"),
    ],
)
def test_a_damaged_megatron_index_is_named_with_its_field(tmp_path, field, place, value, message):
    write_pair(tmp_path / "pair", [[1, 2, 3], [4], [5, 6]], "u2", 8)
    index = tmp_path / "pair.idx"
    damaged = bytearray(index.read_bytes())
    struct.pack_into(field, damaged, place, value)
    index.write_bytes(damaged)
    with pytest.raises(ValueError, match=message):
        de.corpus.open(tmp_path / "pair")


def test_half_a_pair_and_no_index_are_named(tmp_path):
    write_pair(tmp_path / "pair", [[1]], "u2", 8)
    (tmp_path / "pair.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"no .*pair.bin; expected .*pair.idx and .*pair.bin"):
        de.corpus.open(tmp_path / "pair")
    (tmp_path / "other.idx").write_bytes(b"MMIDIDY")
    (tmp_path / "other.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"other.idx begins with .*; expected a Megatron index"):
        de.corpus.megatron(tmp_path / "other")


def test_documents_may_be_left_out_of_an_index(tmp_path):
    write_pair(tmp_path / "pair", [[1], [2]], "u2", 8, documents=[0])
    assert content(de.corpus.open(tmp_path / "pair")) == [[1], [2]]


@given(
    samples=st.lists(st.lists(st.integers(0, 2**16 - 1), max_size=9), min_size=1, max_size=9),
    format=st.sampled_from(["megatron", "npy"]),
    dtype=st.sampled_from([None, "uint16", "int32", "uint32"]),
)
def test_what_is_written_is_read(samples, format, dtype, tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / ("a.npy" if format == "npy" else "a")
    corpus = from_samples(samples)
    written = corpus.write(path, format, dtype)
    assert content(written) == samples
    assert content(de.corpus.open(path)) == samples
    assert written.fingerprint() == corpus.fingerprint()


def test_a_token_that_does_not_fit_is_named_and_nothing_is_left(tmp_path):
    corpus = from_samples([[1, 70_000]])
    for format in ("megatron", "npy"):
        with pytest.raises(ValueError, match=r"token 70000 does not fit uint16; give a wider dtype"):
            corpus.write(tmp_path / "a.npy", format, dtype="uint16")
    assert [path.name for path in tmp_path.iterdir() if "offsets" not in path.name] == []
    with pytest.raises(ValueError, match="format is 'csv'; expected 'megatron' or 'npy'"):
        corpus.write(tmp_path / "a", "csv")
    with pytest.raises(ValueError, match="dtype is 'foo'; expected integers, such as uint16"):
        de.corpus.open([[1]]).write(tmp_path / "x", dtype="foo")
    with pytest.raises(ValueError, match="dtype is float32; expected integers"):
        corpus.write(tmp_path / "a", dtype="float32")
    with pytest.raises(ValueError, match="the corpus has no samples; there is nothing to write"):
        from_samples([]).write(tmp_path / "a")


@pytest.mark.parametrize("column", ["input_ids", "text"])
def test_row_groups_are_decoded_once_a_pass(tmp_path, monkeypatch, column):
    rows = [[i % 250] * 20 if column == "input_ids" else "to be" for i in range(400)]
    pq.write_table(
        pa.table({"id": list(range(400)), column: rows}), tmp_path / "a.parquet", row_group_size=20
    )
    decoded, read = [], _arrow._row_group.__wrapped__
    counting = functools.lru_cache(maxsize=2)(lambda *args: decoded.append(args) or read(*args))
    monkeypatch.setattr(_arrow, "_row_group", counting)
    corpus = de.corpus.open(tmp_path / "a.parquet")
    assert len(list(corpus.spans(100))) == (80 if column == "input_ids" else 20)
    assert len(decoded) == (0 if column == "input_ids" else 20)
    de.index.build(corpus, ["length", "vocab_rarity"], out=tmp_path / "i", executor="serial", progress=False)
    assert len(decoded) == (3 if column == "input_ids" else 4) * 20


def test_flat_npy_needs_to_know_where_samples_begin(tmp_path):
    np.save(tmp_path / "flat.npy", np.arange(5))
    with pytest.raises(
        ValueError, match=r"flat.npy holds 5 flat tokens and flat.offsets.npy is not beside it"
    ):
        de.corpus.open(tmp_path / "flat.npy")
    np.save(tmp_path / "starts.npy", [0, 2, 5])
    assert content(de.corpus.open(tmp_path / "flat.npy", offsets=tmp_path / "starts.npy")) == [
        [0, 1],
        [2, 3, 4],
    ]
    np.save(tmp_path / "flat.offsets.npy", [0, 6])
    with pytest.raises(ValueError, match=r"flat.offsets.npy: offsets must rise from 0 to .*, 5"):
        de.corpus.open(tmp_path / "flat.npy")


def test_a_raw_file_is_read_in_windows(tmp_path):
    np.arange(10, dtype=np.uint16).tofile(tmp_path / "train.bin")
    assert content(de.corpus.open(tmp_path / "train.bin")) == [list(range(10))]
    assert content(de.corpus.open(tmp_path / "train.bin", window=4)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    strided = de.corpus.open(tmp_path / "train.bin", window=4, stride=3)
    assert content(strided) == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert len(de.corpus.open(tmp_path / "train.bin", dtype="uint32")[0]) == 5


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        (3, {}, r"train.bin has 3 bytes; expected a positive multiple of 2 \(uint16\); give dtype="),
        (0, {}, "train.bin has 0 bytes"),
        (4, {"window": 3}, "train.bin: 2 tokens are too few for one window of length 3"),
        (4, {"stride": 3}, "stride is 3 and window is not given; give window= too"),
        (4, {"window": 0}, "length is 0; expected"),
        (4, {"dtype": "float32"}, "dtype is float32; expected integers"),
        (4, {"dtype": "foo"}, "dtype is 'foo'; expected integers, such as uint16"),
        (4, {"windows": 2}, "the format 'bin' does not take these options: .*windows"),
    ],
)
def test_a_raw_file_that_does_not_fit_is_refused(tmp_path, size, options, message):
    (tmp_path / "train.bin").write_bytes(b"\1" * size)
    with pytest.raises(ValueError, match=message):
        de.corpus.open(tmp_path / "train.bin", **options)


@given(
    samples=st.lists(st.lists(st.integers(0, 9), max_size=7), min_size=1, max_size=9),
    length=st.integers(1, 6),
    stride=st.none() | st.integers(1, 8),
)
def test_windows_are_slices_of_all_tokens(samples, length, stride):
    corpus = from_samples(samples)
    flat = [token for sample in samples for token in sample]
    if len(flat) < length:
        with pytest.raises(
            ValueError, match=f"{len(flat)} tokens are too few for one window of length {length}"
        ):
            corpus.windows(length, stride)
        return
    windows = corpus.windows(length, stride)
    step = stride or length
    expected = [flat[i : i + length] for i in range(0, len(flat) - length + 1, step)]
    assert content(windows) == expected
    assert [windows[i].tolist() for i in range(len(windows))] == expected
    joined = Joined([from_samples([sample]) for sample in samples]).windows(length, stride)
    assert content(joined) == expected
    assert joined.fingerprint() == windows.fingerprint()


def test_records_of_json_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"id": i, "text": text}) + "\n\n" for i, text in enumerate(TEXTS)))
    corpus = de.corpus.open(path)
    assert [bytes(sample).decode() for sample in corpus.shard(0, 3)] == TEXTS
    (tmp_path / "b").write_text('{"ids": [1, 2]}\r\n{"ids": [300]}')
    assert content(de.corpus.open(tmp_path / "b", tokens="ids")) == [[1, 2], [300]]


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        ('{"text": 1', {}, r"a.jsonl, byte 0: record 0 is not JSON"),
        ('{"text": "a"}\nnull', {}, r"a.jsonl, byte 14: record 1 is a NoneType; expected an object"),
        ('{"text": "a"}\n{"body": "b"}', {}, r"a.jsonl, byte 14: record 1 has no field 'text'"),
        ('{"body": "b"}', {}, r"a.jsonl, byte 0 has the fields 'body'; give the one"),
        ('{"text": "b"}', {"tokens": "x"}, r"a.jsonl, byte 0 has no field 'x'; it has 'text'"),
        ('{"text": "a"}\n{"text": [1]}', {}, r"byte 0: sample 0 is a str; expected text in every sample, or"),
        ('{"text": 7}', {}, r"byte 0: sample 0 is a int; expected text"),
        ('{"text": [0.5]}', {}, r"byte 0: sample 0 is 1-D float64; expected a flat array of integers"),
        ('{"text": [123456789012345678901]}', {}, r"byte 0: sample 0 is 1-D object"),
        (r'{"text": "\ud800"}', {}, r"byte 0: sample 0 is no valid text: surrogates not allowed"),
        ("\n \n", {}, "a.jsonl holds no records"),
    ],
)
def test_a_record_that_cannot_be_read_is_named(tmp_path, lines, options, message):
    (tmp_path / "a.jsonl").write_text(lines)
    with pytest.raises(ValueError, match=message):
        content(de.corpus.open(tmp_path / "a.jsonl", **options))


@pytest.mark.parametrize("name", ["a.parquet", "file.arrow", "stream.arrow", "saved"])
def test_columns_of_tables(tables, name):
    corpus = de.corpus.open(tables / name)
    assert content(corpus) == SAMPLES
    assert [corpus[i].tolist() for i in (3, 0, 2)] == [SAMPLES[i] for i in (3, 0, 2)]
    assert content(pickle.loads(pickle.dumps(corpus))) == SAMPLES  # noqa: S301
    assert corpus.fingerprint() == from_samples(SAMPLES).fingerprint()
    assert bytes(de.corpus.open(tables / name, tokens="text")[2]) == b"c"
    with pytest.raises(ValueError, match="the column is of type int64; expected text, or lists of integers"):
        de.corpus.open(tables / name, tokens="id").shard(0, 1)
    with pytest.raises(ValueError, match="has no field 'x'; it has 'id', 'input_ids', 'text'"):
        de.corpus.open(tables / name, tokens="x")


def test_nulls_in_a_column_are_refused(tmp_path):
    for column in ([[1], None], [[1], [None]], ["a", None]):
        pq.write_table(pa.table({"tokens": column}), tmp_path / "a.parquet")
        with pytest.raises(ValueError, match=r"a.parquet: the column holds nulls; fill them in"):
            de.corpus.parquet(tmp_path / "a.parquet").shard(0, 2)
        (tmp_path / "a.parquet").rename(tmp_path / f"{len(list(tmp_path.iterdir()))}.old")


def test_datasets_in_memory_keep_their_order(tables):
    rows = datasets.Dataset.from_dict({"input_ids": SAMPLES})
    assert content(de.corpus.open(rows.select([3, 0]))) == [SAMPLES[3], SAMPLES[0]]
    with pytest.raises(ValueError, match="the dataset has the splits 'train', 'test'; give one of them"):
        de.corpus.open(datasets.DatasetDict({"train": rows, "test": rows}))
    (tables / "saved/state.json").write_text("{")
    with pytest.raises(ValueError, match=r"is not a readable dataset"):
        de.corpus.open(tables / "saved")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda sample: torch.tensor(sample, dtype=torch.int64),
        lambda sample: np.array(sample, np.int32),
        lambda sample: {"input_ids": sample, "labels": 1},
        lambda sample: (torch.tensor(sample, dtype=torch.int64), 1),
    ],
)
def test_map_style_datasets(wrap):
    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return len(SAMPLES)

        def __getitem__(self, index):
            return wrap(SAMPLES[index])

    corpus = de.corpus.open(Rows())
    assert content(corpus) == SAMPLES
    assert list(corpus.spans(3)) == [(i, i + 3) if i == 0 else (i, 4) for i in (0, 3)]


def test_a_dataset_is_read_by_one_thread_at_a_time():
    class Slow:
        reading = 0

        def __len__(self):
            return 40

        def __getitem__(self, index):
            self.reading += 1
            time.sleep(0.001)
            assert self.reading == 1, "read by two threads at once"
            self.reading -= 1
            return [index]

    corpus = de.corpus.open(Slow())
    with ThreadPoolExecutor(4) as pool:
        shards = list(pool.map(corpus.shard, range(0, 40, 10), range(10, 50, 10)))
    assert [shard.tokens.tolist() for shard in shards] == [list(range(i, i + 10)) for i in range(0, 40, 10)]
    assert pickle.loads(pickle.dumps(de.corpus.open([{"input_ids": [7]}]))).source  # noqa: S301


def test_what_is_no_map_style_dataset_is_refused():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield [1]

    with pytest.raises(ValueError, match=r"the dataset is a Stream without len\(\) or \[index\]"):
        de.corpus.open(Stream())
    with pytest.raises(ValueError, match=r"sample 0 of the dataset has no field 'x'; it has 'y'"):
        content(de.corpus.open([{"y": [1]}], tokens="x"))
    with pytest.raises(ValueError, match="options are tokens; samples in memory take none"):
        de.corpus.open([[1]], tokens="x")


def test_tokenizers_of_every_kind(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"to": 0, "be": 1, "?": 2}, unk_token="?"))  # noqa: S106
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "a.txt").write_text("to be\nor be\n")
    expected = [[0, 1], [2, 1]]
    for tokenizer in (made, tmp_path / "tokenizer.json", str(tmp_path / "tokenizer.json")):
        corpus = de.corpus.open(tmp_path / "a.txt", sample_by="line", tokenizer=tokenizer)
        assert content(corpus) == expected
        assert corpus.shard(0, 1).tokens.dtype == np.int32
    own = de.corpus.open(tmp_path / "a.txt", sample_by="line", tokenizer=Words())
    assert content(own) == [[2, 2], [2, 2]]
    plain = de.corpus.open(tmp_path / "a.txt", sample_by="line")
    assert len({c.fingerprint() for c in (corpus, own, plain)}) == 3
    written = corpus.write(tmp_path / "written", dtype="uint16")
    assert content(written) == expected
    assert content(corpus.windows(3)) == [[0, 1, 2]]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.arrow"])
def test_records_of_text_under_a_tokenizer(tmp_path, name):
    table = pa.table({"text": ["to be", "or not"]})
    if name == "a.jsonl":
        (tmp_path / name).write_text('{"text": "to be"}\n{"text": "or not"}\n')
    elif name == "a.parquet":
        pq.write_table(table, tmp_path / name)
    else:
        with pa.ipc.new_file(str(tmp_path / name), table.schema) as file:
            file.write_table(table)
    corpus = de.corpus.open(tmp_path / name, tokenizer=Words())
    assert content(corpus) == [[2, 2], [2, 3]]
    assert corpus.fingerprint() != de.corpus.open(tmp_path / name).fingerprint()
    assert corpus.fingerprint() == de.corpus.open(tmp_path / name, tokenizer=Words()).fingerprint()


def test_what_is_no_tokenizer_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no tokenizer at .*nowhere.json: no such file"):
        as_tokenizer(tmp_path / "nowhere.json")
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(ValueError, match=r"bad.json is no tokenizer.json"):
        as_tokenizer(tmp_path / "bad.json")


def test_a_folder_of_shards_is_one_corpus(tmp_path):
    for i in range(3):
        from_samples([[i, i], [i]]).write(tmp_path / f"part{i}", "megatron", dtype="uint16")
    corpus = de.corpus.open(tmp_path)
    assert content(corpus) == [[0, 0], [0], [1, 1], [1], [2, 2], [2]]
    assert [corpus[i].tolist() for i in (2, -1)] == [[1, 1], [2]]
    assert content(corpus.windows(4)) == [[0, 0, 0, 1], [1, 1, 2, 2]]
    assert corpus.fingerprint() == from_samples(content(corpus)).fingerprint()
    assert corpus.token_offsets().tolist() == [0, 2, 3, 5, 6, 8, 9]
    assert list(corpus.spans(3, 1)) == [(1, 2), (2, 4), (4, 6)]
    assert eval(repr(corpus), vars(de.corpus) | {"PosixPath": str}).fingerprint() == corpus.fingerprint()  # noqa: S307


def test_a_folder_of_json_lines_and_one_of_flat_npy(tmp_path):
    (tmp_path / "j").mkdir()
    for name in ("b", "a"):
        (tmp_path / f"j/{name}.jsonl").write_text(json.dumps({"text": name}) + "\n")
    assert [bytes(s) for s in de.corpus.open(tmp_path / "j").shard(0, 2)] == [b"a", b"b"]
    (tmp_path / "n").mkdir()
    from_samples([[1], [2, 3]]).write(tmp_path / "n/x.npy", "npy")
    assert content(de.corpus.open(tmp_path / "n")) == [[1], [2, 3]]


def test_a_folder_of_several_formats_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("to be")
    np.save(tmp_path / "b.npy", np.zeros((2, 2), int))
    with pytest.raises(
        ValueError, match=r"holds files of several formats: .*b.npy \(npy\), .*a.txt \(text\)"
    ):
        de.corpus.open(tmp_path)


def test_a_packed_file_says_to_unpack_it(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(b"\x1f\x8b\x08rest")
    with pytest.raises(ValueError, match=r"a.jsonl.gz is packed with gzip; unpack it first"):
        de.corpus.open(tmp_path / "a.jsonl.gz")


def test_a_file_that_becomes_shorter_is_noticed(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("to be\nor not\n")
    corpus = de.corpus.open(path, sample_by="line")
    path.write_text("to")
    with pytest.raises(ValueError, match=r"a.txt has become shorter since it was opened"):
        corpus.shard(0, 2)


def test_lines_may_end_as_on_windows_and_the_last_need_not(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a\r\n\r\n \t\nb\nc")
    corpus = de.corpus.open(tmp_path / "a.txt", sample_by="line")
    assert [bytes(sample) for sample in corpus.shard(0, 3)] == [b"a", b"b", b"c"]


def test_a_first_sample_without_tokens_does_not_decide_the_dtype(tmp_path):
    assert content(from_samples([[], [300]]).write(tmp_path / "out.bin")) == [[], [300]]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.bin", "out.idx"]


def test_a_format_chooses_among_the_files_of_a_folder(tables, tmp_path):
    (tmp_path / "mixed").mkdir()
    shutil.copy(tables / "a.parquet", tmp_path / "mixed/a.parquet")
    (tmp_path / "mixed/readme.txt").write_text("to be")
    assert content(de.corpus.open(tmp_path / "mixed", "parquet")) == SAMPLES


def test_a_saved_dict_of_datasets_asks_for_the_split(tmp_path):
    rows = datasets.Dataset.from_dict({"input_ids": [[1]]})
    datasets.DatasetDict({"train": rows}).save_to_disk(str(tmp_path / "d"))
    with pytest.raises(ValueError, match="the dataset has the splits 'train'; give one of them"):
        de.corpus.open(tmp_path / "d")


def test_tokens_that_look_like_a_packed_file_are_tokens(tmp_path):
    np.array([35615, 2, 3], np.uint16).tofile(tmp_path / "a.bin")
    assert content(de.corpus.open(tmp_path / "a.bin", window=3)) == [[35615, 2, 3]]
