"""A run goes on in another number of processes and on another mesh: the same examples, the same losses."""

import json

import pytest
import tiny
from test_two_processes import FLAGS, begin, end


@pytest.fixture(scope="module")
def usual(dataset_folder, compilation_cache):
    packed = FLAGS | {"packing": "true", "steps": 8, "eval_every": 4, "samples": 0, "dropout": 0.1}
    return packed | {"dataset": dataset_folder, "compilation_cache": compilation_cache}


@pytest.fixture(scope="module")
def alone(usual, tmp_path_factory):
    """Losses of one process with four devices."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    end(begin(usual | {"workdir": workdir}, devices=4))
    return tiny.logged_losses(workdir)


@pytest.mark.parametrize(
    "turns",
    [
        [(1, 4, "data:2,fsdp:2"), (2, 2, "data:2,fsdp:2"), (1, 4, "data:2,fsdp:2")],
        [(4, 1, "data:1,fsdp:4"), (1, 1, "data:1"), (2, 1, "data:1,tensor:2"), (2, 2, "data:1,fsdp:2,tensor:2")],
    ],
    ids=["1-2-1", "4-1-2-2"],
)
def test_turns_of_processes_log_what_an_unbroken_run_logs(usual, alone, tmp_path, turns):
    """Each turn is (processes, devices of each, mesh); tensor parallelism spreads over processes too."""
    workdir = tmp_path / "run"
    for turn, (processes, devices, mesh) in enumerate(turns, 1):
        flags = usual | {"workdir": workdir, "mesh": mesh, "steps": 8 * turn // len(turns), "workers": turn % 2}
        (out, _), *_ = end(begin(flags, devices=devices, processes=processes))
    assert json.loads(out.splitlines()[-1])["step"] == 8
    assert tiny.logged_losses(workdir) == pytest.approx(alone, rel=1e-4)


def test_tensor_over_two_processes_feeds_both_the_same_rows(usual, tmp_path):
    """Rows of four devices over processes of two: both hold all rows, and one of them writes where the data stands."""
    flags = usual | {"workdir": tmp_path / "run", "mesh": "data:1,tensor:4", "heads": 4, "steps": 4}
    end(begin(flags, devices=2, processes=2))
    end(begin(flags | {"workdir": tmp_path / "one", "mesh": "data:1"}, devices=1))
    assert tiny.logged_losses(tmp_path / "run") == pytest.approx(tiny.logged_losses(tmp_path / "one"), rel=1e-4)
    shares = [{r["step"]: r["padding_share"] for r in map(json.loads, (tmp_path / name / "metrics.jsonl").open())} for name in ("run", "one")]
    assert shares[0] == pytest.approx(shares[1])


def test_more_processes_than_streams_are_refused(usual, tmp_path):
    flags = usual | {"workdir": tmp_path / "run", "streams": 1, "mesh": "data:1", "steps": 1}
    end(begin(flags, devices=1))
    told = end(begin(flags | {"mesh": "data:2", "steps": 2}, devices=1, processes=2), code=2)
    assert all("1 streams of examples" in err and "divides 1" in err for _, err in told)
