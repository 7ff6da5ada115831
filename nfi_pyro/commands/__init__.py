"""The commands of `nfi` as Python functions of the same names."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nfi_pyro.commands.attribution_page import attribute
    from nfi_pyro.commands.comparing import compare
    from nfi_pyro.commands.demonstration import demo
    from nfi_pyro.commands.diagnosing import diagnose
    from nfi_pyro.commands.fitting import fit
    from nfi_pyro.commands.geometry_page import geometry
    from nfi_pyro.commands.predicting import forecast
    from nfi_pyro.commands.preparing import panel
    from nfi_pyro.commands.reporting import report
    from nfi_pyro.commands.synthesising import synthesise

_HOMES = {
    "attribute": "nfi_pyro.commands.attribution_page",
    "compare": "nfi_pyro.commands.comparing",
    "demo": "nfi_pyro.commands.demonstration",
    "diagnose": "nfi_pyro.commands.diagnosing",
    "fit": "nfi_pyro.commands.fitting",
    "forecast": "nfi_pyro.commands.predicting",
    "geometry": "nfi_pyro.commands.geometry_page",
    "panel": "nfi_pyro.commands.preparing",
    "report": "nfi_pyro.commands.reporting",
    "synthesise": "nfi_pyro.commands.synthesising",
}

__all__ = [
    "attribute",
    "compare",
    "demo",
    "diagnose",
    "fit",
    "forecast",
    "geometry",
    "panel",
    "report",
    "synthesise",
]


def __getattr__(name: str) -> object:
    """Import a command on first use, so that help answers at once."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
