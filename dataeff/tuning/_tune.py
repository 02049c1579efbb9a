"""Run the probes of a search, each finished one into a log."""

import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from tqdm import tqdm

from dataeff import _files
from dataeff._distributed import rank_or_own
from dataeff.tuning import _log
from dataeff.tuning._config import Config
from dataeff.tuning._probe import Probe, ProbeError, run
from dataeff.tuning._ranks import from_first, same_on_all
from dataeff.tuning._search import Search
from dataeff.tuning._source import source
from dataeff.tuning._tuned import Tuned, conclude
from dataeff.tuning._walk import RECIPE, next_probe


def tune(
    probe: Callable[[Config], Iterable[tuple[int, float]]],
    *,
    starts: Iterable[float],
    durations: Iterable[int],
    end: float,
    warmup: int,
    out: str | Path,
    warmups: int = 3,
    multiple: int | None = None,
    factor: float = 1.3,
    fraction: float = 0.5,
    seed: int = 0,
    anyway: bool = False,
    progress: bool = False,
) -> Tuned:
    """The smallest start of a pace that is stable, then the longest duration that is, by short probes.

    First the recipe is tried without a pace. If it is unstable, half the learning rate and twice the batch
    are tried, and nothing is searched. Each grid is gone through by its most wanted value and then by
    halves, which presumes that a larger start and a shorter duration are steadier; the neighbours of what is
    found are tried too, and a note names what contradicts it.

    Every finished probe is a line of `out/tuning.jsonl`. Running the same again goes on from there: no
    finished probe is repeated, one that was interrupted is. What was taken from it is said (`resumed`). A log
    of another source of the probe, by a hash of its file, is refused.

    Where torch.distributed is initialized, all ranks call this alike, and their probes must give the same
    losses on every rank. Only the first rank reads and writes the log; it tells the others what is in it.

    Args:
        probe: trains as a `Config` says and gives pairs of step and validation loss in nats, always at full
            difficulty. It is closed at the first instability.
        starts: first difficulties, rising.
        durations: of the pace in steps, rising. Starts are tried with the shortest.
        end: the last difficulty.
        warmup: of the learning rate, in steps.
        out: the folder of the log; made if it is not there.
        warmups: how many of them a probe trains for.
        multiple: of the pace, for whole numbers.
        factor: a probe is unstable when validation perplexity is above this times its best so far.
        fraction: of the data that the run is to use. 1/fraction times the learning rate is tried too,
            without a pace and with the one that is found; 1 leaves that out.
        seed: of every probe.
        anyway: search even if the recipe is unstable without a pace.
        progress: whether to show a bar.

    Raises:
        ProbeError: the probe raised, or gave what is no curve. The finished ones are in the log.
        ValueError: grids that do not rise below the end, a log of another search or source, or ranks that ask
            for different searches.

    Examples:
        >>> import tempfile
        >>> def probe(config):
        ...     yield 0, 5.0
        ...     yield 30, 4.0
        ...     yield 60, 5.0 if config.start < 24 or config.duration > 300 else 3.0
        >>> with tempfile.TemporaryDirectory() as out:
        ...     grids = {"starts": range(8, 65, 8), "durations": range(100, 1001, 100)}
        ...     tuned = tune(probe, **grids, end=256, warmup=20, multiple=8, out=out)
        >>> tuned.start, tuned.duration
        (24, 300)
    """
    search = Search(
        starts=starts,
        durations=durations,
        end=end,
        warmup=warmup,
        warmups=warmups,
        multiple=multiple,
        factor=factor,
        fraction=fraction,
        seed=seed,
    )
    if not callable(probe):
        raise ValueError(f"probe is {probe!r}; expected a function of a Config")
    path, first = Path(out) / _log.NAME, rank_or_own() == 0
    settings = _log.settings_of(search, source(probe))
    same_on_all({name: settings[name] for name in settings if name != "script"} | {"anyway": anyway})
    with ExitStack() as held:
        probes = from_first(partial(_finished, path, settings, held))
        resumed = len(probes)
        with tqdm(
            desc="tune",
            unit=" probes",
            total=search.most_probes(anyway=anyway),
            initial=resumed,
            disable=not (progress and first),
        ) as bar:
            if resumed and not bar.disable:
                bar.write(f"{resumed} finished probes are taken from {path}", file=sys.stderr)
            while (config := next_probe(search, probes, anyway=anyway)) is not None:
                bar.set_postfix_str(_said(config))
                probes.append(_run(probe, config, search, path))
                if first:
                    _log.append(path, probes[-1])
                bar.update()
            bar.total = len(probes)
    found = conclude(search, probes, anyway=anyway)
    return attrs.evolve(found, resumed=f"{resumed} of the probes are from {path}" if resumed else "")


def load(out: str | Path) -> Tuned:
    """What the log in a folder says, without running a probe. ValueError if there is none.

    Examples:
        >>> load("nowhere")
        Traceback (most recent call last):
        ...
        ValueError: nowhere/tuning.jsonl is not there; expected the log of a search
    """
    path = Path(out) / _log.NAME
    settings, probes = _log.read(path)
    if settings is None:
        raise ValueError(f"{path} is not there; expected the log of a search")
    return conclude(_log.search_of(path, settings), probes, anyway=_went_on(probes))


def _went_on(probes: list[Probe]) -> bool:
    """Whether a search was made although the recipe is unstable."""
    unstable = any(probe.config.why == RECIPE and not probe.stable for probe in probes)
    return unstable and any(probe.config.paced for probe in probes)


def _finished(path: Path, settings: dict[str, Any], held: ExitStack) -> list[Probe]:
    """The finished probes of a log, which is then ready for more; its folder is held."""
    _files.make_folder(path.parent)
    held.enter_context(_files.locked(path.parent))
    found, probes = _log.read(path)
    if found is not None:
        _log.check_same(path, found, settings)
    _log.begin(path, settings)
    return probes


def _run(probe: Callable[[Config], Any], config: Config, search: Search, path: Path) -> Probe:
    try:
        return run(probe, config, factor=search.factor)
    except ProbeError as error:
        said = f"{error}; the finished ones are in {path}: mend it and run the same again"
        raise ProbeError(said) from error.__cause__


def _said(config: Config) -> str:
    pace = f" from {config.start:.6g} over {config.duration:,}" if config.paced else ""
    return f"{config.why}{pace}, {config.steps:,} steps"
