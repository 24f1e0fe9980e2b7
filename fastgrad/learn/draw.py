"""Pictures of computations, as textbooks draw them: DOT, SVG and PNG, Mermaid.

Knows nothing about what is drawn (``fastgrad.learn.picture``): it writes boxes and wires down, and calls graphviz.
"""

import html
import os
import shutil
import subprocess
import sys

from fastgrad._core import engine
from fastgrad.learn.graph import Graph
from fastgrad.learn.picture import Picture, shared
from fastgrad.learn.variables import name_after, variables

__all__ = ["Drawing", "draw"]

SECONDS = 60                # for graphviz
LARGE = 80                  # boxes and wires beyond which graphviz shall not look for the best layout
GREEN, RED, GREY = "#116329", "#b3261e", "#57606a"
SHADES = ("#f6f8fa", "#eaeef2")


def draw(what, *args, digits=4, depth=None, most=60, gradients=True, wrt=None, **keywords):
    """A picture of a computation: values above its edges, gradients below them.

    Operations are circles, arguments boxes, Modules frames around what they compute. A number that an operation has as its
    constant operand stands in the circle. Where a value is read several times, a dot parts its way: what each reader
    contributes stands on its branch, and the sum before the dot. Arrays are shown as shape and norm, small ones in full.

    Parameters
    ----------
    what : callable, Tensor or Graph
        A function, which is called and drawn with all that is known about it; or a Tensor that was recorded and not swept,
        drawn with what the tape has kept: ``?`` is an operand that no derivative reads.
    *args, **keywords
        What the function is given.
    digits : int
        Of numbers.
    depth : int, optional
        How many levels of Modules are open: 0 draws each outermost Module as one box. All by default.
    most : int
        Where there would be more boxes than that, some are drawn as one: first runs of elementwise operations, then Modules,
        the innermost first, then all that one line of code did, then whole functions.
    gradients : bool
        Whether gradients are drawn.
    wrt : int, str, or sequence of these, optional
        Which arguments to differentiate; all by default.

    Returns
    -------
    Drawing
        Shows itself in notebooks; ``.save("net.svg")``.

    Examples
    --------
    >>> import fastgrad as fg
    >>> def f(x, y, z):
    ...     q = x + y
    ...     return q * z
    >>> picture = fg.draw(f, -2.0, 5.0, -4.0)
    >>> picture
    <Drawing of 5 boxes>
    >>> print(picture.mermaid())                                    # doctest: +ELLIPSIS
    flowchart LR
    ...
    """
    if isinstance(what, (engine.Tensor, Graph)):
        if args or keywords or wrt is not None:
            raise TypeError("fg.draw: a Tensor or a Graph is drawn as it is; arguments are for functions")
        graph = what if isinstance(what, Graph) else Graph.of(what)
        if graph is not what:
            name_after(graph, variables(sys._getframe(1)))
    elif callable(what):
        graph = Graph.run(what, *args, wrt=wrt, **keywords)
    else:
        raise TypeError(f"fg.draw draws a function or a Tensor, not a {type(what).__name__}")
    for name, number, least in (("digits", digits, 1), ("depth", depth, 0), ("most", most, 1)):
        if not (isinstance(number, int) and number >= least or name == "depth" and number is None):
            raise ValueError(f"fg.draw: {name} is a whole number, at least {least}, not {number!r}")
    return Drawing(Picture(graph, digits, depth, most, gradients))


class Drawing:
    """A picture of a computation, made by ``fg.draw``.

    Attributes
    ----------
    picture : Picture
        Its boxes and wires.
    """

    def __init__(self, picture):
        self.picture = picture

    def dot(self):
        """The picture in the language of graphviz: a str."""
        return _dot(self.picture)

    def mermaid(self):
        """The picture in the language of Mermaid, which GitHub, GitLab and notebooks draw: a str."""
        return _mermaid(self.picture)

    def svg(self):
        """The picture as SVG text; graphviz must be installed.

        Raises
        ------
        RuntimeError
            If it is not, or fails.
        """
        return _graphviz(self.dot(), "svg").decode()

    def png(self, dpi=96):
        """The picture as the bytes of a PNG file; graphviz must be installed.

        Raises
        ------
        RuntimeError
            If it is not, or fails.
        """
        return _graphviz(self.dot(), "png", f"-Gdpi={float(dpi):g}")

    def save(self, path):
        """Writes a file whose suffix says what: ``.svg``, ``.png``, ``.dot`` or ``.mmd``."""
        suffix = os.path.splitext(os.fspath(path))[1].lower()
        made = {".svg": self.svg, ".png": self.png, ".dot": self.dot, ".gv": self.dot, ".mmd": self.mermaid}.get(suffix)
        if made is None:
            raise ValueError(f"a drawing is saved as .svg, .png, .dot or .mmd, not as {os.fspath(path)!r}")
        content = made()
        with open(path, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())

    def _repr_svg_(self):
        return self.svg() if shutil.which("dot") else None

    def _repr_mimebundle_(self, include=None, exclude=None):
        bundle = {"text/plain": repr(self)}
        if shutil.which("dot"):
            bundle["image/svg+xml"] = self.svg()
        else:
            bundle["text/markdown"] = f"```mermaid\n{self.mermaid()}```\n"
        return {kind: content for kind, content in bundle.items()
                if (not include or kind in include) and not (exclude and kind in exclude)}

    def __repr__(self):
        return f"<Drawing of {sum(box.kind != 'end' for box in self.picture.boxes)} boxes>"


def _graphviz(text, kind, *options):
    program = shutil.which("dot")
    if program is None:
        raise RuntimeError(f"{kind.upper()} is drawn by graphviz, and its program `dot` is not on the PATH: install graphviz, "
                           "or use .mermaid() or .dot()")
    try:
        done = subprocess.run([program, f"-T{kind}", *options], input=text.encode(), capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"graphviz has not finished after {SECONDS} seconds; draw fewer boxes: "
                           "fg.draw(..., most=50)") from None
    if done.returncode != 0:
        raise RuntimeError(f"graphviz could not draw this: {done.stderr.decode(errors='replace').strip()[:300]}")
    return done.stdout


# ------------------------------------------------------------------------------------------------------------------ DOT

def _dot(picture):
    large = len(picture.boxes) + len(picture.wires) > LARGE
    names, lines = _box_names(picture), [
        "digraph {",
        '  graph [rankdir=LR, bgcolor=white, pad=0.15, nodesep=0.12, ranksep=0.16, fontname="Helvetica", fontsize=10,',
        f"         fontcolor=\"{GREY}\", labelloc=b, label={_quoted(picture.legend)}{', nslimit=1, nslimit1=1' if large else ''}];",
        '  node [fontname="Helvetica", fontsize=12, color="#24292f", fontcolor="#24292f", fillcolor=white];',
        '  edge [color="#24292f", arrowsize=0.6];',
    ]
    # Boxes in their frames, and what stands on a wire where its source and all its readers are.
    inside = {}
    for box in picture.boxes:
        inside.setdefault(box.calls, []).append(f"{names[box]} [{_dot_box(box)}];")
    edges = []
    for k, wire in enumerate(picture.wires):
        within = shared([wire.source.calls, *[box.calls for box, _ in wire.ends]])
        written = inside.setdefault(within, [])
        source = names[wire.source]
        if not (wire.value or wire.name or wire.gradient):
            edges += [f"{source} -> {names[box]};" for box, _ in wire.ends]
            continue
        written.append(_plate(f"w{k}", wire.name, wire.value, wire.gradient))
        edges.append(f"{source} -> w{k}:w [dir=none];")
        if len(wire.ends) == 1:
            edges.append(f"w{k}:e -> {names[wire.ends[0][0]]};")
            continue
        written.append(f'j{k} [shape=point, width=0.06, fillcolor="#24292f", label=""];')
        edges.append(f"w{k}:e -> j{k} [dir=none];")
        for n, (box, gradient) in enumerate(wire.ends):
            if gradient:
                written.append(_plate(f"w{k}_{n}", "", "", gradient))
                edges.append(f"j{k} -> w{k}_{n}:w [dir=none];")
            edges.append(f"{f'w{k}_{n}:e' if gradient else f'j{k}'} -> {names[box]};")
    order, children = _frames(inside)

    def write(path, indent):
        lines.extend(indent + line for line in inside.get(path, ()))
        for call in children.get(path[-1] if path else None, ()):
            lines.append(f"{indent}subgraph cluster_{order[call]} {{")
            lines.append(f'{indent}  label={_quoted(call.title)}; labelloc=t; labeljust=l; fontsize=11; margin=10; '
                         f'style="rounded,filled"; color="#8c959f"; fillcolor="{SHADES[len(path) % 2]}";')
            write(call.path, indent + "  ")
            lines.append(indent + "}")

    write((), "  ")
    lines.extend("  " + edge for edge in edges)
    return "\n".join(lines) + "\n}\n"


def _dot_box(box):
    text = _quoted("\n".join(box.lines))
    if box.kind == "end":
        return 'shape=point, style=invis, width=0.02, label=""'
    if box.kind == "value":
        return f'shape=box, style=filled, height=0.3, width=0.3, margin="0.08,0.04", label={text}'
    if box.kind == "constant":
        return f'shape=plaintext, height=0.2, width=0.1, margin="0.03,0.02", fontsize=10, fontcolor="{GREY}", label={text}'
    if box.kind == "group":
        return f'shape=box, style="rounded,filled", peripheries=2, margin="0.12,0.06", fontsize=11, label={text}'
    order = ", ordering=in" if box.ordered else ""
    if len(box.lines) == 1 and len(box.lines[0]) <= 4:
        width, size = ((0.36, 12), (0.36, 12), (0.42, 12), (0.53, 11))[len(box.lines[0]) - 1]
        return f"shape=circle, style=filled, fixedsize=true, width={width}, fontsize={size}, label={text}{order}"
    return f'shape=box, style="rounded,filled", height=0.36, width=0.42, margin="0.1,0.04", label={text}{order}'


def _plate(name, title, value, gradient):
    """What stands on a wire: a line with the value above it and the gradient below."""
    said = f"<B>{_html(title)}{' =' if value else ''}</B> " if title else ""
    above = f'{said}<FONT COLOR="{GREEN}">{_html(value)}</FONT>' if value else said or " "
    below = f'<FONT COLOR="{RED}">{_html(gradient)}</FONT>' if gradient else " "
    # graphviz rounds odd widths, and the line would not meet its edge: the width is given, an even one that is enough.
    width = 2 * round(3.2 * max(len(title) + len(value) + 3 * bool(title and value), len(gradient))) + 6
    return (f'{name} [shape=plain, fontsize=10, label=<<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="2"><TR>'
            f'<TD WIDTH="{width}">{above}</TD></TR><HR/><TR><TD>{below}</TD></TR></TABLE>>];')


def _frames(inside):
    """A number for each call that something is inside of, and the calls directly inside of each; None: outside of all."""
    calls = dict.fromkeys(call for path in inside for call in path)
    children = {}
    for call in calls:
        children.setdefault(call.parent, []).append(call)
    return {call: k for k, call in enumerate(calls)}, children


def _box_names(picture):
    return {box: f"b{k}" for k, box in enumerate(picture.boxes)}


def _quoted(text):
    """A string of DOT: lines stay, and nothing is an escape or an entity."""
    return '"' + text.replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _html(text):
    return html.escape(text).replace("\\", "\\\\")          # \N would be the name of the node


# -------------------------------------------------------------------------------------------------------------- Mermaid

def _mermaid(picture):
    names, lines = _box_names(picture), ["flowchart LR", f"  %% {picture.legend}"]
    inside, edges = {}, []
    for box in picture.boxes:
        inside.setdefault(box.calls, []).append(names[box] + _mermaid_box(box))
    for k, wire in enumerate(picture.wires):
        source, said = names[wire.source], _on_edge(wire)
        if len(wire.ends) == 1:
            edges.append(f"{source} -->{said} {names[wire.ends[0][0]]}")
            continue
        within = shared([wire.source.calls, *[box.calls for box, _ in wire.ends]])
        inside.setdefault(within, []).append(f'j{k}((" ")):::dot')
        edges.append(f"{source} ---{said} j{k}")
        for box, gradient in wire.ends:
            label = f'|"{_entities(gradient)}"|' if gradient else ""
            edges.append(f"j{k} -->{label} {names[box]}")
    order, children = _frames(inside)

    def write(path, indent):
        lines.extend(indent + line for line in inside.get(path, ()))
        for call in children.get(path[-1] if path else None, ()):
            lines.append(f'{indent}subgraph m{order[call]}["{_entities(call.title)}"]')
            write(call.path, indent + "  ")
            lines.append(indent + "end")

    write((), "  ")
    lines.extend("  " + edge for edge in edges)
    lines += ["  classDef default fill:#fff,stroke:#24292f,color:#24292f", "  classDef plain fill:none,stroke:none",
              "  classDef dot fill:#24292f,stroke:#24292f"]
    return "\n".join(lines) + "\n"


def _on_edge(wire):
    above = f"{wire.name} = {wire.value}" if wire.name and wire.value else wire.name or wire.value
    said = [_entities(text) for text in (above, wire.gradient) if text]
    return f'|"{"<br/>".join(said)}"|' if said else ""


def _mermaid_box(box):
    text = "<br/>".join(_entities(line) for line in box.lines)
    if box.kind == "end":
        return '[" "]:::plain'
    if box.kind == "constant":
        return f'["{text}"]:::plain'
    if box.kind == "group":
        return f'[["{text}"]]'
    return f'["{text}"]' if box.kind == "value" else f'(("{text}"))' if len(text) <= 8 else f'("{text}")'


def _entities(text):
    """Text in which nothing means anything to Mermaid, Markdown or HTML."""
    safe = " ,=()[]/:'"
    return "".join(c if c.isalnum() or ord(c) > 127 or c in safe or c in ".-" and after.isdigit() else f"#{ord(c)};"
                   for c, after in zip(text, text[1:] + " "))
