"""fastgrad shows its work: explanations, pictures, and a check of gradients derived by hand."""

from fastgrad.learn.explain import Explanation, explain
from fastgrad.learn.graph import Contribution, Graph, Step
from fastgrad.learn.places import Place, mark, names

__all__ = ["Contribution", "Explanation", "Graph", "Place", "Step", "explain", "mark", "names"]
