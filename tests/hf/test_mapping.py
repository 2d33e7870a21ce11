"""Mapped files: what was read leaves this process's memory, and parameters are copies."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from rgjax import trees
from rgjax.hf.folder import Folder, release
from rgjax.hf.load import Pretrained
from rgjax.models.build import ModelFactory
from rgjax.parallel import mesh as mesh_lib

GOLDEN = pathlib.Path(__file__).parent / "golden"


def parameters(folder):
    source = Pretrained.open(str(folder))
    config = source.own_config()
    return source.params(ModelFactory(config, config.embeddings), mesh_lib.make("data:1"))


def resident_file_pages():
    """Kilobytes of mapped files in this process's memory."""
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        pytest.skip("no /proc")
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("RssFile"))


def test_what_was_read_of_a_file_is_let_go_of(tmp_path):
    save_file({"a": np.ones(999, np.float32), "b": np.arange(8_000_000, dtype=np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    tensor = Folder.open(tmp_path).tensors["b"]
    before, total = resident_file_pages(), float(tensor.sum())
    assert resident_file_pages() - before > 25_000
    release(tensor[1000:].reshape(-1, 50))
    assert resident_file_pages() - before < 5_000
    assert float(tensor.sum()) == total


def test_parameters_are_no_view_of_the_file(tmp_path):
    """An array on a CPU device is the file's memory itself where that lies at a multiple of 64 bytes, so the table is put there."""
    shutil.copytree(GOLDEN / "llama", tmp_path / "llama")
    file = tmp_path / "llama" / "model.safetensors"
    raw = file.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    header = raw[8:end]
    offset = json.loads(header)["model.embed_tokens.weight"]["data_offsets"][0]
    header += b" " * (-(8 + len(header) + offset) % 64)
    file.write_bytes(len(header).to_bytes(8, "little") + header + raw[end:])
    params = parameters(tmp_path / "llama")
    with file.open("r+b") as opened:  # in place: the mapping sees it
        opened.write(bytes(file.stat().st_size))
    for name, array in trees.flat(parameters(GOLDEN / "llama")):
        np.testing.assert_array_equal(dict(trees.flat(params))[name], array, err_msg=name)
