"""An HTML page as its reader sees it: elements and text, and what of them is folded."""

from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """The elements of a page as a browser would see them, and their text.

    Attributes:
        html: the file.
        elements: (tag, attributes) in the order of the page.
        text: of all of them.
        open_elements: those that are not inside a closed ``details``.
        open_text: of those.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open_elements: list[tuple[str, dict[str, str]]] = []
        self.text = self.open_text = ""
        self._closed = 0
        self.html = path.read_text()
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = tag, {name: value or "" for name, value in attrs}
        self.elements.append(element)
        if self._closed == 0:
            self.open_elements.append(element)
        self._closed += tag == "details"

    def handle_endtag(self, tag: str) -> None:
        self._closed -= tag == "details"

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._closed == 0:
            self.open_text += data

    def of_class(self, name: str) -> int:
        return sum(name in a.get("class", "").split() for _, a in self.elements)
