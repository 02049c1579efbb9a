"""Ten thousand damaged files: each is read as what it is, or refused by name. Never anything else."""

import faulthandler
import json
import multiprocessing
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import attrs
import numpy as np
import pytest

import dataeff as de

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux knows it")

SPARE = 2**28  # bytes of address space for files of a few thousand, beyond what the sound one takes
SLOW = 20  # seconds for 25 files
TEXTS = [f"Line {i}: {'to be, ' * (i % 5)}or not — ✓{chr(10) * (i % 3)}" for i in range(40)]
IDS = [[(7 * i + k) % 250 for k in range(i % 9)] for i in range(40)]
BIG = [2**31 - 1, 2**31, 2**32, 2**40, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1]


# Damages: from bytes to others.


def _place(content, rng):
    """Anywhere, but half of the time near an end, where headers and footers are."""
    place = int(rng.integers(len(content)))
    return place if rng.integers(2) else (place % 200) * (1, -1)[rng.integers(2)] % len(content)


def _range(content, rng):
    low = _place(content, rng)
    return low, min(low + int(rng.integers(1, 65)), len(content))


def flip(content, rng):
    changed = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        changed[_place(content, rng)] ^= int(rng.integers(1, 256))
    return bytes(changed)


def cut(content, rng):
    return content[: _place(content, rng)]


def extend(content, rng):
    return content + rng.bytes(int(rng.integers(1, 100)))


def zero(content, rng):
    low, high = _range(content, rng)
    return content[:low] + b"\0" * (high - low) + content[high:]


def saturate(content, rng):
    low, high = _range(content, rng)
    return content[:low] + b"\xff" * (high - low) + content[high:]


def repeat(content, rng):
    low, high = _range(content, rng)
    return content[:high] + content[low:]


def enlarge(content, rng):
    """A large number in place of eight bytes, or between them."""
    low = _place(content, rng)
    low -= low % 8 * int(rng.integers(2))
    number = BIG[rng.integers(len(BIG))].to_bytes(8, "little")
    return content[:low] + number + content[low + 8 * int(rng.integers(2)) :]


def renumber(content, rng):
    """Another number in place of one in digits: headers of arrays, and JSON."""
    found = list(re.finditer(rb"\d+", content))
    if not found:
        return flip(content, rng)
    low, high = found[rng.integers(len(found))].span()
    others = (0, 1, int(rng.integers(1000)), -1, *BIG)
    return content[:low] + str(others[rng.integers(len(others))]).encode() + content[high:]


DAMAGES = (flip, cut, extend, zero, saturate, repeat, enlarge, renumber)


# Formats: how a sound file is made and opened, which files are damaged in turn, and how often.


@attrs.frozen
class Format:
    count: int
    make: Callable
    open: Callable
    files: tuple[str, ...]


def _samples():
    return de.corpus.from_samples(IDS)


def _text(folder):
    (folder / "c.txt").write_text("".join(TEXTS), encoding="utf-8")


def _lines(field, values):
    def make(folder):
        (folder / "c.jsonl").write_text("".join(json.dumps({field: value}) + "\n" for value in values))

    return make


def _table():
    import pyarrow as pa

    return pa.table({"input_ids": pa.array(IDS, pa.list_(pa.int32())), "text": TEXTS})


def _parquet(folder):
    import pyarrow.parquet as pq

    pq.write_table(_table(), folder / "c.parquet", row_group_size=15)


def _arrow(writer):
    def make(folder):
        import pyarrow as pa

        table = _table()
        with getattr(pa.ipc, writer)(str(folder / "c.arrow"), table.schema) as file:
            file.write_table(table, max_chunksize=15)

    return make


def _index(folder):
    de.index.build(_samples(), {"voc": "vocab_rarity", "len": "length"}, out=folder, progress=False)


def _corpus(count, make, *files, format, of="c", **options):
    return Format(count, make, lambda folder: de.corpus.open(folder / of, format, **options), files)


FORMATS = {
    "megatron": _corpus(
        2000,
        lambda folder: _samples().write(folder / "c", "megatron", dtype="uint16"),
        *("c.idx", "c.idx", "c.idx", "c.bin"),
        format="megatron",
    ),
    "npy of rows": _corpus(
        1300,
        lambda folder: np.save(folder / "c.npy", np.arange(480, dtype=np.uint16).reshape(60, 8)),
        "c.npy",
        format="npy",
        of="c.npy",
    ),
    "flat npy": _corpus(
        1400,
        lambda folder: _samples().write(folder / "c.npy", "npy", dtype="int32"),
        *("c.npy", "c.offsets.npy"),
        format="npy",
        of="c.npy",
    ),
    "bin": _corpus(
        400,
        lambda folder: np.arange(500, dtype=np.uint16).tofile(folder / "c.bin"),
        "c.bin",
        format="bin",
        of="c.bin",
        window=7,
        stride=5,
    ),
    "documents": _corpus(100, _text, "c.txt", format="text", of="c.txt"),
    "paragraphs": _corpus(200, _text, "c.txt", format="text", of="c.txt", sample_by="paragraph"),
    "lines": _corpus(200, _text, "c.txt", format="text", of="c.txt", sample_by="line"),
    "jsonl of texts": _corpus(300, _lines("text", TEXTS), "c.jsonl", format="jsonl", of="c.jsonl"),
    "jsonl of ids": _corpus(400, _lines("tokens", IDS), "c.jsonl", format="jsonl", of="c.jsonl"),
    "parquet": _corpus(700, _parquet, "c.parquet", format="parquet", of="c.parquet"),
    "arrow file": _corpus(700, _arrow("new_file"), "c.arrow", format="arrow", of="c.arrow"),
    "arrow stream": _corpus(700, _arrow("new_stream"), "c.arrow", format="arrow", of="c.arrow"),
    "index": Format(
        1600,
        _index,
        de.index.open,
        (
            *("manifest.json", "voc/values.npy", "manifest.json", "voc/order.npy"),
            *("manifest.json", "voc/fitted.npy", "manifest.json", "len/values.npy"),
        ),
    ),
}


# Reading all that there is.


def read_index(index):
    """What the index gives, to be compared with the original."""
    index.verify()
    given = {}
    for metric in index.metrics:
        fitted = index.fitted(metric)
        arrays = [index.values(metric), index.order(metric), index.percentiles(metric)]
        arrays += [] if fitted is None else [fitted]
        given[metric] = [(array.dtype, array.tolist()) for array in arrays]
    return len(index), index.fingerprint, given


def read_corpus(corpus):
    """Nothing to compare: damaged tokens are tokens. But lengths and offsets must fit each other."""
    at = total = 0
    for start, stop in corpus.spans(100):
        shard = corpus.shard(start, stop)
        assert start == at < stop <= len(corpus)
        assert len(shard) == stop - start
        assert shard.offsets[0] == 0
        assert (np.diff(shard.offsets) >= 0).all()
        assert shard.offsets[-1] == len(shard.tokens)
        assert shard.tokens.dtype.kind in "iu"
        at, total = stop, total + len(shard.tokens)
        shard.tokens.sum()
    assert at == len(corpus)
    assert corpus.token_offsets()[-1] == total
    assert len(corpus.fingerprint()) == 16
    assert not at or corpus[-1].ndim == 1


def prime():
    """Load the kernel for every dtype that a damaged header may name: compiled code takes room too."""
    for dtype in ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8"):
        tokens = np.zeros(3, dtype)
        for writeable in (True, False):
            tokens.flags.writeable = writeable
            de.corpus.digest(tokens, np.array([0, 3]))


def damage(name, folder):
    """Read all damaged files of a format. Logs the number of each, and what should not have come of it."""
    import resource

    kind, read = FORMATS[name], read_index if name == "index" else read_corpus
    home = folder / "sound"
    home.mkdir()
    with (folder / "log").open("w", buffering=1) as log:
        faulthandler.enable(log)
        kind.make(home)
        original = read(kind.open(home))
        prime()
        room = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + SPARE
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", RuntimeWarning)
        refused = 0
        for seed in range(kind.count):
            log.write(f"seed {seed}\n")
            if seed % 25 == 0:
                faulthandler.dump_traceback_later(SLOW, exit=True, file=log)
            home = home.rename(folder / str(seed))  # a name of its own, for readers that remember names
            file = home / kind.files[seed % len(kind.files)]
            content = file.read_bytes()
            rng = np.random.default_rng([seed, *name.encode()])
            file.write_bytes(DAMAGES[rng.integers(len(DAMAGES))](content, rng))
            concerned = [file] if name == "index" else [home / other for other in kind.files]
            try:
                assert read(kind.open(home)) == original, "it is not what was written"
            except (ValueError, FileNotFoundError) as error:
                refused += 1
                plain = type(error) in (ValueError, FileNotFoundError)
                if not plain or not any(str(path) in str(error) for path in concerned):
                    log.write(f"FAULT {traceback.format_exc()}\n")
            except BaseException:
                log.write(f"FAULT {traceback.format_exc()}\n")
            file.write_bytes(content)
        faulthandler.cancel_dump_traceback_later()
        log.write(f"refused {refused} of {kind.count}\n")


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_is_read_or_refused_by_name(name, tmp_path):
    context = multiprocessing.get_context("forkserver")  # a fresh interpreter for each would take a minute
    context.set_forkserver_preload(["tests.test_fuzz"])
    child = context.Process(target=damage, args=(name, tmp_path))
    child.start()
    child.join()
    log = (tmp_path / "log").read_text()
    assert child.exitcode == 0, f"died with {child.exitcode} at {log[log.rfind('seed ') :]}"
    faults = re.findall(r"(?s)seed \d+\nFAULT .*?(?=\nseed|\nrefused)", log)
    assert not faults, f"{len(faults)} of {FORMATS[name].count} files: {' '.join(faults[:3])}"
    refused = int(re.search(r"refused (\d+) of", log)[1])
    assert FORMATS[name].count / 10 < refused < FORMATS[name].count


def test_ten_thousand_files():
    assert sum(kind.count for kind in FORMATS.values()) == 10_000


def test_a_header_of_endless_empty_samples_is_refused(tmp_path):
    path = tmp_path / "c.npy"
    with path.open("wb") as file:
        header = {"descr": "<u2", "fortran_order": False, "shape": (2**40, 0)}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(ValueError, match="c.npy"):
        de.corpus.open(path)
