"""FLOPs of a step, counted by hand and against XLA's own count of the products it compiles."""

import types

import jax
import numpy as np
import pytest
import tiny
from flax import nnx

from rgjax import trees
from rgjax.config import AdapterConfig, TrainConfig
from rgjax.models.adapted import AdaptedFactory
from rgjax.train import flops
from rgjax.train.meter import Meter
from rgjax.train.tuning import chooser

# Llama of tests/tiny: D 20, H 4, K 2, A 6, F 28, L 2, V 50, untied. Its last layer is read at the target tokens, but for keys and values.
COUNTS = {"tokens": 60.0, "encoder_tokens": 0.0, "target_tokens": 30.0, "examples": 4.0}
QUERIES, KEYS, MLP = 20 * 24 * 2, 20 * 12 * 2, 3 * 20 * 28
MATRICES = (QUERIES + KEYS + MLP) * 60 + KEYS * 60 + (QUERIES + MLP) * 30
ATTENTION = 4 * 24 * (60 * 7.5 + 30 * 11.25)  # 15 tokens an example: half of them attended on average, by the last 7.5 three quarters
HEAD = 2 * 20 * 50 * 30


def count(made, trained=lambda path: True, passes=1, counts=COUNTS):
    return flops.step_flops(made.config, nnx.to_pure_dict(made.abstract), made.vocab_size, counts, trained, passes)


def test_everything_trained_costs_three_forward_passes_and_rdrop_two_of_these():
    made = tiny.factory("llama")
    whole = 3 * (2 * MATRICES + ATTENTION + HEAD)
    assert count(made) == pytest.approx(whole)
    assert count(made, passes=2) == pytest.approx(2 * whole)


def test_frozen_matrices_have_no_gradient_of_their_own():
    made = tiny.factory("llama")
    mlp = MLP * (60 + 30)
    frozen = chooser(AdapterConfig(freeze=r"mlp|embedding"))
    expected = 2 * (2 * mlp + 3 * (MATRICES - mlp)) + 3 * ATTENTION + 2 * HEAD
    assert count(made, frozen) == pytest.approx(expected)
    tied = tiny.factory("llama", tied=True)
    assert count(tied, chooser(AdapterConfig(freeze="blocks"))) == pytest.approx(2 * 2 * MATRICES + 3 * ATTENTION + 3 * HEAD)
    assert count(made, lambda path: path == "embedding.output") == pytest.approx(2 * MATRICES + ATTENTION + 2 * HEAD)


@pytest.mark.parametrize(
    "options, added, virtual",
    [
        ({"adapter": "lora", "rank": 3}, 3 * (((20 + 24) * 2 + (20 + 28) * 3) * 90 + (20 + 12) * 2 * 120), 0),
        ({"adapter": "bottleneck", "reduction": 5}, 2 * 2 * 20 * 4 * 90, 0),
        ({"adapter": "prefix", "virtual_tokens": 5}, 0, 5),
        ({"adapter": "ia3"}, 0, 0),
    ],
)
def test_an_adapter_on_a_frozen_model(options, added, virtual):
    config = AdapterConfig(**options)
    made = AdaptedFactory(tiny.factory("llama"), config)
    expected = 2 * (2 * MATRICES + 3 * added) + 3 * (ATTENTION + 4 * 24 * 90 * virtual) + 2 * HEAD
    assert count(made, chooser(config)) == pytest.approx(expected)


def test_a_frozen_encoder_is_only_passed_forward():
    """T5 of tests/tiny: three encoder layers, 12 source and 5 target tokens an example, cross-attention's keys from the source."""
    made, counts = tiny.factory("t5"), {"tokens": 20.0, "encoder_tokens": 48.0, "target_tokens": 20.0, "examples": 4.0}
    attention, mlp, half = 4 * 20 * 24, 3 * 20 * 28, 2 * 20 * 24
    decoder, source, encoder = 2 * (attention + half + mlp), 2 * half, 3 * (attention + mlp)
    attended, attended_encoder, head = 4 * 24 * 2 * 20 * (2.5 + 12), 4 * 24 * 3 * 48 * 12, 2 * 20 * 50 * 20
    whole = 2 * decoder * 20 + 2 * (source + encoder) * 48 + attended + attended_encoder + head
    assert count(made, counts=counts) == pytest.approx(3 * whole)
    decoder_alone = 3 * (2 * decoder * 20 + attended) + 2 * (2 * source + encoder) * 48 + attended_encoder + 2 * head
    assert count(made, chooser(AdapterConfig(freeze="encoder|embedding")), counts=counts) == pytest.approx(decoder_alone)


def test_the_meter_reports_the_work_of_its_run(monkeypatch):
    """mfu times seconds is the work, on four devices of one FLOP a second."""
    monkeypatch.setattr(flops, "peak_flops", lambda devices: (float(devices), "one each"))
    made, trained = tiny.factory("llama"), chooser(AdapterConfig(freeze="mlp"))
    batch, log = tiny.training_batch(made, 4, 32), types.SimpleNamespace(scalars=lambda step, values: None)
    meter = Meter(made, log, 0, TrainConfig(), trained, passes=2, devices=4)
    values = {"loss": 1.0, "nll": 1.0, "correct": 0.5, "grad_norm": 1.0, "target_tokens": float(batch["weights"].sum())}
    meter.add(values, batch)
    meter.report(1, values, 1e-3, {})
    segments = batch["segment_ids"]
    counts = {"tokens": np.count_nonzero(segments), "encoder_tokens": 0, "target_tokens": values["target_tokens"], "examples": segments.max(1).sum()}
    assert 4 * meter.last["mfu"] * meter.last["step_seconds"] == pytest.approx(count(made, trained, 2, counts))


@pytest.mark.parametrize("freeze, times", [("", 3.0), ("mlp|attention", 2.0)])
def test_xla_multiplies_as_much(freeze, times):
    """Unrolled, for XLA counts loops once; it computes the whole square of attention."""
    made = tiny.factory("llama", vocab_size=8, width=256, heads=4, head_dim=64, kv_heads=4, mlp_width=1024, scan=False, attention="plain", layers=2)
    batch, trained = tiny.training_batch(made, 2, 64), chooser(AdapterConfig(freeze=freeze))
    tree = nnx.to_pure_dict(made.abstract)
    own, frozen = trees.divide(tree, trained)
    loss = lambda own, frozen: made.model(trees.join(own, frozen))(batch).sum()
    compiled = jax.jit(jax.grad(loss)).lower(own, frozen).compile()
    expected = times * 2 * 128 * 2 * (4 * 256 * 256 + 3 * 256 * 1024) + 3 * 4 * 256 * 2 * 128 * 64
    assert compiled.cost_analysis()["flops"] == pytest.approx(expected, rel=0.03)
