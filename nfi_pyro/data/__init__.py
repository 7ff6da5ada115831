"""Data: prices in, panels out. Names load on first use, so importing this does not import torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nfi_pyro.data.build import build_panel
    from nfi_pyro.data.embedded import embedded_prices
    from nfi_pyro.data.labels import describe_label, forward_return
    from nfi_pyro.data.panel import Panel, check_panel
    from nfi_pyro.data.quality import DropLedger, Finding
    from nfi_pyro.data.readers import read_prices
    from nfi_pyro.data.simulate import SimulationSpec, simulate_panel
    from nfi_pyro.data.splits import DateSplit, split_dates
    from nfi_pyro.data.storage import panel_hash, read_panel, write_panel
    from nfi_pyro.data.technical import alpha158
    from nfi_pyro.data.transforms import RobustZScore
    from nfi_pyro.data.windows import Outcome, PanelBatch, PanelWindows

__all__ = [
    "DateSplit",
    "DropLedger",
    "Finding",
    "Outcome",
    "Panel",
    "PanelBatch",
    "PanelWindows",
    "RobustZScore",
    "SimulationSpec",
    "alpha158",
    "build_panel",
    "check_panel",
    "describe_label",
    "embedded_prices",
    "forward_return",
    "panel_hash",
    "read_panel",
    "read_prices",
    "simulate_panel",
    "split_dates",
    "write_panel",
]

_HOMES = {
    "alpha158": "technical",
    "build_panel": "build",
    "check_panel": "panel",
    "DateSplit": "splits",
    "describe_label": "labels",
    "DropLedger": "quality",
    "embedded_prices": "embedded",
    "Finding": "quality",
    "forward_return": "labels",
    "Outcome": "windows",
    "Panel": "panel",
    "panel_hash": "storage",
    "PanelBatch": "windows",
    "PanelWindows": "windows",
    "read_panel": "storage",
    "read_prices": "readers",
    "RobustZScore": "transforms",
    "simulate_panel": "simulate",
    "SimulationSpec": "simulate",
    "split_dates": "splits",
    "write_panel": "storage",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
