"""One self-contained HTML page out of the results of one run."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from nfi_pyro.rendering.contents import ReportContents
from nfi_pyro.rendering.page import Section
from nfi_pyro.rendering.sections import build_sections


def render_report(contents: ReportContents) -> str:
    """Return the risk report as one HTML page that refers to nothing outside itself.

    The same contents give the same bytes: the page holds no time of rendering. All text is
    escaped; only the drawings of `nfi_pyro.rendering.figures` are passed through as markup.

    Parameters
    ----------
    contents : ReportContents
        Results of one run.

    Returns
    -------
    str
        A complete HTML document, to be written as UTF-8.
    """
    return render_sections(contents.title, build_sections(contents))


def render_sections(title: str, sections: tuple[Section, ...]) -> str:
    """Return the HTML document of a title and its sections, with a list of contents."""
    template = make_environment().get_template("report.html.jinja")
    return template.render(title=title, sections=sections)


def make_environment() -> Environment:
    """Return the one way pages are made: text is escaped, an unknown name is an error."""
    return Environment(
        loader=PackageLoader("nfi_pyro.rendering"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
