"""Draws the pictures of the documents again: ``python docs/pictures/make.py``; needs graphviz.

A document that shows ``pictures/NAME.svg`` has an example that makes a drawing called NAME. The last line of each file says
which DOT text it was drawn from, so that the tests can tell whether it still belongs to its example.
"""

import doctest
import hashlib
import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent


def pages():
    """The documents that show pictures."""
    return [page for page in sorted(DOCS.glob("*.md")) if shown(page)]


def shown(page):
    """The names of the pictures that a document shows."""
    return re.findall(r"\]\(pictures/(\w+)\.svg\)", page.read_text(encoding="utf-8"))


def drawings(page):
    """The drawings that the examples of a document make, by name."""
    text = re.sub(r"^```.*$", "", page.read_text(encoding="utf-8"), flags=re.M)
    example = doctest.DocTestParser().get_doctest(text, {}, page.name, None, 0)
    report = []
    runner = doctest.DocTestRunner(verbose=False)
    if runner.run(example, out=report.append, clear_globs=False).failed:
        raise AssertionError("".join(report))
    return {name: example.globs[name] for name in shown(page)}


def stamp(drawing):
    """The last line of the SVG file of a drawing."""
    return f"<!-- drawn by fg.draw from the DOT text of sha256 {hashlib.sha256(drawing.dot().encode()).hexdigest()} -->\n"


def main():
    for page in pages():
        for name, drawing in drawings(page).items():
            path = DOCS / "pictures" / f"{name}.svg"
            path.write_text(drawing.svg().rstrip() + "\n" + stamp(drawing), encoding="utf-8")
            print(path.relative_to(DOCS))


if __name__ == "__main__":
    main()
