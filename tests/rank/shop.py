"""Small random shops."""

import numpy as np

from rgjax.data.interactions import Catalogue, Interactions, build


def shop(users=12, items=9, events=60, seed=0) -> Interactions:
    """Events of uniform users with items of unequal popularity, repeats included; the last user and item have none."""
    rng = np.random.default_rng(seed)
    names = [str(i) for i in range(items)]
    item = np.minimum(rng.exponential(items / 3, events).astype(int), items - 2)
    user = rng.integers(0, users - 1, events)
    return build([str(u) for u in range(users)], Catalogue(names, names, [{}] * items), user, item, rng.permutation(events))


def tastes(users=60, items=40, each=12, seed=0) -> Interactions:
    """Two halves of users, each of which takes items of its own half of the catalogue only."""
    rng, half = np.random.default_rng(seed), items // 2
    user = np.repeat(np.arange(users), each)
    item = np.concatenate([rng.choice(half, each, replace=False) + half * (u % 2) for u in range(users)])
    names = [str(i) for i in range(items)]
    return build([str(u) for u in range(users)], Catalogue(names, names, [{}] * items), user, item, np.arange(len(user)))
