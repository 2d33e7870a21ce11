"""Direct preference optimization against the formula written out text by text, and its gradient against the paper's closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from rgjax.train.preference import Preference, preference_sums, row_log_probs

VOCABULARY = 23


class Read:
    """Stands for a model: hidden states as given."""

    def __init__(self, hidden, head, shrink=1.0):
        self.hidden, self.matrix, self.shrink = hidden, head, shrink

    def __call__(self, batch, key):
        return self.hidden

    def head(self):
        return self.matrix, self.shrink


def case(seed, pairs=3, t=37, d=8):
    rng = np.random.default_rng(seed)
    hidden, head = rng.normal(size=(2 * pairs, t, d)), rng.normal(size=(VOCABULARY, d))
    weights = (rng.random((2 * pairs, t)) < 0.4).astype(np.int32)
    weights[:, 0] = 1
    batch = {"targets": rng.integers(0, VOCABULARY, (2 * pairs, t)), "weights": weights, "reference": rng.normal(-40, 5, 2 * pairs)}
    return jnp.asarray(hidden, jnp.float32), jnp.asarray(head, jnp.float32), {k: jnp.asarray(v) for k, v in batch.items()}


def by_hand(hidden, head, batch, shrink=1.0):
    """Each row's log probability in float64, a token at a time."""
    found = []
    for row in range(len(hidden)):
        total = 0.0
        for t in np.flatnonzero(np.asarray(batch["weights"][row])):
            scores = np.asarray(head, float) @ (np.asarray(hidden[row, t], float) * shrink)
            total += scores[int(batch["targets"][row, t])] - np.log(np.exp(scores).sum())
        found.append(total)
    return np.array(found)


@pytest.mark.parametrize("t", [5, 32, 70])
@pytest.mark.parametrize("shrink", [1.0, 0.5])
def test_a_rows_log_probability_is_the_sum_over_its_targets(t, shrink):
    hidden, head, batch = case(0, t=t)
    found = row_log_probs(hidden, head, shrink, batch["targets"], batch["weights"])
    np.testing.assert_allclose(found, by_hand(hidden, head, batch, shrink), rtol=2e-5)


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_accuracy_and_margin_are_those_of_the_paper(per_token, smoothing):
    hidden, head, batch = case(1, pairs=5)
    batch["weights"] = batch["weights"].at[8:].set(0)  # the last pair is padding
    found = preference_sums(Read(hidden, head), batch, None, Preference(0.3, per_token), smoothing)
    gain = by_hand(hidden, head, batch) - np.asarray(batch["reference"], float)
    if per_token:
        gain = gain / np.maximum(np.asarray(batch["weights"]).sum(1), 1)
    margins = [0.3 * (gain[2 * i] - gain[2 * i + 1]) for i in range(4)]
    right = [np.log1p(np.exp(-m)) for m in margins]
    turned = [np.log1p(np.exp(m)) for m in margins]
    expected = {"nll": sum(right), "loss": (1 - smoothing) * sum(right) + smoothing * sum(turned), "margin": sum(margins), "tokens": 4}
    expected["correct"] = sum(m > 0 for m in margins)
    assert {k: float(v) for k, v in found.items()} == pytest.approx(expected, rel=2e-4)


def test_where_nothing_is_learnt_yet_a_pair_counts_half():
    hidden, head, batch = case(2)
    batch["reference"] = row_log_probs(hidden, head, 1.0, batch["targets"], batch["weights"])
    found = preference_sums(Read(hidden, head), batch, None, Preference(0.1))
    assert float(found["correct"]) == 1.5 and float(found["loss"]) == pytest.approx(3 * np.log(2), rel=1e-6)


def test_the_gradient_weighs_pairs_by_how_wrong_they_are():
    """-beta * sigmoid(-margin) * [grad log p(preferred) - grad log p(rejected)] (section 4 of the paper)."""
    hidden, head, batch = case(3)
    how = Preference(0.2)
    got = jax.grad(lambda h: preference_sums(Read(hidden, h), batch, None, how)["loss"])(head)
    margin = how.beta * ((log := row_log_probs(hidden, head, 1.0, batch["targets"], batch["weights"])) - batch["reference"])
    margin = margin[::2] - margin[1::2]
    of_rows = jax.jacobian(lambda h: row_log_probs(hidden, h, 1.0, batch["targets"], batch["weights"]))(head)
    each = jax.nn.sigmoid(-margin)[:, None, None] * (of_rows[::2] - of_rows[1::2])
    assert log.shape == (6,)
    np.testing.assert_allclose(got, -how.beta * each.sum(0), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "bart"])
def test_steps_make_the_preferred_text_likelier_than_the_other(family):
    made = tiny.factory(family, VOCABULARY)
    params = made.fresh(jax.random.key(0))
    rng = np.random.default_rng(0)
    ids = lambda shape: jnp.asarray(rng.integers(1, VOCABULARY, shape), jnp.int32)
    places = jnp.broadcast_to(jnp.arange(9), (4, 9))
    batch = {"tokens": ids((4, 9)), "targets": ids((4, 9)), "segment_ids": jnp.ones((4, 9), jnp.int32), "positions": places}
    batch |= {"encoder_tokens": ids((4, 9)), "encoder_segment_ids": jnp.ones((4, 9), jnp.int32), "encoder_positions": places}
    batch["weights"] = jnp.ones((4, 9), jnp.int32)
    score = lambda p: row_log_probs(made.model(p)(batch), *made.model(p).head(), batch["targets"], batch["weights"])
    batch["reference"] = score(params)
    loss = jax.jit(jax.value_and_grad(lambda p: preference_sums(made.model(p), batch, None, Preference(0.5))["loss"]))
    for _ in range(5):
        params = jax.tree.map(lambda p, g: p - 0.05 * g, params, loss(params)[1])
    gain = score(params) - batch["reference"]
    assert bool((gain[::2] > gain[1::2]).all()) and float(loss(params)[0]) < 2 * np.log(2)
