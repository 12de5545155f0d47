"""How sure a result is: intervals over runs and photos, paired differences, the luck of selection."""

from typing import NamedTuple

import numpy as np
import scipy  # loads its parts when they are first used
from numpy.typing import ArrayLike

KS = (1, 5, 10)  # of the Acc@K that are told
DRAWS = 10_000


class Accuracy(NamedTuple):
    """Percent of queries whose photo is among the first k, the hits, and the 95 % interval in percent."""

    k: int
    percent: float
    hits: int
    queries: int
    low: float
    high: float

    def __str__(self) -> str:
        interval = f"95 % CI {self.low:.1f}-{self.high:.1f}"
        return f"Acc@{self.k} {self.percent:.1f} % ({self.hits}/{self.queries}, {interval})"


class Estimate(NamedTuple):
    """Acc@k in percent, the mean over runs, with a 95 % bootstrap interval, NaN where there is none."""

    percent: float
    low: float
    high: float


class Difference(NamedTuple):
    """Acc@k of the second less that of the first in points, 95 % interval, two-sided bootstrap p; or NaN."""

    points: float
    low: float
    high: float
    p: float

    def __str__(self) -> str:
        interval = f"95 % CI {self.low:+.1f} to {self.high:+.1f}, p = {self.p:.2g}"
        return f"{self.points:+.1f} points ({'no interval: one photo' if np.isnan(self.low) else interval})"


def accuracy_at(ranks: np.ndarray, k: int) -> Accuracy:
    """Acc@k of `ranks` (q,) with its interval, as `accuracy_of` gives it."""
    return accuracy_of(int((ranks <= k).sum()), len(ranks), k)


def accuracy_of(hits: int, queries: int, k: int = 1) -> Accuracy:
    """Acc@k of so many hits with its Wilson 95 % interval.

    The interval takes queries as independent, which several sketches of one photo are not quite.
    """
    interval = scipy.stats.binomtest(hits, queries).proportion_ci(0.95, method="wilson")
    return Accuracy(k, 100 * hits / queries, hits, queries, 100 * interval.low, 100 * interval.high)


def bootstrap_accuracy(ranks: ArrayLike, photos: ArrayLike, k: int = 1) -> Estimate:
    """Acc@k of several runs on the same queries: ranks (runs, q), photos (q,) the photo of each query.

    Runs and photos are both drawn with replacement, photos with all their sketches: two sketches of one photo
    are not independent, and another seed would have given another model. One run gives an interval for photos
    alone; with fewer than about five it is still too narrow. If all or none are hits, it is Wilson's for as
    many queries as there are photos; one photo has no interval (NaN). Raises ValueError if the shapes do not
    fit.
    """
    hits, sizes = _by_photo(ranks, photos, k)
    percent, samples = _resample(hits, sizes)
    return Estimate(percent, *_interval(percent, samples, hits, sizes, 0))


def paired_bootstrap(first: ArrayLike, second: ArrayLike, photos: ArrayLike, k: int = 1) -> Difference:
    """How much better the second of two variants is: ranks (runs, q) each, of the same seeds and queries.

    Runs pair up by position, queries by column, and both are drawn as in `bootstrap_accuracy`, with the same
    limits; what makes a seed or a photo easy for both cancels out. Where all photos agree, interval and p are
    those of score tests: for no difference, or the largest there can be, Tango's and McNemar's. Raises
    ValueError if the shapes do not fit. Source: Tango, Statistics in Medicine 17 (1998).
    """
    (one, sizes), (two, _) = (_by_photo(ranks, photos, k) for ranks in (first, second))
    if one.shape != two.shape:
        raise ValueError(f"expected ranks of the same runs, found {len(one)} and {len(two)} runs")
    points, samples = _resample(two - one, sizes)
    # Draws of exactly no difference count for both sides.
    p = min(1.0, 2 * max(min((samples <= 0).mean(), (samples >= 0).mean()), 1 / DRAWS))
    if not np.ptp((two - one) / sizes):
        # Where the interval below first holds 0.
        p = 2 * scipy.special.ndtr(-np.sqrt(len(sizes) * abs(points) / 100))
    low, high = _interval(points, samples, two - one, sizes, -100)
    return Difference(points, low, high, np.nan if np.isnan(low) else p)


def _interval(
    percent: float, samples: np.ndarray, hits: np.ndarray, sizes: np.ndarray, least: float
) -> tuple[float, float]:
    """The 95 % interval of a mean of values from `least` to 100, of which `samples` (draws,) were drawn."""
    if len(sizes) < 2:
        return np.nan, np.nan
    if not np.ptp(hits / sizes):
        # Nothing to draw from differs, which does not make the result certain: so large a share of all photos
        # (Wilson's bound for none of these) may yet be unlike these, with any value.
        share = accuracy_of(0, len(sizes)).high / 100
        return percent - share * (percent - least), percent + share * (100 - percent)
    low, high = np.percentile(samples, (2.5, 97.5)).clip(least, 100)
    return low, high


def _by_photo(ranks: ArrayLike, photos: ArrayLike, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Hits (runs, photos) and queries (photos,)."""
    ranks, photos = np.asarray(ranks), np.asarray(photos)
    if ranks.ndim != 2 or photos.shape != ranks.shape[1:]:
        raise ValueError(f"expected ranks (runs, q) and photos (q,), found {ranks.shape}, {photos.shape}")
    _, group = np.unique(photos, return_inverse=True)
    return np.stack([np.bincount(group, weights=run <= k) for run in ranks]), np.bincount(group)


def _resample(hits: np.ndarray, sizes: np.ndarray) -> tuple[float, np.ndarray]:
    """Percent of the queries that are hits (runs, photos), and the same of drawn runs and photos (draws,)."""
    rng = np.random.default_rng(0)
    (runs, photos), mean = hits.shape, hits.mean(axis=0)
    # Drawing from n runs shows (n - 1) / n of their variance.
    hits = mean + (hits - mean) * np.sqrt(runs / max(runs - 1, 1))
    run_weight = rng.multinomial(runs, np.full(runs, 1 / runs), size=DRAWS) / runs
    photo_weight = rng.multinomial(photos, np.full(photos, 1 / photos), size=DRAWS)
    found = np.einsum("dr,rp,dp->d", run_weight, hits, photo_weight, optimize=True)
    return 100 * mean.sum() / sizes.sum(), 100 * found / (photo_weight @ sizes)
