"""Parts of an attribution page that look through the networks: heat maps, features, relevance."""

from nfi_pyro.attribution.networks.gradcam import factor_gradcam
from nfi_pyro.attribution.networks.gradcam_sanity import gradcam_sanity
from nfi_pyro.attribution.networks.integrated_gradients import integrated_gradients
from nfi_pyro.attribution.networks.relevance import layer_relevance
from nfi_pyro.attribution.results.explanations import (
    FactorHeatMap,
    FeatureAttribution,
    FeatureRelevance,
    HeatMapSanity,
)
from nfi_pyro.commands.attribution_task import AttributionTask

FEW = 8
"""Dates on which features and lags are attributed, at most."""
FEWEST, CELLS = 4, 60
"""Dates and cells on which maps are compared with those of random weights, about."""


def heat_of(task: AttributionTask, target: str) -> FactorHeatMap:
    """Return the signed heat map of a target over factors and the visited dates."""
    return factor_gradcam(
        task.fit,
        task.panel,
        weights=task.book,
        target=target,
        dates=task.visit(),
        relu=False,
    )


def sanity_of(task: AttributionTask) -> HeatMapSanity:
    """Return how much random weights change the heat map of the expected return."""
    model = task.fit.model
    given = len(task.fit.provenance["exposures"]["names"]) if model.uses_exposures else 0
    dates = task.visit(max(FEWEST, -(-CELLS // (given or model.spec.n_factors))))
    return gradcam_sanity(task.fit, task.panel, weights=task.book, dates=dates, seed=task.seed)


def features_of(task: AttributionTask) -> FeatureAttribution:
    """Return the integrated gradients of the expected return, features by lag."""
    return integrated_gradients(task.fit, task.panel, weights=task.book, dates=task.visit(FEW))


def relevance_of(task: AttributionTask) -> FeatureRelevance:
    """Return the relevance of features by lag for the expected return."""
    return layer_relevance(task.fit, task.panel, weights=task.book, dates=task.visit(FEW))
