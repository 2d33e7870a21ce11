"""What the suites share: the CPU by default, one tiny dataset, and launchers run as a user runs them."""

import atexit
import json
import os
import pathlib
import shutil
import sys
import tempfile

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # tolerances are those of full float32 products
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(pathlib.Path(__file__).parent))  # tests share tiny.py and environment.py

from environment import QUICK  # noqa: E402
from launched import Launched  # noqa: E402

os.environ.setdefault("XLA_FLAGS", QUICK)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # workers of xdist and launchers inherit it
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="rgjax-xla-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory) -> pathlib.Path:
    """A synthetic shop of 160 examples, prepared; its vocabulary has 600 tokens."""
    from rgjax.config import PrepareConfig
    from rgjax.data.prepare import prepare

    folder = tmp_path_factory.mktemp("data") / "shop"
    small = {"demo_users": 40, "demo_items": 30, "demo_examples": 160, "val_share": 0.1}
    prepare(PrepareConfig(layout="demo", output=str(folder), vocab_size=600, slots=8, **small))
    return folder


@pytest.fixture(scope="session")
def dataset(dataset_folder):
    """The prepared dataset, opened."""
    from rgjax.data.dataset import Dataset

    return Dataset.open(dataset_folder)


@pytest.fixture(scope="session")
def pairs_folder(dataset, tmp_path_factory) -> pathlib.Path:
    """A dataset of pairs: of twenty examples its reason, preferred to the next example's."""
    from rgjax.config import PrepareConfig
    from rgjax.data.prepare import prepare

    folder = tmp_path_factory.mktemp("pairs")
    examples = [e for split in ("train", "val") for e in dataset.examples(split)][:20]
    others = [e["reason"] for e in examples[1:] + examples[:1]]
    lines = [json.dumps(e | {"rejected": o, "control": {}}) + "\n" for e, o in zip(examples, others, strict=True) if o != e["reason"]]
    (folder / "judged.jsonl").write_text("".join(lines))
    learnt = str(dataset.tokenizer_folder)
    prepare(PrepareConfig(source=str(folder / "judged.jsonl"), output=str(folder / "out"), tokenizer=learnt, split_by="item", val_share=0.2))
    return folder / "out"


@pytest.fixture(scope="session")
def tokenizer(dataset):
    """The dataset's tokenizer."""
    from rgjax.data.tokenizer import Tokenizer

    return Tokenizer.load(dataset.tokenizer_folder)


@pytest.fixture(scope="session")
def compilation_cache() -> str:
    """A folder of compiled programs that all tests and all processes they start share."""
    return os.environ["JAX_COMPILATION_CACHE_DIR"]


@pytest.fixture(scope="session")
def start_training(dataset_folder, compilation_cache):
    """start_training(workdir, devices=1, **flags) -> a running `launch.train` of a small model on the tiny dataset."""

    def start(workdir, devices: int = 1, **flags) -> Launched:
        usual = {"dataset": dataset_folder, "workdir": workdir, "compilation_cache": compilation_cache, "samples": 0}
        usual |= {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "length": 192, "target_length": 64, "batch_size": 4}
        usual |= {"steps": 12, "log_every": 1, "eval_every": 100, "save_every": 100, "warmup_steps": 3, "dropout": 0.1}
        return Launched("launch.train", usual | flags, devices)

    return start


@pytest.fixture(scope="session")
def unbroken_run(start_training, tmp_path_factory) -> pathlib.Path:
    """The workdir of 12 steps on one device, never interrupted."""
    workdir = tmp_path_factory.mktemp("runs") / "unbroken"
    process = start_training(workdir)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return workdir


def pytest_collection_modifyitems(items):
    """Files that start launchers take longest, and come first, so that no worker is left alone with one of them at the end."""
    items.sort(key=lambda item: item.path.parent.name not in ("parallel", "profiling", "tasks", "train"))


def pytest_sessionfinish(session):
    """`make parity` must compare: there a library that is not installed is a failure, not a skip."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter and reporter.stats.get("skipped")  # a worker of xdist reports to the first process
    if session.config.option.markexpr == "parity" and skipped and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
