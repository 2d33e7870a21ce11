"""The streams that a run's examples are dealt to, read together: exact state, however many processes and workers read them.

The number of streams is fixed when a run begins. Each is a grain dataset of its own that gives a few rows of every batch; a process
reads a contiguous share of them, in one thread or in worker processes. So the i-th batch is the same for any number of readers that
divides the streams, and so is what is saved: the position of each stream, by its number.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import weakref
from collections.abc import Callable, Iterator, Sequence

import grain
import numpy as np

from rgjax.config import InputConfig
from rgjax.errors import UserError

READ = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)  # `Streams` reads ahead
USUAL = 8  # streams of a run; each delays the first batch, and more processes than these can't share them


def number_of_streams(batch_size: int, processes: int) -> int:
    """How many streams a new run gets: the most that divide the batch and can be shared, up to 8 or the number of processes."""
    most = max(USUAL, processes)
    return max(n for n in range(1, most + 1) if batch_size % n == 0 and (n % processes == 0 or n == 1))


def settled(inputs: InputConfig, processes: int, rows: int = 0) -> InputConfig:
    """`inputs` with a number of streams that a run keeps, where none is given: for `rows` dealt a batch (0 is all of them)."""
    return inputs if inputs.streams else dataclasses.replace(inputs, streams=number_of_streams(rows or inputs.batch_size, processes))


def deal(
    stream: Callable[[int, int], grain.IterDataset], inputs: InputConfig, entries: int, what: str, process: int, processes: int
) -> Streams:
    """This process's share of the streams `stream(number, of so many)` of a run over `entries` entries, which the error names `what`.

    Raises UserError when batch, streams and processes do not divide, or there are fewer entries than streams.
    """
    total = inputs.streams or number_of_streams(inputs.batch_size, processes)
    if inputs.batch_size % total or total % processes:
        raise UserError(
            f"{total} streams of examples (--streams) do not divide among {processes} processes, or --batch_size={inputs.batch_size} not "
            f"among them; take a number of processes that divides {total}."
        )
    if entries < total:
        raise UserError(f"There are only {entries} {what}, and --batch_size={inputs.batch_size} needs more; lower it.")
    mine = range(process * total // processes, (process + 1) * total // processes)
    return Streams({number: stream(number, total) for number in mine}, inputs.workers, inputs.prefetch)


class Indexed:
    """Entries [N, ...] as a source of grain, whose iterators compare by what it shows."""

    def __init__(self, name: str, index: np.ndarray):
        self._name, self._index = name, index

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, i) -> np.ndarray:
        return self._index[int(i)]

    def __repr__(self) -> str:
        return f"{self._name.capitalize()}({len(self._index)})"


class Streams:
    """An endless iterator over this process's rows of each batch, a dict of arrays [rows, ...]; checkpointable by Orbax."""

    def __init__(self, own: dict[int, grain.IterDataset], workers: int, prefetch: int):
        """`own` are the streams of this process by number, giving chunks [rows of the stream, ...]; `workers` processes read them."""
        groups = np.array_split(sorted(own), max(1, min(workers, len(own))))
        self._groups = [{int(n): own[n] for n in group} for group in groups]
        self._workers, self._prefetch, self._readers = workers, prefetch, None
        self._states: dict[int, dict | None] = dict.fromkeys(own)

    def __iter__(self) -> Streams:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        """The next batch; raises UserError where a shard is damaged or a worker process ended."""
        if self._readers is None:
            self._readers = [self._reader(group) for group in self._groups]
            self._end = weakref.finalize(self, _close, self._readers)  # a thread that reads while Python ends would abort the process
        try:
            found = [next(reader) for reader in self._readers]
        except RuntimeError as error:
            if "Worker process was terminated" in str(error):
                raise UserError(
                    f"A data worker process of --workers={self._workers} ended before its time ({_exit(error)}); look for a lack of memory, "
                    "lower --workers, and run the same command again."
                ) from None
            raise
        for _, states in found:
            self._states |= {int(n): state for n, state in json.loads(states).items()}
        parts = [rows for rows, _ in found]
        return parts[0] if len(parts) == 1 else {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _reader(self, group: dict[int, grain.IterDataset]) -> Iterator:
        joined = _Joined(group, {n: self._states[n] for n in group})
        if self._workers:
            return iter(joined.mp_prefetch(grain.MultiprocessingOptions(num_workers=1, per_worker_buffer_size=self._prefetch)))
        return iter(grain.experimental.ThreadPrefetchIterDataset(joined, prefetch_buffer_size=self._prefetch))

    def get_state(self) -> dict[int, dict | None]:
        """Where each of this process's streams stands; None at its beginning."""
        return dict(self._states)

    def set_state(self, states: dict[int, dict | None]) -> None:
        """Goes on from there; raises KeyError where one of the streams is missing."""
        self.close()
        self._states = {n: states[n] for n in self._states}

    def _check(self, states: dict[int, dict | None]) -> None:
        """Raises ValueError for positions of another kind of stream: packed or not, or of workers that older versions had inside it."""
        for n, stream in ((n, stream) for group in self._groups for n, stream in group.items()):
            wanted = iter(stream).get_state().keys()
            if states[n] is not None and states[n].keys() != wanted:
                raise ValueError(f"stream {n} stood at {', '.join(sorted(states[n]))}; here it has {', '.join(sorted(wanted))}")

    def close(self) -> None:
        """Ends threads and worker processes."""
        if self._readers is not None:
            self._end()
        self._readers = None

    async def save(self, directory):
        """Writes one file per stream of this process, in the background (Orbax's StatefulCheckpointable)."""
        texts = {n: json.dumps(state) for n, state in self._states.items()}

        async def write() -> None:
            folder = await directory.await_creation()
            for n, text in texts.items():
                (folder / f"stream_{n}.json").write_text(text)

        return write()

    async def load(self, directory):
        """Reads what `save` wrote, in whichever processes; and the files of older runs, which had one stream per process."""

        async def read() -> None:
            older = sorted(pathlib.Path(directory).glob("process_*-of-*.json"))
            name = "process_{}-of-" + older[0].stem.rpartition("-")[2] + ".json" if older else "stream_{}.json"
            states = {n: json.loads(pathlib.Path(directory, name.format(n)).read_text()) for n in self._states}
            self._check(states)
            self.set_state(states)

        return read()


def _close(readers: list) -> None:
    for reader in readers:
        reader.close()


def _exit(error: RuntimeError) -> str:
    return next((f"exit code {word.rstrip('.')}" for word in str(error).split() if word.lstrip("-").rstrip(".").isdigit()), "no exit code")


class _Joined(grain.IterDataset):
    """Chunks of several streams in the order of their numbers as one; each element is (rows, the streams' states after it as JSON)."""

    def __init__(self, streams: dict[int, grain.IterDataset], states: dict[int, dict | None]):
        super().__init__(list(streams.values()))
        self._numbers, self._states = list(streams), states

    def __iter__(self) -> _JoinedIterator:
        return _JoinedIterator([iter(stream) for stream in self.parents], self._numbers, self._states)


class _JoinedIterator(grain.DatasetIterator):
    def __init__(self, streams: Sequence[grain.DatasetIterator], numbers: list[int], states: dict[int, dict | None]):
        super().__init__(streams)
        self._streams, self._numbers = streams, numbers
        for n, stream in zip(numbers, streams, strict=True):
            if states[n] is not None:
                stream.set_state(states[n])

    def __next__(self) -> tuple[dict[str, np.ndarray], str]:
        chunks = [next(stream) for stream in self._streams]
        rows = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
        return rows, json.dumps(self.get_state())

    def get_state(self) -> dict[str, dict]:
        return {str(n): stream.get_state() for n, stream in zip(self._numbers, self._streams, strict=True)}

    def set_state(self, state: dict[str, dict]) -> None:
        for n, stream in zip(self._numbers, self._streams, strict=True):
            stream.set_state(state[str(n)])
