"""One operation in every way that fastgrad offers: what each new function of fastgrad.numpy must pass.

Values are compared with NumPy's, derivatives with central differences of NumPy's function (in float64), and everything else with
these: forward mode, second order, vmap, Programs, explain.  A function whose derivative is 0, or that has none, passes ``order=0``.
"""

import numpy as np

import fastgrad as fg

STEP = 6e-6


def numerical(f, arrays, k, direction):
    """The derivative of f along a direction of argument k, by central differences of fourth order."""
    def at(h):
        moved = [a + h * direction if j == k else a for j, a in enumerate(arrays)]
        return np.asarray(f(*moved), float)

    h = 40 * STEP * max(1.0, float(np.max(np.abs(arrays[k]), initial=0)))
    return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)


def lowered(value):
    return value.detach().numpy() if isinstance(value, fg.Tensor) else np.asarray(value)


def close(ours, expected, tolerance, what):
    ours, expected = lowered(ours), np.asarray(expected)
    assert ours.shape == expected.shape, (what, ours.shape, expected.shape)
    size = max(1.0, float(np.max(np.abs(expected), initial=0, where=np.isfinite(expected))))
    np.testing.assert_allclose(ours, expected, rtol=tolerance, atol=tolerance * size, err_msg=what)


def check(f, theirs, *arrays, order=2, tolerance=1e-7, batched=True, compiled=True, explained=True, seed=0):
    """Holds f against NumPy's function of the same name in every way.

    Parameters
    ----------
    f : callable
        Of Tensors (or of arrays, being differentiated); returns one Tensor.
    theirs : callable
        The same of plain arrays, in NumPy (or SciPy): the reference.
    *arrays : float64 ndarrays, away from kinks
    order : int
        0: has no derivative by these arguments, or 0.  1: first derivatives.  2: second ones too.
    tolerance : float
        Of derivatives, relative to the largest; values are compared to 1e-12.
    batched, compiled, explained : bool
        Whether it is tried under fg.vmap, in a Program, by fg.explain.
    """
    rng = np.random.default_rng(seed)
    arrays = [np.asarray(a, float) for a in arrays]
    expected = np.asarray(theirs(*arrays))
    close(f(*map(fg.tensor, arrays)), expected, 1e-12, "value on Tensors")
    leaves = [fg.tensor(a, requires_grad=True) for a in arrays]
    out = f(*leaves)
    close(out, expected, 1e-12, "value while recording")
    if order == 0:
        assert not isinstance(out, fg.Tensor) or not out.requires_grad or not any(np.any(g) for g in fg.vjp(f, *arrays)[1](np.ones(out.shape)))
        if compiled:
            program = fg.compile(f)
            for a in (arrays, arrays):
                close(program(*a), expected, 1e-12, "value in a Program")
        return
    weights = rng.normal(size=expected.shape)
    loss = lambda *a: fg.numpy.sum(f(*a) * weights)
    every = tuple(range(len(arrays)))
    gradients = fg.grad(loss, argnums=every)(*arrays)
    directions = [rng.normal(size=a.shape) for a in arrays]
    for k in every:
        slope = numerical(theirs, arrays, k, directions[k])
        close(np.sum(gradients[k] * directions[k]), np.sum(slope * weights), tolerance, f"gradient by argument {k}")
        tangents = [d if j == k else np.zeros_like(d) for j, d in enumerate(directions)]
        close(fg.jvp(f, tuple(arrays), tuple(tangents))[1], slope, tolerance, f"jvp by argument {k}")
    fg.numpy.sum(out * weights).backward()
    for leaf, g in zip(leaves, gradients):
        close(leaf.grad, g, 1e-12, "backward()")
    if order > 1:
        inner = lambda *a: sum(fg.numpy.sum(g * d) for g, d in zip(fg.grad(loss, argnums=every)(*a), directions))
        second = fg.grad(inner, argnums=every)(*arrays)
        h = 1e-5 * max(1.0, *(float(np.max(np.abs(a), initial=0)) for a in arrays))
        ahead, behind = (sum(float(np.sum(g * d)) for g, d in zip(
            fg.grad(loss, argnums=every)(*(a + s * d for a, d in zip(arrays, directions))), directions)) for s in (h, -h))
        close(sum(np.sum(g * d) for g, d in zip(second, directions)), (ahead - behind) / (2 * h), 1e-5, "second order")
    if compiled:
        program = fg.compile(fg.value_and_grad(loss, argnums=every))
        for a in (arrays, [1.03125 * x for x in arrays], arrays):
            value, found = program(*a)
            again, wanted = fg.value_and_grad(loss, argnums=every)(*a)
            close(value, again, 1e-12, "value in a Program")
            for x, y in zip(found, wanted):
                close(x, y, 1e-10, "gradient in a Program")
    if batched:
        stacks = [np.stack([a, 1.03125 * a, a]) for a in arrays]
        each = fg.vmap(fg.grad(loss, argnums=every))(*stacks)
        for j, a in enumerate((arrays, [1.03125 * x for x in arrays])):
            for x, y in zip(each, fg.grad(loss, argnums=every)(*a)):
                close(x[j], y, 1e-10, "vmap of the gradient")
        close(fg.vmap(f)(*stacks)[0], expected, 1e-12, "vmap")
    if explained:
        assert "Backward" in str(fg.explain(loss, *arrays))
