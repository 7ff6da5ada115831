"""Results to one self-contained HTML page; no model and no fitting is imported here."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nfi_pyro.rendering.attribution_contents import AttributionContents
    from nfi_pyro.rendering.attribution_page import render_attribution
    from nfi_pyro.rendering.contents import ReportContents
    from nfi_pyro.rendering.diagnosis_contents import DiagnosisContents
    from nfi_pyro.rendering.diagnosis_page import render_diagnosis
    from nfi_pyro.rendering.geometry_contents import GeometryContents
    from nfi_pyro.rendering.geometry_page import render_geometry
    from nfi_pyro.rendering.html import render_report

__all__ = [
    "AttributionContents",
    "DiagnosisContents",
    "GeometryContents",
    "ReportContents",
    "render_attribution",
    "render_diagnosis",
    "render_geometry",
    "render_report",
]

_HOMES = {
    "AttributionContents": "nfi_pyro.rendering.attribution_contents",
    "DiagnosisContents": "nfi_pyro.rendering.diagnosis_contents",
    "GeometryContents": "nfi_pyro.rendering.geometry_contents",
    "ReportContents": "nfi_pyro.rendering.contents",
    "render_attribution": "nfi_pyro.rendering.attribution_page",
    "render_diagnosis": "nfi_pyro.rendering.diagnosis_page",
    "render_geometry": "nfi_pyro.rendering.geometry_page",
    "render_report": "nfi_pyro.rendering.html",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # matplotlib and jinja2 are slow to import

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
