"""The answer of ``fg.check_derivation``."""

import numpy as np

__all__ = ["Verdict", "numbers"]


class Verdict:
    """The answer of ``fg.check_derivation``: true if the claim is right.

    Attributes
    ----------
    ok : bool
    cause : str
        What is wrong, in a word or two: ``"right"``, ``"sign"``, ``"factor"``, ``"missing factor"``, ``"extra factor"``,
        ``"local derivative"``, ``"missing term"``, ``"transposed"``, ``"order"``, ``"outer product"``, ``"shape"``,
        ``"missing sum"``, ``"extra sum"``, ``"should be zero"``, ``"should not be zero"``, ``"index"``, ``"shifted"``,
        ``"other quantity"``, ``"difference"``, ``"elements"``, ``"coincidence"``, ``"not finite"``, ``"two sides"``.
    message : str
        One sentence.
    details : list of str
        Lines to be read after it.
    error : float
        The largest difference, relative to the largest element; NaN where the shapes do not fit.
    claimed, exact : ndarray or None
        At the given point, in the layout of the claim.
    """

    def __init__(self, cause, message, details=(), error=np.nan, claimed=None, exact=None):
        self.ok, self.cause, self.message, self.details = cause == "right", cause, message, list(details)
        self.error, self.claimed, self.exact = float(error), claimed, exact

    def __bool__(self):
        return self.ok

    def __str__(self):
        return "\n".join([self.message] + ["  " + line for line in self.details])

    __repr__ = __str__


def numbers(array):
    """An array in few words."""
    array = np.asarray(array)
    if array.ndim == 0:
        return f"{float(array):.6g}"
    return np.array2string(array, precision=4, separator=", ", threshold=20).replace("\n", "")
