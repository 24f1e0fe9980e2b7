"""fastgrad shows its work: explanations, pictures, and a check of gradients derived by hand."""

from fastgrad.learn.derivation import Verdict, check_derivation
from fastgrad.learn.graph import Contribution, Graph, Step
from fastgrad.learn.places import Place, mark, names

__all__ = ["Contribution", "Graph", "Place", "Step", "Verdict", "check_derivation", "mark", "names"]
