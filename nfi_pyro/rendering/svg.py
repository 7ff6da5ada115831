"""Turn a drawn SVG file into markup that can stand several times in one HTML page."""

import re
from xml.etree import ElementTree

from markupsafe import Markup

_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_FONT_FAMILY = re.compile(r"font(?:-family)?:\s*([^;]*)")
_FONT_SIZE = re.compile(r"([\d.]+)px")
_DROPPED = ("metadata", "style", "title", "desc")
# Attributes that hold nothing but numbers; user text never reaches them.
_GEOMETRY = ("d", "x", "y", "width", "height", "transform")


def inline_svg(document: str, anchor: str, label: str) -> Markup:
    """Return the drawing as an inline ``<svg>`` element.

    Namespaces, metadata, style sheets and every id that nothing points at are dropped, the ids
    that stay become ``<anchor>-1``, ``<anchor>-2``, ..., coordinates are rounded to 0.01 point,
    and the font is left to the page. Text comes out escaped because it is written by an XML
    serialiser.

    Parameters
    ----------
    document : str
        A whole SVG file.
    anchor : str
        Unique in the page; becomes the element's id.
    label : str
        What a screen reader says.

    Raises
    ------
    xml.etree.ElementTree.ParseError
        When the document is not well-formed XML.
    """
    root = ElementTree.fromstring(document)
    _strip_namespaces(root)
    names = {old: f"{anchor}-{i}" for i, old in enumerate(_referenced(root), start=1)}
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            if key == "id":
                del element.attrib[key]
                if value in names:
                    element.set("id", names[value])
            elif key == "href":
                element.set(key, "#" + names[value[1:]])
            elif key == "style":
                element.set(key, _without_family(value))
            elif key in _GEOMETRY:
                element.set(key, _NUMBER.sub(_rounded, value))
        clip = element.get("clip-path")
        if clip is not None:
            element.set("clip-path", _REFERENCE.sub(lambda m: f"url(#{names[m[1]]})", clip))
    view_box = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib.update({"id": anchor, "viewBox": view_box, "role": "img", "aria-label": label})
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _strip_namespaces(root: ElementTree.Element) -> None:
    """Use plain names, which is what HTML wants, and drop what a page must not inherit."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for key in [key for key in element.attrib if "}" in key]:
            element.attrib[key.rpartition("}")[2]] = element.attrib.pop(key)
        element.text = element.text if element.text and element.text.strip() else None
        element.tail = "\n" if element.tail else None
    for parent in list(root.iter()):
        for child in list(parent):
            name = child.tag.rpartition("}")[2]
            if name in _DROPPED or (name == "defs" and len(child) == 0):
                parent.remove(child)


def _referenced(root: ElementTree.Element) -> list[str]:
    """Return the ids that something points at, in order of first use."""
    found: dict[str, None] = {}
    for element in root.iter():
        href = element.get("href")
        if href is not None and href.startswith("#"):
            found[href[1:]] = None
        for match in _REFERENCE.finditer(element.get("clip-path", "")):
            found[match[1]] = None
    return list(found)


def _without_family(style: str) -> str:
    """Keep the size (and weight) of a font and leave its family to the page."""

    def replacement(match: re.Match[str]) -> str:
        if match[0].startswith("font-family"):
            return ""
        size = _FONT_SIZE.search(match[1])
        weight = "font-weight: bold; " if re.match(r"\s*(bold|[6-9]00)\b", match[1]) else ""
        return f"{weight}font-size: {size[1]}px" if size else ""

    return _FONT_FAMILY.sub(replacement, style)


def _rounded(match: re.Match[str]) -> str:
    return f"{float(match[0]):.2f}".rstrip("0").rstrip(".")
