"""Which words tell a class of texts from the others: log odds ratios with an informative Dirichlet prior, and how sure they are (Monroe,
Colaresi & Quinn 2008, "Fightin' Words", section 3.3).

A plain ratio of frequencies prefers words that hardly occur, a plain difference those that occur everywhere; this weighs both.
"""

from __future__ import annotations

import numpy as np


def z_scores(counts_CV: np.ndarray) -> np.ndarray:
    """float64 [C, V] of counts [C, V], V at least 2 and no column all 0: above 0 where a class has more of a word than the others
    together, in standard deviations.

    The prior is the words' counts over all classes, one count a word on average.
    """
    total_V = counts_CV.sum(0, dtype=np.float64)
    prior_V = total_V / total_V.mean()
    own_CV, others_CV = counts_CV + prior_V, total_V - counts_CV + prior_V
    log_odds = lambda held_CV: np.log(held_CV) - np.log(held_CV.sum(1, keepdims=True) - held_CV)
    return (log_odds(own_CV) - log_odds(others_CV)) / np.sqrt(1 / own_CV + 1 / others_CV)
