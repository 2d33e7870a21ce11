"""profiling.hlo: a moved step compares equal and a changed one does not; what compiles again or transfers is named."""

import json

import jax
import jax.numpy as jnp
import launched
import numpy as np
import pytest

from profiling import difference, watch
from profiling.program import Program

SOURCE = """
import jax, jax.numpy as jnp
def {name}(w, x):
    for _ in range(3):
        x = jnp.tanh(x @ w) * {factor}
    return x.sum()
"""


def dump(factor=0.5, name="step", lines=0, **changes) -> dict[str, str]:
    """The programs of a gradient whose source lies `lines` further down."""
    space: dict = {}
    exec(compile("\n" * lines + SOURCE.format(factor=factor, name=name), f"/somewhere/{lines}.py", "exec"), space)
    shapes = (jax.ShapeDtypeStruct((8, 8), jnp.float32), jax.ShapeDtypeStruct((changes.get("rows", 4), 8), jnp.float32))
    lowered = jax.jit(jax.grad(space[name])).lower(*shapes)
    return {"lowered": lowered.as_text(), "compiled": lowered.compile().as_text()}


def test_a_moved_and_renamed_step_is_the_same_program():
    assert dump()["compiled"] != dump(lines=40, name="other")["compiled"]
    assert difference.between(dump(), dump(lines=40, name="other")) == {"same": {"lowered": True, "compiled": True}, "kinds": {}, "operations": {}}


def test_a_constant_that_changed_is_told():
    found = difference.between(dump(), dump(factor=0.25))
    assert found["same"] == {"lowered": False, "compiled": False} and not found["kinds"]
    gone, come = found["operations"]["f32[] constant(0.5)"], found["operations"]["f32[] constant(0.25)"]
    assert len(found["operations"]) == 2 and gone == come[::-1] and gone[1] == 0 < gone[0]  # XLA may copy it into several fusions


def test_shapes_that_changed_are_told_by_operation():
    found = difference.between(dump(), dump(rows=5))
    before, now = (sum(counts[k] for text, counts in found["operations"].items() if "[5,8]" in text.split(" ")[0]) for k in (0, 1))
    assert before == 0 and now > 0 and not any(found["same"].values())


def test_counts_are_those_of_the_text():
    text = dump()["compiled"]
    counted = difference.kinds(Program(text))
    assert counted["dot"] == text.count(" dot(") and counted["tanh"] == text.count(" tanh(")


def step(state, fixed, batch):
    total = jnp.sum(batch["x"]) + sum(jnp.sum(leaf) for leaf in fixed.values())
    return {"w": state["w"] + total}, {"loss": total}


def run(batches, function=step) -> list[dict]:
    fresh = jax.jit(lambda *args: function(*args), donate_argnums=0)
    return list(watch.watched(fresh, {"w": jax.device_put(jnp.zeros(3))}, {"k": jnp.ones(2)}, batches))


def ones(*shape, dtype=jnp.float32):
    return jax.block_until_ready(jnp.ones(shape, dtype))


def test_steady_steps_have_nothing_to_tell():
    found = run([{"x": ones(2, 3)} for _ in range(3)])
    assert [bool(one["compiled"]) for one in found] == [True, False, False] and watch.verdict(found) == []


@pytest.mark.parametrize(
    "odd, words",
    [
        (lambda: ones(2, 4), "batch['x']: float32[2, 3] before, now float32[2, 4]"),
        (lambda: ones(2, 3, dtype=jnp.int32), "batch['x']: float32[2, 3] before, now int32[2, 3]"),
    ],
)
def test_an_argument_that_changed_is_named(odd, words):
    found = run([{"x": ones(2, 3)}, {"x": ones(2, 3)}, {"x": odd()}, {"x": ones(2, 3)}])
    (line,) = watch.verdict(found)
    assert line.startswith("step 3 compiled jit(") and words in line


def test_a_sharding_that_changed_is_named():
    """Four devices are only described, and axes of size 1 or trailing ones are no change."""
    mesh = jax.sharding.AbstractMesh((4, 1), ("data", "fsdp"))
    P = jax.sharding.PartitionSpec
    told = [watch._spec(jax.sharding.NamedSharding(mesh, spec)) for spec in (P(), P(None, "fsdp"), P("data"), P(("data", "fsdp"), None))]
    assert told == ["()", "()", "(data)", "(data)"]
    one = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    other = jax.device_put(ones(2, 3), jax.sharding.NamedSharding(one, P("data")))
    (line,) = watch.changes(watch.signature(({}, {}, {"x": other})), [watch.signature(({}, {}, {"x": ones(2, 3)}))])
    assert line.startswith("batch['x']: float32[2, 3] on ") and line.endswith("by () over {'data': 1}")


def test_an_array_from_the_host_is_named():
    found = run([{"x": ones(2, 3)}, {"x": np.ones((2, 3), np.float32)}])
    lines = watch.verdict(found)
    assert lines[0] == "step 2 transfers implicitly: batch['x']: float32[2, 3] on the host"
    assert "host-to-device" in lines[1] and "float32[2,3]" in lines[1]


def test_a_stray_operation_outside_the_step_is_placed():
    compiled = jax.jit(step)

    def careless(state, fixed, batch):
        return compiled(state, fixed, {"x": batch["x"] * np.float32(2)})  # the factor comes from the host

    found = list(watch.watched(careless, {"w": ones(3)}, {}, [{"x": ones(2, 3)}]))
    assert len(found[0]["transfers"]) == 1 and "in careless (" in found[0]["transfers"][0]


def test_dumps_of_a_run(dataset_folder, tmp_path):
    small = "--layers=1 --width=32 --heads=4 --length=96 --target_length=32 --batch_size=4 --scan=false".split()

    def call(*flags, devices=1):
        return launched.run("profiling.hlo", [*small, f"--dataset={dataset_folder}", *flags], devices)

    first = call(f"--output={tmp_path}/a", "--watch=3", "--packing=false", "--buckets=0.5,1")
    assert first.returncode == 0, first.stderr
    told = json.loads(first.stdout.splitlines()[-1])
    assert told["watched"] == 3 and told["transfers"] == 0 and told["compiled_again"] == len(told["findings"])
    second = call(f"--output={tmp_path}/b", "--watch=0", "--packing=false", "--buckets=0.5,1", "--beta2=0.95", f"--against={tmp_path}/a")
    told = json.loads(second.stdout.splitlines()[-1])
    assert told["same"] == {"lowered": False, "compiled": False} and told["changed"]["operations"] and told["cost_changes"] == {}
    assert "constant(" in (tmp_path / "b/difference.txt").read_text()
    spread = call(f"--output={tmp_path}/d", "--watch=3", "--mesh=fsdp:2", devices=2)  # the state comes back as it lay
    assert json.loads(spread.stdout.splitlines()[-1])["compiled_again"] == 0, spread.stderr
    bad = call(f"--output={tmp_path}/c", f"--against={tmp_path}/none")
    assert bad.returncode == 2 and "--against=" in bad.stderr and not (tmp_path / "c").exists()
