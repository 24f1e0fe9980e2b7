"""fastgrad shows its work: explanations, pictures, and a check of gradients derived by hand."""

from fastgrad.learn.anomaly import detect_anomaly
from fastgrad.learn.derivation import Verdict, check_derivation
from fastgrad.learn.draw import Drawing, draw
from fastgrad.learn.explain import Explanation, explain
from fastgrad.learn.graph import Contribution, Graph, Step
from fastgrad.learn.places import Place, mark, names

__all__ = ["Contribution", "Drawing", "Explanation", "Graph", "Place", "Step", "Verdict", "check_derivation",
           "detect_anomaly", "draw", "explain", "mark", "names"]
