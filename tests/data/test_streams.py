"""Batches and positions do not depend on who reads them: one process or several, a thread or workers; and what breaks is named."""

import asyncio
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from absl import flags
from environment import ROOT
from test_pipeline import both_layouts, config_of, same, take

from rgjax.data import pipeline
from rgjax.data.dataset import Dataset
from rgjax.data.streams import number_of_streams
from rgjax.data.template import Template
from rgjax.errors import UserError


@pytest.fixture(autouse=True)
def parsed_flags():
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain's workers read flags


def read(dataset, tokenizer, config, readers=1):
    """The streams of each of `readers` processes."""
    template = Template(tokenizer, config, "causal")
    where = [{"process": p, "processes": readers} for p in range(readers)]
    return [pipeline.train_batches(dataset, template, config, "causal", seed=5, **w) for w in where]


def whole(readers, count):
    """The next batches, each put together from the parts of all readers."""
    parts = [take(reader, count) for reader in readers]
    return [{name: np.concatenate([part[i][name] for part in parts]) for name in parts[0][i]} for i in range(count)]


class Folder:
    """Stands for the folder that Orbax makes before it saves."""

    def __init__(self, path):
        self.path = path

    async def await_creation(self):
        self.path.mkdir(exist_ok=True)
        return self.path


def through_files(before, after, folder):
    async def run():
        for reader in before:
            await (await reader.save(Folder(folder)))
        for reader in after:
            await (await reader.load(folder))

    asyncio.run(run())
    return after


@both_layouts
@pytest.mark.parametrize("workers", (0, 2))
def test_positions_saved_by_any_number_of_readers_serve_any_other(dataset, tokenizer, layout, workers, tmp_path):
    config = config_of(layout, batch_size=8, control_dropout=0.4, workers=workers)
    turns = ((2, 5), (4, 11), (1, 3), (8, 14), (2, 9)) if not workers else ((1, 9), (2, 17))  # (readers, steps); workers start slowly
    wanted = whole(read(dataset, tokenizer, config_of(layout, batch_size=8, control_dropout=0.4)), sum(steps for _, steps in turns))
    got, readers = [], read(dataset, tokenizer, config, 1)
    for turn, (count, steps) in enumerate(turns):
        fresh = read(dataset, tokenizer, config, count)
        readers = through_files(readers, fresh, tmp_path / str(turn)) if turn else fresh
        got += whole(readers, steps)
    assert all(map(same, wanted, got)) and len(got) == len(wanted)
    assert not same(wanted[0], wanted[1])
    assert {p.name for p in (tmp_path / "1").iterdir()} == {f"stream_{n}.json" for n in range(8)}


def test_one_stream_goes_on_from_what_an_older_run_saved(dataset, tokenizer, tmp_path):
    config = config_of("packed", streams=1)
    (first,) = read(dataset, tokenizer, config)
    take(first, 7)
    (tmp_path / "process_0-of-1.json").write_text(json.dumps(first.get_state()[0]))
    (second,) = through_files([], read(dataset, tokenizer, config), tmp_path)
    assert all(map(same, take(first, 9), take(second, 9)))


def test_a_position_of_another_kind_of_stream_is_refused(dataset, tokenizer, tmp_path):
    """As one of older versions with workers, or of the other layout: told when it is read, while there may be an older checkpoint."""
    (packed,) = read(dataset, tokenizer, config_of("packed", streams=1))
    (tmp_path / "stream_0.json").write_text(json.dumps({"next_index_in_cycle": 0, "iterators_in_use_states": []}))
    with pytest.raises(ValueError, match="stream 0 stood at iterators_in_use_states"):
        through_files([], [packed], tmp_path)


@pytest.mark.parametrize(
    "batch, processes, expected", [(16, 1, 8), (16, 2, 8), (12, 1, 6), (12, 3, 6), (7, 1, 7), (11, 1, 1), (64, 16, 16), (48, 3, 6), (22, 11, 11)]
)
def test_streams_divide_the_batch_and_are_divided_by_processes(batch, processes, expected):
    assert number_of_streams(batch, processes) == expected


@both_layouts
@pytest.mark.parametrize("workers", (0, 2))
def test_a_damaged_shard_is_named_wherever_it_is_read(dataset_folder, tokenizer, layout, workers, tmp_path):
    copy = shutil.copytree(dataset_folder, tmp_path / "shop")
    config = config_of(layout, workers=workers)
    (stream,) = read(Dataset.open(copy), tokenizer, config)  # buckets read every example once, here
    shard = next(copy.glob("train-*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 3 : len(content) // 2] = os.urandom(len(content) // 2 - len(content) // 3)
    shard.write_bytes(content)
    with pytest.raises(UserError, match=rf"{shard.name}.*prepare the dataset again"):
        take(stream, 400)


def test_a_killed_worker_ends_the_reading(dataset, tokenizer):
    (stream,) = read(dataset, tokenizer, config_of("packed", batch_size=8, workers=2))
    take(stream, 2)
    workers = [p for p in multiprocessing.active_children() if "prefetch" in p.name]
    assert len(workers) == 2
    os.kill(workers[1].pid, signal.SIGKILL)
    with pytest.raises(UserError, match="--workers=2 ended before its time .*-9"):
        take(stream, 4000)
    stream.close()


@both_layouts
def test_a_process_that_leaves_its_streams_open_ends_well(dataset_folder, layout):
    """They are read ahead in a thread, which must not be at work while Python ends."""
    code = (
        "from rgjax.config import InputConfig; from rgjax.data import pipeline; from rgjax.data.template import Template\n"
        "from rgjax.tasks import reason\n"
        f"dataset, tokenizer = reason.dataset_tokenizer({str(dataset_folder)!r})\n"
        f"config = InputConfig(batch_size=64, prefetch=64, length=192, target_length=64, packing={layout == 'packed'})\n"
        "stream = pipeline.train_batches(dataset, Template(tokenizer, config, 'causal'), config, 'causal', seed=0)\n"
        "[next(stream) for _ in range(40)]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
