"""How close synthetic feature rows come to real ones, and whether they are copies."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import ks_2samp
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from nfi_pyro.dims import FEATURE
from nfi_pyro.errors import PanelError, SpecError
from nfi_pyro.exposures.generate import SYNTHETIC
from nfi_pyro.exposures.rows import check_rows, date_rows, match_features

_FOLDS = 5
_TREES = 60
_CHUNK = 4096  # real rows whose distances are in memory at a time


@dataclass(frozen=True)
class FidelityReport:
    """Four comparisons of synthetic rows with real ones; `reading` says what is good.

    Attributes
    ----------
    features : tuple of str
    ks : ndarray, shape (feature,)
        Largest gap between the two empirical distribution functions (Kolmogorov-Smirnov).
    ks_critical : float
        What the largest gap stays below in at least 95 of 100 cases when independent rows have
        one law (asymptotic, Bonferroni over features).
    correlation_distance : float
        Frobenius norm of the difference of the correlation matrices over the root of their
        off-diagonal entries: the typical error of one correlation.
    correlation_floor : float
        The same between two halves of the real assets: what sampling alone gives.
    auc, auc_error : float
        Classifier two-sample test: area under the curve of a random forest that tells real from
        synthetic, out of fold, all rows of an asset in one fold; and its standard deviation over
        folds.
    distance_ratio : float
        Median distance of a synthetic row to its nearest real row, over that of a real row to
        its nearest real row of another asset; in real standard deviations.
    copy_share : float
        Share of synthetic rows nearer to a real row than all but 1 percent of real rows are to
        one of another asset.
    n_real, n_synthetic : int
        Rows compared.
    seed : int

    References
    ----------
    .. [1] Lopez-Paz, Oquab (2017). Revisiting Classifier Two-Sample Tests. ICLR.
    """

    features: tuple[str, ...]
    ks: np.ndarray
    ks_critical: float
    correlation_distance: float
    correlation_floor: float
    auc: float
    auc_error: float
    distance_ratio: float
    copy_share: float
    n_real: int
    n_synthetic: int
    seed: int

    @property
    def reading(self) -> tuple[str, ...]:
        """Each figure in words, with what is good."""
        worst = int(self.ks.argmax())
        return (
            f"marginals: largest KS {self.ks[worst]:.3f} at {self.features[worst]}, mean "
            f"{self.ks.mean():.3f}; good: below {self.ks_critical:.3f}, and up to 0.1 is usable",
            f"correlations: typical error {self.correlation_distance:.3f}; good: near "
            f"{self.correlation_floor:.3f}, which two halves of the real assets have",
            f"classifier: AUC {self.auc:.3f} (sd {self.auc_error:.3f} over folds); good: 0.5 to "
            "0.6, a coin's guess; near 1, every row is recognised; well below 0.5, rows are copies",
            f"nearest neighbour: distance ratio {self.distance_ratio:.2f}, copies "
            f"{self.copy_share:.1%}; good: a ratio of about 1 and about 1% copies; well below 1, "
            "or many copies, the generator has memorised rows; well above 1, it misses where the "
            "real rows are",
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON."""
        return asdict(self) | {"features": list(self.features), "ks": self.ks.tolist()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "FidelityReport":
        """Return the report that `as_dict` wrote."""
        arrays = {"features": tuple(values["features"]), "ks": np.array(values["ks"])}
        return cls(**{**values, **arrays})


@dataclass(frozen=True)
class _Sample:
    """Complete rows (row, feature) and the asset of each."""

    values: np.ndarray
    assets: np.ndarray


def fidelity_report(
    real: xr.Dataset, synthetic: xr.Dataset, *, seed: int, max_rows: int = 1500
) -> FidelityReport:
    """Return how close synthetic rows come to real ones, and whether they are copies.

    Compare with real dates that the generator was fitted on for memorisation, and with held-out
    dates for fidelity. Rows stand alone: nothing here tests how features move in time.

    Parameters
    ----------
    real : Dataset
        ``features`` (date, asset, feature) and ``tradable`` (date, asset), at least 4 assets.
        Rows with a missing entry are left out.
    synthetic : Dataset
        The same, flagged ``synthetic=True``.
    seed : int
        Of the choice of rows, the halves and the classifier; global generators are left as they
        were.
    max_rows : int
        Rows of each kind, drawn at random, that the classifier sees and that look for their
        nearest real row, which may be any; marginals and correlations see all.

    Returns
    -------
    FidelityReport

    Raises
    ------
    SpecError
        If the flags are the wrong way round, or `max_rows` is below 50.
    PanelError
        If layouts differ, or either side has fewer than 4 assets or 20 complete rows.
    """
    if real.attrs.get(SYNTHETIC, False) or synthetic.attrs.get(SYNTHETIC) is not True:
        raise SpecError(
            "real must not be flagged synthetic and synthetic must be; got "
            f"{real.attrs.get(SYNTHETIC)} and {synthetic.attrs.get(SYNTHETIC)}. Swap them, or use "
            "generate_features."
        )
    if max_rows < 50:
        raise SpecError(f"max_rows must be >= 50; got {max_rows}. Use 1500.")
    match_features(synthetic["features"], real[FEATURE].to_numpy(), "real")
    rng = np.random.default_rng(seed)
    ours, theirs = _sample("real", real), _sample(SYNTHETIC, synthetic)
    n, m = len(ours.values), len(theirs.values)
    ks = [
        float(ks_2samp(ours.values[:, place], theirs.values[:, place], method="asymp").statistic)
        for place in range(ours.values.shape[1])
    ]
    first = np.isin(ours.assets, _half(ours.assets, rng))
    few, fake = _draw(ours, max_rows, rng), _draw(theirs, max_rows, rng)
    auc, auc_error = _classifier_auc(few, fake, rng)
    ratio, copies = _distances(ours, few, fake)
    return FidelityReport(
        features=tuple(map(str, real[FEATURE].to_numpy())),
        ks=np.array(ks),
        ks_critical=math.sqrt(-0.5 * math.log(0.025 / len(ks)) * (n + m) / (n * m)),
        correlation_distance=_correlation_distance(ours.values, theirs.values),
        correlation_floor=_correlation_distance(ours.values[first], ours.values[~first]),
        auc=auc,
        auc_error=auc_error,
        distance_ratio=ratio,
        copy_share=copies,
        n_real=n,
        n_synthetic=m,
        seed=seed,
    )


def _sample(name: str, dataset: xr.Dataset) -> _Sample:
    """Return all complete rows of a dataset."""
    features, mask = dataset["features"], dataset["tradable"]
    check_rows(features, mask)
    found = list(date_rows(features, mask, slice(0, len(features))))
    sample = _Sample(
        np.concatenate([rows.values for rows in found]),
        np.concatenate([rows.columns for rows in found]),
    )
    n_assets = len(np.unique(sample.assets))
    if n_assets < 4 or len(sample.values) < 20:
        raise PanelError(
            f"{name} must have at least 4 assets and 20 complete rows; got {n_assets} and "
            f"{len(sample.values)}. Give more."
        )
    return sample


def _half(assets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return half of the assets, at random."""
    distinct = rng.permutation(np.unique(assets))
    return distinct[: len(distinct) // 2]


def _draw(sample: _Sample, n_rows: int, rng: np.random.Generator) -> _Sample:
    """Return at most `n_rows` rows, at random and without repetition."""
    chosen = rng.permutation(len(sample.values))[:n_rows]
    return _Sample(sample.values[chosen], sample.assets[chosen])


def _correlation_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the root mean square difference of the off-diagonal correlations."""
    size = first.shape[1]
    if size < 2:
        return 0.0
    gap = np.corrcoef(first.T) - np.corrcoef(second.T)
    return float(np.linalg.norm(gap) / math.sqrt(size * (size - 1)))


def _classifier_auc(
    real: _Sample, synthetic: _Sample, rng: np.random.Generator
) -> tuple[float, float]:
    """Return mean and standard deviation over folds of the out-of-fold AUC."""
    values = np.concatenate([real.values, synthetic.values])
    kind = np.repeat([0, 1], [len(real.values), len(synthetic.values)])
    # A row of an asset resembles its rows on other dates: they must not be on both sides.
    groups = np.concatenate([real.assets, synthetic.assets + real.assets.max() + 1])
    n_folds = min(_FOLDS, len(np.unique(real.assets)), len(np.unique(synthetic.assets)))
    state = int(rng.integers(2**31))
    folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=state)
    scores = []
    for learn, judge in folds.split(values, kind, groups):
        if len(np.unique(kind[judge])) < 2:
            continue  # few assets of uneven size: a fold of one kind has no AUC
        forest = RandomForestClassifier(_TREES, min_samples_leaf=5, random_state=state)
        forest.fit(values[learn], kind[learn])
        scores.append(roc_auc_score(kind[judge], forest.predict_proba(values[judge])[:, 1]))
    return float(np.mean(scores)), float(np.std(scores))


def _distances(real: _Sample, some: _Sample, synthetic: _Sample) -> tuple[float, float]:
    """Return the ratio of median nearest distances and the share of copies.

    Every real row is searched, since a copied one may be any of them; `some` of them ask how far
    away a real neighbour usually is.
    """
    scale = real.values.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    middle = real.values.mean(axis=0)  # small numbers lose fewer digits in the squares below
    ours, few, fake = ((each.values - middle) / scale for each in (real, some, synthetic))
    own, nearest = np.full(len(few), np.inf), np.full(len(fake), np.inf)
    for start in range(0, len(ours), _CHUNK):
        rows = slice(start, start + _CHUNK)
        among = _squares(few, ours[rows])
        among[some.assets[:, None] == real.assets[rows]] = np.inf  # itself, on any date
        own = np.minimum(own, among.min(axis=1))
        nearest = np.minimum(nearest, _squares(fake, ours[rows]).min(axis=1))
    copies = float((nearest < np.quantile(own, 0.01)).mean())
    return math.sqrt(float(np.median(nearest) / np.median(own))), copies


def _squares(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return squared distances of all pairs, (first, second)."""
    sums = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)
    return np.maximum(sums - 2.0 * first @ second.T, 0.0)
