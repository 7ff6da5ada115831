"""Data: prices in, panels out. Names load on first use, so importing this does not import torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nfi_pyro.data.build import build_panel
    from nfi_pyro.data.checks.causality import CausalityReport, audit_causality
    from nfi_pyro.data.checks.quality import DropLedger, Finding, Inspection
    from nfi_pyro.data.features.styles import BARRA_STYLES, barra_styles
    from nfi_pyro.data.features.technical import FeatureTable, alpha158
    from nfi_pyro.data.labels import describe_label, forward_return, relative_label, timeline
    from nfi_pyro.data.market.masks import trading_masks
    from nfi_pyro.data.market.price_limits import PriceLimitTable, read_price_limits
    from nfi_pyro.data.market.universe import UniverseRules, read_spells, tradable_universe
    from nfi_pyro.data.panel import Panel, PanelBlocks, check_panel
    from nfi_pyro.data.panel_spec import PanelSpec
    from nfi_pyro.data.simulate import SimulationSpec, simulate_panel
    from nfi_pyro.data.sources.embedded import embedded_prices
    from nfi_pyro.data.sources.qlib_bin import read_qlib
    from nfi_pyro.data.sources.qlib_writer import write_qlib
    from nfi_pyro.data.sources.readers import inspect_prices, read_prices
    from nfi_pyro.data.splits import DateSplit, describe_splits, split_dates, walk_forward
    from nfi_pyro.data.store.append import append_panel, extend_panel
    from nfi_pyro.data.store.digests import panel_hash
    from nfi_pyro.data.store.storage import read_panel, write_panel
    from nfi_pyro.data.training.column_statistics import ArrayBlocks
    from nfi_pyro.data.training.transform_chain import TransformChain
    from nfi_pyro.data.training.transforms import RobustZScore
    from nfi_pyro.data.training.windows import Outcome, PanelBatch, PanelWindows

__all__ = [
    "BARRA_STYLES",
    "ArrayBlocks",
    "CausalityReport",
    "DateSplit",
    "DropLedger",
    "FeatureTable",
    "Finding",
    "Inspection",
    "Outcome",
    "Panel",
    "PanelBatch",
    "PanelBlocks",
    "PanelSpec",
    "PanelWindows",
    "PriceLimitTable",
    "RobustZScore",
    "SimulationSpec",
    "TransformChain",
    "UniverseRules",
    "alpha158",
    "append_panel",
    "audit_causality",
    "barra_styles",
    "build_panel",
    "check_panel",
    "describe_label",
    "describe_splits",
    "embedded_prices",
    "extend_panel",
    "forward_return",
    "inspect_prices",
    "panel_hash",
    "read_panel",
    "read_price_limits",
    "read_prices",
    "read_qlib",
    "read_spells",
    "relative_label",
    "simulate_panel",
    "split_dates",
    "timeline",
    "tradable_universe",
    "trading_masks",
    "walk_forward",
    "write_panel",
    "write_qlib",
]

_HOMES = {
    "FeatureTable": "features.technical",
    "read_spells": "market.universe",
    "PriceLimitTable": "market.price_limits",
    "PanelBlocks": "panel",
    "ArrayBlocks": "training.column_statistics",
    "alpha158": "features.technical",
    "append_panel": "store.append",
    "audit_causality": "checks.causality",
    "BARRA_STYLES": "features.styles",
    "barra_styles": "features.styles",
    "build_panel": "build",
    "CausalityReport": "checks.causality",
    "check_panel": "panel",
    "DateSplit": "splits",
    "describe_label": "labels",
    "describe_splits": "splits",
    "DropLedger": "checks.quality",
    "embedded_prices": "sources.embedded",
    "extend_panel": "store.append",
    "Finding": "checks.quality",
    "forward_return": "labels",
    "inspect_prices": "sources.readers",
    "Inspection": "checks.quality",
    "Outcome": "training.windows",
    "Panel": "panel",
    "panel_hash": "store.digests",
    "PanelBatch": "training.windows",
    "PanelSpec": "panel_spec",
    "PanelWindows": "training.windows",
    "read_panel": "store.storage",
    "read_price_limits": "market.price_limits",
    "read_prices": "sources.readers",
    "read_qlib": "sources.qlib_bin",
    "relative_label": "labels",
    "RobustZScore": "training.transforms",
    "simulate_panel": "simulate",
    "SimulationSpec": "simulate",
    "split_dates": "splits",
    "timeline": "labels",
    "tradable_universe": "market.universe",
    "trading_masks": "market.masks",
    "TransformChain": "training.transform_chain",
    "UniverseRules": "market.universe",
    "walk_forward": "splits",
    "write_panel": "store.storage",
    "write_qlib": "sources.qlib_writer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
