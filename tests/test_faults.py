"""Kills, full disks and corpora that change: a build goes on to the same bytes, or says what is wrong."""

import errno
import fcntl
import json
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

import dataeff as de
from dataeff._files import locked
from dataeff.index import _tasks
from tests.conftest import ROOT

SAMPLES = 180
LOG = "DATAEFF_TEST_LOG"  # the file where `slow` notes each sample that it scores
DEADLY = "DATAEFF_TEST_DEADLY"  # the sample at which `deadly` kills its process


def numbered(count, start=0):
    """Samples that begin with their own number."""
    return [[i, *((7 * i + k) % 250 for k in range(i % 5))] for i in range(start, start + count)]


def slow(tokens):
    time.sleep(0.001)
    if LOG in os.environ:
        with Path(os.environ[LOG]).open("ab", buffering=0) as log:
            log.write(b"%d\n" % tokens[0])
    return float(tokens.sum()) / 2


def deadly(tokens):
    if os.environ.get(DEADLY) == str(tokens[0]):
        os.kill(os.getpid(), signal.SIGKILL)
    return len(tokens)


METRICS = ("length", "vocab_rarity", slow)


def build(corpus, out, metrics=METRICS, executor="serial", **options):
    return de.index.build(corpus, list(metrics), out=out, executor=executor, progress=False, **options)


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def differing(folder, other):
    """Names of the files that only one of them has, or that differ."""
    return sorted({name for name, _ in tree(folder).items() ^ tree(other).items()})


def hidden(folder):
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(de.metrics.Metric, "shard_tokens", 48)


@pytest.fixture
def log(tmp_path, monkeypatch):
    """The samples that `slow` scored from now on."""
    monkeypatch.setenv(LOG, str(tmp_path / "log"))
    return lambda: logged(tmp_path / "log")


def logged(path):
    return [int(line) for line in path.read_text().split()] if path.exists() else []


@contextmanager
def within(seconds):
    def stop(*_):
        raise TimeoutError(f"hangs: not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# Kills of the building process. It is forked from a fresh interpreter, which takes seconds to start.


@pytest.fixture(scope="module")
def nursery():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dataeff"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        yield lambda task, *args: pool.submit(task, *args).result(timeout=300)


def forked(task, *args):
    """The id of a fork of this process that does the task and no more."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            task(*args)
            code = 0
        finally:
            os._exit(code)
    return pid


def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kept(out):
    """Samples whose values by `slow` are on disk, whole."""
    if (out / "manifest.json").exists() or (out / "parts/manifest.json").exists():
        return set(range(SAMPLES))
    found = set()
    for path in out.glob("parts/slow-score-*.npy"):
        start = int(path.name.split("-")[2])
        found |= set(range(start, start + len(np.load(path))))
    return found


def kill_at_moments(folder, count, seed):
    """Kill so many builds at moments spread over their time, and finish them; what came of each."""
    de.metrics.Metric.shard_tokens = 48
    rng, took, found = np.random.default_rng(seed), {}, []
    build(numbered(SAMPLES), folder / "warm")  # forks find the kernels loaded
    for executor in ("serial", "threads"):
        start = time.monotonic()
        assert ended(forked(build, numbered(SAMPLES), folder / executor, METRICS, executor)) == 0
        took[executor] = time.monotonic() - start
    while len(found) < count:
        executor = ("serial", "threads")[len(found) % 2]
        out, again = folder / "idx", folder / f"{len(found)}.log"
        os.environ.pop(LOG, None)
        pid = forked(build, numbered(SAMPLES), out, METRICS, executor)
        time.sleep(rng.uniform(0, took[executor]))
        os.kill(pid, signal.SIGKILL)
        if ended(pid) == 0:  # it was faster than the one that was timed
            took[executor] *= 0.9
        else:
            held = kept(out)
            os.environ[LOG] = str(again)
            assert ended(forked(build, numbered(SAMPLES), out, METRICS, executor)) == 0
            found.append((held, logged(again), differing(out, folder / "serial")))
        shutil.rmtree(out, ignore_errors=True)
    return found


def test_a_build_killed_at_any_moment_goes_on_to_the_same_bytes_and_redoes_nothing(nursery, tmp_path):
    found = nursery(kill_at_moments, tmp_path, 30, 0)
    assert sum(0 < len(held) < SAMPLES for held, _, _ in found) > 5
    for held, again, others in found:
        assert not others
        assert sorted(again) == sorted(set(range(SAMPLES)) - held)


def held_by_one_that_was_killed(folder):
    """A build in a fork, after another fork was killed with the lock of progress bars."""
    from tqdm import tqdm

    tqdm.get_lock()  # which forks share from now on

    def die():
        tqdm.get_lock().acquire()
        os.kill(os.getpid(), signal.SIGKILL)

    def go_on():
        signal.alarm(60)  # ends a build that waits
        build(numbered(30), folder / "idx")

    assert ended(forked(die)) == -signal.SIGKILL
    return ended(forked(go_on))


def test_a_build_without_a_bar_does_not_wait_for_its_lock(tmp_path):
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        assert pool.submit(held_by_one_that_was_killed, tmp_path).result(timeout=120) == 0


def kill_at_steps(folder):
    """Kill builds before each change of the folder in turn: (step, what the finished one has otherwise)."""
    de.metrics.Metric.shard_tokens = 48
    corpus, metrics = numbered(30), ("length", "vocab_rarity")
    changes = {name: getattr(os, name) for name in ("mkdir", "replace", "unlink", "rmdir")}
    done, last = 0, None

    def step(name):
        def change(*args, **options):
            nonlocal done
            if done == last:
                os.kill(os.getpid(), signal.SIGKILL)
            done += 1
            return changes[name](*args, **options)

        return change

    def stepwise(out):
        for name in changes:
            setattr(os, name, step(name))
        build(corpus, out, metrics)

    build(corpus, folder / "whole", metrics)
    faults = []
    for last in range(1000):
        out = folder / f"{last}"
        if ended(forked(stepwise, out)) == 0:
            return last, faults
        assert ended(forked(build, corpus, out, metrics)) == 0
        if others := differing(out, folder / "whole"):
            faults.append((last, others))
    raise AssertionError("a build without end")


def test_a_build_killed_at_any_step_leaves_no_trace_in_the_end(nursery, tmp_path):
    steps, faults = nursery(kill_at_steps, tmp_path)
    assert steps > 40
    assert not faults


# Kills of workers.


@pytest.mark.parametrize("sample", [0, SAMPLES // 2, SAMPLES - 1])
def test_a_worker_that_is_killed_ends_the_build_and_the_same_call_goes_on(
    tmp_path, small_shards, monkeypatch, sample
):
    build(numbered(SAMPLES), tmp_path / "whole", ["length", deadly])
    monkeypatch.setenv(DEADLY, str(sample))
    with pytest.raises(ChildProcessError, match="Finished pieces are kept; run the same again"), within(60):
        build(numbered(SAMPLES), tmp_path / "idx", ["length", deadly], "processes", workers=2)
    assert not (tmp_path / "idx/manifest.json").exists()
    monkeypatch.delenv(DEADLY)
    build(numbered(SAMPLES), tmp_path / "idx", ["length", deadly])
    assert tree(tmp_path / "idx") == tree(tmp_path / "whole")


def test_a_killed_build_leaves_no_worker_behind(tmp_path):
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.test_faults import SAMPLES, build, numbered, slow\n"
        "if __name__ == '__main__':\n"
        "    build(numbered(SAMPLES) * 100, Path(sys.argv[1]), [slow], 'processes', workers=2)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "idx")],
        cwd=ROOT,
        env=os.environ | {LOG: str(tmp_path / "log")},
        stdout=subprocess.PIPE,  # the workers hold it too, until they end
        start_new_session=True,
    ) as child:
        try:
            with within(60):
                while not logged(tmp_path / "log"):
                    assert child.poll() is None
                    time.sleep(0.05)
            child.kill()
            with within(10):
                child.stdout.read()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


# Forks, which have open what their parent had.


def build_twice_on_forks(out):
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, mp_context=context) as pool, within(60):
        build(numbered(30), out, ["length"], pool)
        build(numbered(30), out, ["vocab_rarity"], pool)


def test_builds_share_an_executor_of_forks(nursery, tmp_path):
    nursery(build_twice_on_forks, tmp_path / "idx")
    assert de.index.open(tmp_path / "idx").metrics == ("length", "vocab_rarity")


def die_and_leave_a_fork(folder):
    with locked(folder):
        child = forked(time.sleep, 60)
        (folder / "child").write_text(str(child))
        os.kill(os.getpid(), signal.SIGKILL)


def held_after_death(folder):
    """The time that a folder stays held after the holder was killed, as an error if it is long."""
    assert ended(forked(die_and_leave_a_fork, folder)) == -signal.SIGKILL
    try:
        with within(20), locked(folder):
            pass
    finally:
        os.kill(int((folder / "child").read_text()), signal.SIGKILL)


def test_a_killed_holder_lets_go_of_a_folder_though_its_fork_lives(nursery, tmp_path):
    nursery(held_after_death, tmp_path)


def is_held(folder):
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def left_by_fork(folder):
    """Whether the folder is held while it should be, after it should be."""
    child = None
    try:
        with locked(folder):
            child = os.fork()
            inside = bool(child) and ended(child) == 0 and is_held(folder)
    finally:
        if child == 0:
            os._exit(0)
    return inside, is_held(folder)


def test_a_fork_does_not_let_go_of_what_its_parent_holds(nursery, tmp_path):
    assert nursery(left_by_fork, tmp_path) == (True, False)


# Open files: 1024 a process on most machines, 256 on some.


def build_with_few_open_files(out):
    import resource

    de.metrics.Metric.shard_tokens = 1
    usual, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, most))
    try:
        build([[i] for i in range(150)], out, ["length", "vocab_rarity"])
        build([[i] for i in range(300)], out, ["length", "vocab_rarity"])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (usual, most))


def test_a_build_of_many_parts_needs_few_open_files(nursery, tmp_path):
    nursery(build_with_few_open_files, tmp_path / "idx")
    build([[i] for i in range(300)], tmp_path / "fresh", ["length", "vocab_rarity"])
    assert tree(tmp_path / "idx") == tree(tmp_path / "fresh")


# Files that several write at once, or that cannot be written.


def test_threads_that_write_one_file_leave_that_of_one_of_them(tmp_path):
    def write(number):
        for _ in range(50):
            de.config.write({"number": number}, tmp_path / "run.toml")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert de.config.read(tmp_path / "run.toml")["number"] in range(4)
    assert not hidden(tmp_path)


def test_a_file_that_cannot_be_written_is_named_as_it_was_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"its folder is not there; make it first: '.*/no/run.toml'$"):
        de.config.write({"seed": 1}, tmp_path / "no/run.toml")
    (tmp_path / "run.toml").mkdir()
    with pytest.raises(IsADirectoryError, match=r"directory: '.*/run.toml'$"):
        de.config.write({"seed": 1}, tmp_path / "run.toml")
    assert not hidden(tmp_path)


# Full disks.


@pytest.fixture
def disk(tmp_path):
    """A function that mounts a small disk. Only root may."""
    at, mount = tmp_path / "disk", shutil.which("mount")
    at.mkdir()

    def make(limit):
        command = [mount, "-t", "tmpfs", "-o", limit, "none", str(at)]
        made = subprocess.run(command, capture_output=True, text=True, check=False) if mount else None
        if made is None or made.returncode:
            pytest.skip(f"no disk can be mounted here: {made.stderr.strip() if made else 'no mount'}")
        return at

    yield make
    if at.is_mount():
        subprocess.run([shutil.which("umount"), "-l", str(at)], check=True)


def fill_pages(disk, left):
    """Leave room for so many pages."""
    space = os.statvfs(disk)
    if space.f_bavail < left:
        return False
    (disk / "filler").write_bytes(bytes((space.f_bavail - left) * space.f_bsize))
    return True


def fill_inodes(disk, left):
    """Leave room for so many files and folders."""
    (disk / "filler").mkdir()
    spare = os.statvfs(disk).f_favail - left
    for i in range(spare):
        (disk / f"filler/{i}").touch()
    return spare >= 0


def empty(folder):
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def assert_says_what_to_do(error, disk):
    assert type(error) is OSError
    assert error.errno == errno.ENOSPC
    assert re.search(rf"no space left to write {disk}/.*; free some and run the same again", str(error))
    assert error.__suppress_context__ or error.__context__ is None


@pytest.mark.parametrize(
    ("limit", "fill"),
    [("size=256k", fill_pages), ("size=1m,nr_inodes=64", fill_inodes)],
    ids=["bytes", "files"],
)
def test_a_full_disk_stops_the_build_and_with_more_space_it_goes_on(tmp_path, disk, monkeypatch, limit, fill):
    disk = disk(limit)
    monkeypatch.setattr(de.metrics.Metric, "shard_tokens", 1010)  # parts of 505 values, just over a page
    corpus = [[i % 600, i % 7] for i in range(1100)]
    build(corpus, tmp_path / "elsewhere", ["length", "vocab_rarity"])
    for left in range(1000):
        assert fill(disk, left)
        try:
            build(corpus, disk / "idx", ["length", "vocab_rarity"])
        except OSError as error:
            assert_says_what_to_do(error, disk)
        else:
            break
        assert not hidden(disk)
        assert not (disk / "idx/manifest.json").exists()
        shutil.rmtree(filler) if (filler := disk / "filler").is_dir() else filler.unlink()
        build(corpus, disk / "idx", ["length", "vocab_rarity"])
        assert tree(disk / "idx") == tree(tmp_path / "elsewhere")
        empty(disk)
    assert left > 10


@pytest.mark.parametrize("format", ["megatron", "npy"])
def test_a_full_disk_leaves_nothing_of_a_corpus_that_is_written(tmp_path, disk, format):
    disk = disk("size=256k")
    corpus = de.corpus.from_samples(numbered(3000))
    for left in range(1000):
        assert fill_pages(disk, left)
        try:
            corpus.write(disk / "c.npy", format)
        except OSError as error:
            assert_says_what_to_do(error, disk)
        else:
            break
        assert [path.name for path in disk.iterdir()] == ["filler"]
        empty(disk)
    assert left > 10
    assert len(list(disk.iterdir())) == 3


# Corpora that are written, grow or change.


@pytest.mark.parametrize("format", ["megatron", "npy"])
@pytest.mark.parametrize("samples", [[[1], [2, 3]], None], ids=["over another", "anew"])
def test_a_corpus_cut_off_between_its_two_files_is_refused(tmp_path, monkeypatch, format, samples):
    path, moved, replace = tmp_path / "c.npy", [], Path.replace
    if samples:
        de.corpus.from_samples(samples).write(path, format)

    def replace_one(self, target):
        if moved:
            raise Cut
        moved.append(replace(self, target))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace_one)
        with pytest.raises(Cut):
            de.corpus.from_samples([[7, 8], [9]]).write(path, format)
    for opened in (path, tmp_path / "c.npy.bin", tmp_path / "c.npy.idx", tmp_path):
        with pytest.raises(
            (FileNotFoundError, ValueError), match=r"no (corpus at )?[^ ]*c\.npy|is not beside it"
        ):
            de.corpus.open(opened)
    written = de.corpus.from_samples([[7, 8], [9]]).write(path, format)
    assert [sample.tolist() for sample in written] == [[7, 8], [9]]


def _as_list(folder, samples):
    return samples


def _as_file(folder, samples):
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps({"tokens": sample}) + "\n" for sample in samples))
    return path


@pytest.mark.parametrize(("made", "known"), [(_as_list, 1), (_as_list, SAMPLES - 1), (_as_file, 70)])
def test_samples_that_were_added_are_scored_alone(tmp_path, small_shards, log, made, known):
    build(made(tmp_path, numbered(known)), tmp_path / "idx")
    before = log()
    corpus = made(tmp_path, numbered(SAMPLES))
    build(corpus, tmp_path / "idx")
    assert before == list(range(known))
    assert log() == list(range(SAMPLES))
    build(corpus, tmp_path / "fresh")
    assert tree(tmp_path / "idx") == tree(tmp_path / "fresh")


def changed(samples, sample, place):
    samples = [list(tokens) for tokens in samples]
    samples[sample][place] += 1
    return samples


def test_one_token_in_the_middle_of_a_large_corpus_is_a_change(tmp_path):
    tokens = np.arange(2**22, dtype=np.uint32).reshape(4096, 1024)
    np.save(tmp_path / "tokens.npy", tokens)
    index = build(tmp_path / "tokens.npy", tmp_path / "idx", ["length"])
    tokens[2047, 511] ^= 1
    np.save(tmp_path / "tokens.npy", tokens)
    found = de.corpus.open(tmp_path / "tokens.npy").fingerprint()
    said = f"{index.fingerprint} over 4096 samples, this one has {found} over 4096; give another out="
    with pytest.raises(ValueError, match=said):
        build(tmp_path / "tokens.npy", tmp_path / "idx", ["vocab_rarity"])


@pytest.mark.parametrize("sample", [1, 90, 149])
def test_an_early_sample_that_changed_under_added_ones_is_a_change(tmp_path, small_shards, sample):
    index = build(numbered(150), tmp_path / "idx")
    before = tree(tmp_path / "idx")
    corpus = de.corpus.open(changed(numbered(SAMPLES), sample, 0))
    said = rf"{index.fingerprint} over 150 samples, this one has {corpus.fingerprint()} over {SAMPLES}"
    with pytest.raises(ValueError, match=said):
        build(corpus, tmp_path / "idx")
    assert tree(tmp_path / "idx") == before


def test_a_corpus_that_has_lost_samples_is_a_change(tmp_path):
    index = build(numbered(150), tmp_path / "idx")
    corpus = de.corpus.open(numbered(149))
    said = rf"{index.fingerprint} over 150 samples, this one has {corpus.fingerprint()} over 149"
    with pytest.raises(ValueError, match=said):
        build(corpus, tmp_path / "idx")


class Cut(BaseException):
    """Not an Exception: nothing on the way catches it, as nothing catches a kill."""


@contextmanager
def commit_cut_off(after):
    """Stop a build once so many files of the index are in their place."""
    moved, replace = [], Path.replace

    def replace_some(self, target):
        if self.parent.parent.name == "parts" and "parts" not in Path(target).parts:
            if len(moved) == after:
                raise Cut
            moved.append(target)
        return replace(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", replace_some)
        yield


@pytest.mark.parametrize("after", [0, 1, 4])
@pytest.mark.parametrize("known", [0, 150])
def test_a_commit_that_was_cut_off_is_completed_by_the_next_build(tmp_path, log, after, known):
    build(numbered(SAMPLES), tmp_path / "whole")
    if known:
        build(numbered(known), tmp_path / "idx")
    with commit_cut_off(after), pytest.raises(Cut):
        build(numbered(SAMPLES), tmp_path / "idx")
    before = log()
    build(numbered(SAMPLES), tmp_path / "idx")
    assert log() == before
    assert tree(tmp_path / "idx") == tree(tmp_path / "whole")


def test_a_commit_that_was_cut_off_is_completed_by_the_next_add(tmp_path):
    ranks = {"rank": range(SAMPLES)}
    build(numbered(SAMPLES), tmp_path / "whole", ["length"])
    build(numbered(SAMPLES), tmp_path / "whole", ["vocab_rarity"]).add(ranks)
    index = build(numbered(SAMPLES), tmp_path / "idx", ["length"])
    with commit_cut_off(1), pytest.raises(Cut):
        build(numbered(SAMPLES), tmp_path / "idx", ["vocab_rarity"])
    assert index.add(ranks).metrics == ("length", "vocab_rarity", "rank")
    assert tree(tmp_path / "idx") == tree(tmp_path / "whole")


def test_a_commit_that_was_cut_off_says_what_finishes_it(tmp_path):
    build(numbered(150), tmp_path / "idx")
    opened = de.index.open(tmp_path / "idx")
    with commit_cut_off(2), pytest.raises(Cut):
        build(numbered(SAMPLES), tmp_path / "idx")
    for index in (opened, de.index.open(tmp_path / "idx")):
        with pytest.raises(ValueError, match="was cut off or is under way; run the same build again, which"):
            index.order("length")
    build(numbered(SAMPLES), tmp_path / "idx")
    with pytest.raises(ValueError, match="has changed since it was opened; open it again"):
        opened.order("length")


# Files of an index that are damaged.


def damage(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("count", [150, SAMPLES])
@pytest.mark.parametrize("file", ["slow/values.npy", "length/order.npy", "vocab_rarity/fitted.npy"])
def test_a_metric_that_is_damaged_is_made_again(tmp_path, small_shards, log, count, file):
    build(numbered(150), tmp_path / "idx")
    damage(tmp_path / "idx" / file)
    before = len(log())
    build(numbered(count), tmp_path / "idx").verify()
    assert len(log()) - before == (count if "slow" in file else count - 150)
    build(numbered(count), tmp_path / "fresh")
    assert tree(tmp_path / "idx") == tree(tmp_path / "fresh")


def test_a_metric_that_is_gone_is_made_again_and_others_are_left(tmp_path):
    build(numbered(30), tmp_path / "idx", ["length", "vocab_rarity"])
    whole = tree(tmp_path / "idx")
    shutil.rmtree(tmp_path / "idx/length")
    damage(tmp_path / "idx/vocab_rarity/values.npy")
    index = build(numbered(30), tmp_path / "idx", ["length"])
    assert [name for name in whole if tree(tmp_path / "idx")[name] != whole[name]] == [
        "vocab_rarity/values.npy"
    ]
    with pytest.raises(ValueError, match=r"vocab_rarity/values.npy has checksum .*; rebuild it"):
        index.values("vocab_rarity")


# Files that change under a reader.


def _parquet(path, texts):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": texts}), path)
    return path


def test_a_parquet_file_that_was_written_anew_is_read_anew(tmp_path):
    before = de.corpus.open(_parquet(tmp_path / "c.parquet", ["to be", "or not"]))
    assert bytes(before[1]) == b"or not"
    after = de.corpus.open(_parquet(tmp_path / "c.parquet", ["the slings", "and arrows"]))
    assert bytes(after[1]) == b"and arrows"


def test_a_parquet_file_that_lost_rows_since_it_was_opened_is_refused(tmp_path):
    corpus = de.corpus.open(_parquet(tmp_path / "c.parquet", ["to be", "or not", "to be"]))
    _parquet(tmp_path / "c.parquet", ["to be", "or not"])
    with pytest.raises(ValueError, match=r"c\.parquet, row group 0, .*2 rows"):
        corpus.shard(0, 3)


# Executors.


@pytest.fixture(scope="module")
def many():
    rng = np.random.default_rng(0)
    return de.corpus.from_samples([rng.integers(0, 999, n, np.uint16) for n in rng.integers(1, 800, 2000)])


def test_a_corpus_in_memory_is_not_copied_to_find_that_it_is_heavy():
    source = _tasks.Source(de.corpus.Ragged(np.zeros(2**25, np.uint8), np.arange(0, 2**25 + 1, 2**10)))
    tracemalloc.start()
    try:
        assert source.pickled is None
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()
    assert len(pickle.loads(pickle.dumps(source.piece(0, 10))).shard()) == 10  # noqa: S301


def halves(tokens):
    return len(tokens) / 2


@pytest.mark.parametrize("where", ["memory", "file"])
def test_all_executors_give_the_same_bytes(tmp_path, monkeypatch, many, where):
    assert len(pickle.dumps(many)) > 2**20
    monkeypatch.setattr(de.metrics.Metric, "shard_tokens", 100_000)
    corpus = many if where == "memory" else many.write(tmp_path / "c", "megatron")
    assert where == "memory" or len(pickle.dumps(corpus)) < 2**12
    with ThreadPoolExecutor(3) as own:
        for name, executor in {
            "serial": "serial",
            "threads": "threads",
            "processes": "processes",
            "own": own,
        }.items():
            build(corpus, tmp_path / name, ["length", "vocab_rarity", halves], executor)
    serial = tree(tmp_path / "serial")
    assert serial == tree(tmp_path / "threads") == tree(tmp_path / "processes") == tree(tmp_path / "own")
