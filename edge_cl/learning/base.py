"""The closed-form half of the head: shrinkage LDA whose statistics can be added to, taken from and merged.

    Lambda = ((1 - e) Sigma + e tr(Sigma) / D  I)^-1,   w_c = Lambda m_c,   b_c = -1/2 m_c' Lambda m_c

Sigma is the shared within-class covariance, m_c the class mean, e the shrinkage (Ledoit and Wolf 2004;
streaming form: Hayes and Kanan, Lifelong Machine Learning with Deep Streaming LDA, 2020). The statistics are
whole numbers (see `embedding`), so `update`, `revert` and `merge` are exact. Rank-one steps keep the solution
current in single precision; `settle` brings it back to what the statistics say, in double.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning.embedding import UNIT
from edge_cl.learning.held_out import NO_SCORE, HeldOut, InnerProducts, hold_out
from edge_cl.learning.shrinkage import FIRST_SHRINKAGE, SHRINKAGES, Candidate, step_downhill
from edge_cl.learning.statistics import SAMPLE_WEIGHT, Statistics, empty_statistics, merge, within_scatter
from edge_cl.learning.strips import add_product, sketch, to_inverse_root, to_single, to_square

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

PRIOR_SAMPLES = 32  # the ridge of an untaught base stands for this many samples of ...
PRIOR_SPREAD = 0.4  # ... this within-class variance (of a unit-length embedding; measured 0.3 to 0.5)
PENDING_ROWS = 32  # rank-one steps gathered before they are folded in by one matrix product
GROWTH = 1.3  # shrinkage and ridge are stale once the statistics have grown by this factor


class Steps(NamedTuple):
    """How the views of one sample change the class that they join.

    Attributes:
        rows: (V, D) y with S_after = S_before + sum y y', in real units.
        moves: (V,) with m_after = m_before + moves @ rows.
        is_first: the class was empty; its first row then moves the mean (from zero) and spreads nothing.
    """

    rows: Floats
    moves: Floats
    is_first: bool


def joining_steps(rows: Floats, count: int, total: Floats) -> Steps:
    """Return the steps of (V, D) views that join a class of weight `count` and sum `total` (Welford 1962)."""
    weight = SAMPLE_WEIGHT // len(rows)
    before = count + weight * np.arange(len(rows), dtype=np.float64)  # weight that each view meets
    is_first = count == 0
    before[0] = max(before[0], 1.0)  # of an empty class: its sum is zero, and what stands for its mean, too
    after = before + weight
    spread, moves = np.sqrt(weight * before / after) / UNIT, np.sqrt(weight / (before * after))
    if is_first:
        spread[0], moves[0] = 1.0 / UNIT, 1.0
    share = spread / before
    # y_v = spread_v (row_v - mean of what it meets); one product does all of them.
    met = np.diag(spread) - weight * share[:, None] * np.tri(len(rows), k=-1)
    return Steps(met @ rows - share[:, None] * total, moves, is_first)


class Base:
    """Shrinkage LDA over growing classes; its arrays change in place.

    Copying (D, D) arrays for every sample would cost more than the update itself, so this is the one place of
    the learner where state is not replaced but changed. `statistics`, `shrinkage` and `ridge` are the state;
    the rest follows from them by `settle`.

    The precision is held as B^-1 with B = (1 - e) S + r I, S the within-class scatter (a sum, not a mean) and
    r fixed between two calls of `refresh`; Lambda = weight * B^-1. A new sample then is a rank-V step of B^-1
    (Sherman, Morrison and Woodbury), kept as pending rows until PENDING_ROWS are folded in by one product.

    A step costs what reading B^-1 costs, so that is kept in single precision. The statistics never are: the
    scores drift by less than 1e-6 of the largest from one growth of the ridge to the next on real features
    (1e-5 in 5,000 steps without), and `settle` takes that back.
    """

    def __init__(self, size: int) -> None:
        self.shrinkage = FIRST_SHRINKAGE
        self.ridge = FIRST_SHRINKAGE * PRIOR_SPREAD / size * PRIOR_SAMPLES * SAMPLE_WEIGHT
        self.refreshed_weight = 0  # weight of the statistics when the ridge was set
        self._counts, self._sums, self._moment, self._residue = empty_statistics(size)
        self._unfolded: list[tuple[int, Floats]] = []  # weight and rows whose products are not in `_moment`
        self._inverse: Singles = np.eye(size, dtype=np.float32) / np.float32(self.ridge)
        self._pending = np.zeros((PENDING_ROWS, size), np.float32)  # rows u: B^-1 = _inverse - sum sign u u'
        self._signs = np.zeros(PENDING_ROWS, np.float32)  # of the pending rows; the first `_waiting` count
        self._waiting = 0
        self._weights = np.zeros((0, size))  # (C, D): B^-1 m_c
        self._biases: Floats = np.zeros(0)  # (C,): -1/2 m_c' B^-1 m_c
        self._sketch = np.zeros((size, 0), np.float32)

    @property
    def statistics(self) -> Statistics:
        """What was seen so far; the arrays are the base's own."""
        self._fold_moment()
        return Statistics(self._counts, self._sums, self._moment, self._residue)

    @property
    def size(self) -> int:
        """D, values per embedding."""
        return self._sums.shape[1]

    @property
    def classes(self) -> int:
        """C, classes seen so far."""
        return len(self._counts)

    @property
    def counts(self) -> NDArray[np.int64]:
        """(C,) weight of each class, in units of 1/SAMPLE_WEIGHT sample."""
        return self._counts

    @property
    def weight(self) -> int:
        """Weight of all statistics, in units of 1/SAMPLE_WEIGHT sample."""
        return int(self._counts.sum()) + self._residue

    @property
    def is_stale(self) -> bool:
        """Whether the statistics have changed so much that the ridge should be set anew."""
        return self.weight > GROWTH * self.refreshed_weight or self.weight * GROWTH < self.refreshed_weight

    def add_class(self) -> int:
        """Append an empty class and return its number."""
        row = np.zeros((1, self.size))
        self._counts = np.append(self._counts, np.int64(0))
        self._sums = np.concatenate([self._sums, row])
        self._weights = np.concatenate([self._weights, row])
        self._biases = np.append(self._biases, 0.0)
        return self.classes - 1

    def update(self, rows: Floats, number: int) -> None:
        """Teach one sample of class `number`: (V, D) embeddings of its views; O(V D^2)."""
        self._take_in(rows, number, 1)

    def revert(self, rows: Floats, number: int) -> None:
        """Take one taught sample out again: the exact inverse of `update`.

        Raises:
            ValueError: the class holds no sample.
        """
        if self._counts[number] < SAMPLE_WEIGHT:
            raise ValueError(f"class {number} holds no sample to take out")
        self._take_in(rows, number, -1)

    def forget_class(self, number: int) -> None:
        """Drop what is left of class `number` and its row; later classes move down by one.

        Samples that are still at hand should be reverted first: of the rest, count and mean go exactly, while
        their spread about that mean stays in the pooled scatter (it was never kept per class).
        """
        count, total = int(self._counts[number]), self._sums[number]
        if count:
            self._fold_moment()
            self._moment -= np.rint(np.outer(total, total) / count)
        self._residue += count
        self._counts = np.delete(self._counts, number)
        self._sums = np.delete(self._sums, number, axis=0)
        self.settle()

    def join_classes(self, source: int, target: int) -> None:
        """Make class `source` a part of class `target`; later classes move down by one. Exact, as `merge`."""
        self._counts[target] += self._counts[source]
        self._sums[target] += self._sums[source]
        self._counts = np.delete(self._counts, source)
        self._sums = np.delete(self._sums, source, axis=0)
        self.settle()

    def absorb(self, other: Statistics) -> None:
        """Add another device's statistics of the same classes in the same order (`merge`)."""
        self._counts, self._sums, self._moment, self._residue = merge(self.statistics, other)
        self.settle()

    def scores(self, rows: Floats) -> Floats:
        """Return the (..., C) log posteriors, up to a constant, of (..., D) embeddings; O(C D)."""
        found = rows @ self._weights.T
        found /= UNIT
        found += self._biases
        found *= self.weight
        found[..., self._counts == 0] = NO_SCORE  # its mean of zero would win where all others lose
        return found

    def sketched_distance(self, rows: Floats, classes: NDArray) -> Floats:
        """Estimate (n,) squared Mahalanobis distances of the mean view of (n, V, D) to its class; O(D).

        The exact one costs O(D^2) for every answer. A random projection keeps it within some 9 % (its spread
        is sqrt(2 / SKETCH)): Johnson and Lindenstrauss, with signs as Achlioptas 2003.
        """
        mean_view = rows[:, 0] if rows.shape[1] == 1 else rows.mean(axis=1)
        difference = (mean_view / UNIT - self._means(classes)).astype(np.float32)
        projected = difference @ self._sketch
        return np.einsum("nk,nk->n", projected, projected).astype(np.float64) * self.weight

    def restore(
        self,
        counts: NDArray[np.int64],
        sums: Floats,
        moment: Floats,
        residue: int,
        shrinkage: float,
        ridge: float,
        refreshed_weight: int,
    ) -> None:
        """Take over a stored state (copied) and settle."""
        self._counts, self._sums, self._moment = counts.copy(), sums.copy(), moment
        self._residue, self.refreshed_weight = residue, refreshed_weight
        self.shrinkage, self.ridge = shrinkage, ridge
        self.settle()

    def settle(self) -> None:
        """Solve for B^-1 anew from the statistics, with the ridge as it is; O(D^3).

        Rounding of the rank-one path ends here, so two bases with equal statistics, shrinkage and ridge are
        equal bit for bit after it.
        """
        self._waiting = 0
        self._inverse = np.zeros((0, 0), np.float32)  # given up first: peak memory is made of such arrays
        root = within_scatter(self.statistics)
        root *= 1.0 - self.shrinkage
        root[np.diag_indices(self.size)] += self.ridge
        to_inverse_root(root)  # B^-1 = root' root
        self._sketch = sketch(root)
        means = self._means()
        self._weights = (means @ root.T) @ root
        self._inverse = to_square(root)
        self._biases = -0.5 * np.einsum("cd,cd->c", self._weights, means)

    def refresh(self, shrinkage: float) -> None:
        """Set shrinkage e and ridge r = e tr(S) / D anew and settle."""
        self.shrinkage, self.ridge = shrinkage, self._ridge_at(shrinkage)
        self.refreshed_weight = self.weight
        self.settle()

    def choose_shrinkage(self, loss: Callable[[Candidate], float]) -> None:
        """Refresh with the candidate near the shrinkage in use whose held-out answers have the least loss.

        One step to a neighbour at most: the best shrinkage moves slowly as samples come, and each candidate
        costs a solution. (One eigendecomposition would serve all, in twice the memory.)
        """
        self._inverse = np.zeros((0, 0), np.float32)  # given up first, as in `settle`
        shrinkage = self.shrinkage
        try:
            shrinkage = self._better_shrinkage(loss)
        finally:  # whoever interrupts this finds a base that answers and learns
            self.refresh(shrinkage)

    def _better_shrinkage(self, loss: Callable[[Candidate], float]) -> float:
        scatter, means = to_single(within_scatter(self.statistics)), self._means()

        def loss_at(index: int) -> float:
            shrinkage = SHRINKAGES[index]
            ridge = self._ridge_at(shrinkage)
            return loss(Candidate(scatter, means, self._counts, self.weight, shrinkage, ridge))

        start = int(np.argmin([abs(e - self.shrinkage) for e in SHRINKAGES]))
        return SHRINKAGES[step_downhill(start, len(SHRINKAGES), loss_at)]

    def _ridge_at(self, shrinkage: float) -> float:
        least = PRIOR_SPREAD / self.size * SAMPLE_WEIGHT  # one sample a class has no spread at all
        return shrinkage * max(self._scatter_trace() / self.size, least)

    def hold_out(self, rows: Floats, classes: NDArray) -> HeldOut:
        """Answer for taught samples as if each had never been taught; O(V D^2) a sample.

        Args:
            rows: (n, V, D) embeddings.
            classes: (n,) the class each was taught as.
        """
        # Pending steps stay pending: a question must not change the rounding of what is taught later.
        real = (rows / UNIT).astype(np.float32)
        solved = self._less_pending(real.reshape(-1, self.size) @ self._inverse, real).reshape(rows.shape)
        products = InnerProducts(
            (solved @ real.transpose(0, 2, 1)).astype(np.float64),
            rows @ self._weights.T / UNIT,
            self._means() @ self._weights.T,
        )
        return hold_out(products, classes, self._counts, self.weight, self.shrinkage)

    def _take_in(self, rows: Floats, number: int, sign: int) -> None:
        if sign < 0:  # what leaves is what would join the rest
            self._count(rows, number, sign)
        steps = joining_steps(rows, int(self._counts[number]), self._sums[number])
        if sign > 0:
            self._count(rows, number, sign)
        if self._waiting + len(rows) > PENDING_ROWS:
            self._fold_pending()
            self._fold_moment()
        try:
            self._step(steps, number, sign)
        except np.linalg.LinAlgError:  # rounding has eaten what is to be taken out: solve anew
            self.settle()

    def _count(self, rows: Floats, number: int, sign: int) -> None:
        weight = sign * (SAMPLE_WEIGHT // len(rows))
        self._counts[number] += weight * len(rows)
        self._sums[number] += weight * rows.sum(axis=0)
        self._unfolded.append((weight, rows.copy()))  # the caller may reuse its array

    def _step(self, steps: Steps, number: int, sign: int) -> None:
        """Move B^-1 by steps, and every class's weights with it.

        With Y the steps and a = 1 - e:  (B + s a Y'Y)^-1 = B^-1 - s G' (I/a + s Y G')^-1 G,  G = Y B^-1.
        """
        solved = self._solve(steps.rows)
        self._weights[number] += sign * (steps.moves @ solved)  # B^-1 m for the mean as it is now
        spread, solved = steps.rows[steps.is_first :], solved[steps.is_first :]
        if len(spread):
            core = np.eye(len(spread)) / (1.0 - self.shrinkage) + sign * (spread @ solved.T)
            directions = np.linalg.inv(np.linalg.cholesky(core)) @ solved
            self._wait(directions, sign)
            reach = (self._sums @ directions.T) / (UNIT * np.maximum(self._counts, 1)[:, None])  # u' m_c
            self._weights -= (sign * reach) @ directions
            self._biases += 0.5 * sign * np.einsum("ck,ck->c", reach, reach)
        if not self._counts[number]:
            self._weights[number] = 0.0  # nothing of its rounding may stay for who comes next
        self._biases[number] = -0.5 * (self._weights[number] @ self._means(number))

    def _wait(self, directions: Floats, sign: int) -> None:
        rows = slice(self._waiting, self._waiting + len(directions))
        self._pending[rows], self._signs[rows] = directions, sign
        self._waiting = rows.stop

    def _solve(self, rows: Floats) -> Floats:
        """Return (V, D) rows B^-1, pending steps included."""
        # Row by row: for a product with few rows BLAS would copy all of the matrix first.
        real = rows.astype(np.float32)
        solved = np.empty_like(real)
        for row, out in zip(real, solved, strict=True):
            np.matmul(self._inverse, row, out=out)
        return self._less_pending(solved, real).astype(np.float64)

    def _less_pending(self, solved: Singles, rows: Singles) -> Singles:
        """Take from rows `_inverse` (n, D) what the pending steps take from B^-1; in place."""
        if self._waiting:
            pending, signs = self._pending[: self._waiting], self._signs[: self._waiting]
            solved -= ((rows.reshape(solved.shape) @ pending.T) * signs) @ pending
        return solved

    def _fold_pending(self) -> None:
        pending, signs = self._pending[: self._waiting], self._signs[: self._waiting]
        add_product(self._inverse, -(pending.T * signs), pending)
        self._waiting = 0

    def _fold_moment(self) -> None:
        if self._unfolded:
            rows = np.concatenate([part for _, part in self._unfolded])
            weights = np.repeat([weight for weight, _ in self._unfolded], [len(p) for _, p in self._unfolded])
            add_product(self._moment, rows.T * weights, rows)
            self._unfolded = []

    def _scatter_trace(self) -> float:
        """Return tr(S) without making S."""
        squares = np.einsum("cd,cd->c", self._sums, self._sums) / np.maximum(self._counts, 1)
        return float(np.trace(self.statistics.moment) - squares.sum()) / (UNIT * UNIT)

    def _means(self, chosen: int | slice | NDArray[np.intp] = slice(None)) -> Floats:
        """Return (C, D) class means in real units, or those of the chosen classes."""
        return self._sums[chosen] / (UNIT * np.maximum(self._counts[chosen], 1)[..., None])
