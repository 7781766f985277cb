"""Scores of taught samples as if they had never been taught: leave-one-out in closed form."""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning.statistics import SAMPLE_WEIGHT

Floats = NDArray[np.float64]

NO_SCORE = -1e9  # of a class that has lost its samples: below any other, and finite


class InnerProducts(NamedTuple):
    """All that leave-one-out needs of n samples with V views, under one precision B^-1.

    Attributes:
        views: (n, V, V) of a sample's views with each other.
        means: (n, V, C) of views with class means.
        classes: (C, C) of class means with each other.
    """

    views: Floats
    means: Floats
    classes: Floats


class HeldOut(NamedTuple):
    """Answers for samples as if they had never been taught.

    Attributes:
        scores: (n, V, C); -inf for a class without samples, as the sample's own is where it was the only one.
        norms: (n, V) squared length of each view under the held-out precision.
    """

    scores: Floats
    norms: Floats


class Solution(Protocol):
    """What answers for embeddings, taught or held out."""

    def scores(self, rows: Floats) -> Floats:
        """Return the (..., C) log posteriors, up to a constant, of (..., D) embeddings."""

    def hold_out(self, rows: Floats, classes: NDArray) -> HeldOut:
        """Answer for (n, V, D) embeddings, taught as classes (n,), as if each had never been taught."""


def hold_out(
    products: InnerProducts, classes: NDArray, counts: NDArray, weight: float, shrinkage: float
) -> HeldOut:
    """Score every view of every sample as if that sample (all its views) had never been taught.

    Removing a sample of class y takes V + 1 rank-one terms from the within-class scatter and moves m_y, so
    the held-out precision follows from the full one by the Woodbury identity; nothing is solved anew.

    Args:
        products: inner products under the full precision.
        classes: (n,) class of each sample.
        counts: (C,) weight of each class.
        weight: of all statistics.
        shrinkage: e of the full precision.
    """
    own = np.arange(len(classes))
    count_views = products.views.shape[1]
    rest = counts[classes] - SAMPLE_WEIGHT
    alone = rest <= 0
    pull = np.where(alone, 0.0, SAMPLE_WEIGHT / np.maximum(rest, 1))  # m_y moves by -pull (x - m_y)
    mean_views = products.views.mean(axis=2)  # x_v with x
    mean_means = products.means.mean(axis=1)  # x with m_j
    own_means = products.means[own, :, classes]  # x_v with m_y
    own_classes = products.classes[classes]  # m_y with m_j
    # The removed terms: V rows sqrt(w) (x_v - m_y) and one row sqrt(W pull) (x - m_y).
    scale = np.sqrt(SAMPLE_WEIGHT / count_views)
    last = np.sqrt(SAMPLE_WEIGHT * pull)
    terms = np.concatenate(
        [
            scale * (products.means - own_classes[:, None]),
            (last[:, None] * (mean_means - own_classes))[:, None],
        ],
        axis=1,
    )  # (n, V+1, C): terms with m_j
    with_views = np.concatenate(
        [
            scale * (products.views - own_means[:, None, :]),
            (last[:, None] * (mean_views - own_means))[:, None],
        ],
        axis=1,
    )  # (n, V+1, V): terms with x_v
    own_terms = terms[own, :, classes]  # (n, V+1): terms with m_y
    with_mean = with_views.mean(axis=2)  # terms with x
    gram = np.concatenate(
        [scale * (with_views - own_terms[:, :, None]), (last[:, None] * (with_mean - own_terms))[:, :, None]],
        axis=2,
    )
    core = np.eye(count_views + 1) / (1.0 - shrinkage) - gram
    # The moved mean m_y' = m_y - pull (x - m_y), in place of m_y.
    moved_terms = own_terms - pull[:, None] * (with_mean - own_terms)
    moved_means = own_means - pull[:, None] * (mean_views - own_means)
    own_own = own_classes[own, classes]
    own_mean = mean_means[own, classes]
    mean_mean = mean_views.mean(axis=1)
    norms = np.broadcast_to(np.diag(products.classes), own_classes.shape).copy()
    norms[own, classes] = (
        own_own - 2 * pull * (own_mean - own_own) + pull**2 * (mean_mean - 2 * own_mean + own_own)
    )
    means = products.means.copy()
    means[own, :, classes] = moved_means
    terms[own, :, classes] = moved_terms
    solved = np.linalg.solve(core, np.concatenate([terms, with_views], axis=2))
    solved_terms, solved_views = solved[:, :, : terms.shape[2]], solved[:, :, terms.shape[2] :]
    linear = means + np.einsum("ntv,ntc->nvc", with_views, solved_terms)
    norms = norms + np.einsum("ntc,ntc->nc", terms, solved_terms)
    rest_weight = weight - SAMPLE_WEIGHT
    scores = rest_weight * (linear - 0.5 * norms[:, None, :])
    scores[own[alone], :, classes[alone]] = -np.inf
    scores[:, :, counts == 0] = -np.inf
    lengths = np.einsum("nvv->nv", products.views) + np.einsum("ntv,ntv->nv", with_views, solved_views)
    return HeldOut(scores, rest_weight * lengths)
