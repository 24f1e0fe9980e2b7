"""What a compiled function reads besides its arguments is compared at each call, wherever it lies."""

import collections
import functools
import sys
import types

import numpy as np
import pytest

import fastgrad as fg
from fastgrad._core import engine
from fastgrad.transforms import bindings

X = np.array([1.0, 2.0])
global_number = 2.0


class Plain:
    scale = 2.0


class Derived(Plain):
    pass


class Slotted:
    __slots__ = ("scale",)


class Computed:
    @property
    def scale(self):
        return global_number

    @functools.cached_property
    def cached(self):
        return 1.0

    @staticmethod
    def static():
        return global_number

    @classmethod
    def of_class(cls):
        return global_number

    def __call__(self):
        return global_number


def with_attribute(x):
    return x * with_attribute.scale


def of_class():
    return lambda x: x * Plain.scale, lambda v: setattr(Plain, "scale", v)


def of_an_instance_s_class():
    held = Derived()
    return lambda x: x * held.scale, lambda v: setattr(Plain, "scale", v)


def shadowed():
    Plain.scale = 2.0
    held = Plain()
    return lambda x: x * held.scale, lambda v: setattr(held, "scale", v)


def of_a_slot():
    held = Slotted()
    return lambda x: x * held.scale, lambda v: setattr(held, "scale", v)


def of_a_slot_s_array():
    held = Slotted()
    held.scale = np.zeros(2)
    return lambda x: x * float(held.scale[0]), lambda v: held.scale.fill(v)


def of_a_global():
    return lambda x: x * global_number, set_global


def by(read):
    held = Computed()
    return lambda: (lambda x: x * read(held), set_global)


def set_global(v):
    global global_number
    global_number = v


def of_a_function():
    return with_attribute, lambda v: setattr(with_attribute, "scale", v)


def of_a_namespace():
    held = types.SimpleNamespace(scale=2.0)
    return lambda x: x * held.scale, lambda v: setattr(held, "scale", v)


def of_a_deque():
    held = collections.deque([2.0])
    return lambda x: x * held[0], lambda v: held.__setitem__(0, v)


def of_a_set():
    held = {2.0}
    return lambda x: x * min(held), lambda v: (held.clear(), held.add(v))


def of_bytes():
    held = bytearray(b"\x02")
    return lambda x: x * held[0], lambda v: held.__setitem__(0, int(v))


def of_a_view_of_bytes():
    held = memoryview(bytearray(b"\x02"))
    return lambda x: x * held[0], lambda v: held.__setitem__(0, int(v))


def deep_down():
    held = last = []
    for _ in range(10):
        last.append([])
        last = last[0]
    last.append(2.0)

    def f(x):
        value = held
        while isinstance(value, list):
            value = value[0]
        return x * value

    return f, lambda v: last.__setitem__(0, v)


def of_a_module_imported_inside():
    module = sys.modules["settings_of_a_test"] = types.ModuleType("settings_of_a_test")

    def f(x):
        import settings_of_a_test
        return x * settings_of_a_test.scale

    return f, lambda v: setattr(module, "scale", v)


def a_method_that_is_replaced():
    class Held:
        def scale(self):
            return 2.0

    held = Held()
    return lambda x: x * held.scale(), lambda v: setattr(Held, "scale", lambda self: v)


PLACES = [of_class, of_an_instance_s_class, shadowed, of_a_slot, of_a_slot_s_array, of_a_global, of_a_function, of_a_namespace,
          of_a_deque, of_a_set, of_bytes, of_a_view_of_bytes, deep_down, of_a_module_imported_inside, a_method_that_is_replaced,
          by(lambda held: held.scale), by(lambda held: held.cached * held.static()), by(lambda held: held.of_class()),
          by(lambda held: held())]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_a_number_outside_that_changes_is_noticed(place):
    f, change = place()
    change(2.0)
    compiled = fg.compile(f)
    for value in (2.0, 2.0, 3.0, 3.0, 4.0, 2.0):
        change(value)
        assert compiled(X).tolist() == (X * value).tolist()
    if place is not a_method_that_is_replaced:
        assert compiled.recordings <= 4


def test_what_does_not_change_is_recorded_once():
    held = [Plain(), Slotted(), Computed(), {1.0}, collections.deque([1.0]), bytearray(b"1"), Plain, {"a": [1.0]}]
    held[1].scale = 3.0
    compiled = fg.compile(lambda x: x * len(held))
    for _ in range(5):
        compiled(X)
    assert compiled.recordings == 1


def test_many_objects_of_a_class_are_few_bindings():
    held = [Plain() for _ in range(100)]
    walk = bindings.Walk([lambda: held])
    assert not walk.cut
    assert len(walk.dicts) + len(walk.lists) + len(walk.cells) < 300


def test_a_function_that_reaches_too_much_says_so():
    held = list(range(3000)), [[1.0]]
    compiled = fg.compile(lambda x: x * held[1][0][0])
    with pytest.warns(RuntimeWarning, match="reaches more than 2000 names") as caught:
        assert compiled(X).tolist() == X.tolist()
    assert caught[0].filename == __file__


LARGE = (700, 500)                  # 2.8 MB: a digest of it is kept
LAYOUTS = {
    "contiguous": lambda a: a, "transposed": lambda a: np.asfortranarray(a), "strided": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "reversed": lambda a: a[::-1, ::-1], "float32": lambda a: a.astype(np.float32).repeat(2, axis=0)[:700], "read-only view": lambda a: a[:],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("change", [lambda v: v + 1.0, lambda v: -v, lambda v: np.nextafter(v, 9, dtype=v.dtype)], ids=["other", "sign", "last bit"])
def test_one_element_of_a_large_array_outside_is_noticed(layout, change):
    """Its sum is made by NumPy, so that only the comparison of its bytes can tell."""
    held = LAYOUTS[layout](np.random.default_rng(0).normal(size=LARGE))
    owner = held
    if layout == "read-only view":
        held = held[:]
        held.setflags(write=False)
    compiled = fg.compile(lambda x: x * held[3, 4] + held[699, 499] + held[350].sum())
    for place in [(3, 4), (699, 499), (350, 0), (350, 499), (350, 251)]:
        np.testing.assert_allclose(compiled(X), X * held[3, 4] + held[699, 499] + held[350].sum(), rtol=1e-6)
        before = compiled.recordings
        compiled(X)
        assert compiled.recordings == before
        owner[place] = change(owner[place])
        compiled(X)
        assert compiled.recordings == before + 1


@pytest.mark.parametrize("change", [lambda a: setattr(a, "shape", (3, 2)), lambda a: setattr(a, "dtype", np.float32),
                                    lambda a: a.resize((2, 2), refcheck=False)], ids=["shape", "dtype", "resize"])
@pytest.mark.filterwarnings("ignore:Setting the:DeprecationWarning")
def test_an_array_outside_that_takes_another_form_is_noticed(change):
    held = np.arange(6.0).reshape(2, 3).copy()
    f = lambda x: x * held.shape[0] + held.shape[1] + held.itemsize  # noqa: E731
    compiled = fg.compile(f)
    compiled(X)
    change(held)
    np.testing.assert_array_equal(compiled(X), f(X))


def test_a_digest_follows_from_every_byte():
    rng = np.random.default_rng(0)
    seen = set()
    for n in (0, 1, 7, 8, 63, 64, 65, 200):
        data = rng.integers(0, 256, n, dtype=np.uint8)
        seen.add(engine.digest(data))
        seen.add(engine.digest(np.append(data, np.uint8(0))))
        for place in range(n):
            for bit in range(8):
                data[place] ^= 1 << bit
                seen.add(engine.digest(data))
                data[place] ^= 1 << bit
        assert engine.digest(data) in seen
    assert len(seen) == sum(1 + 1 + 8 * n for n in (0, 1, 7, 8, 63, 64, 65, 200))


def test_a_digest_tells_changes_of_many_words_apart():
    rng = np.random.default_rng(0)
    a = rng.normal(size=1024)
    changed = [a, -a, a[::-1].copy(), np.roll(a, 8), np.roll(a, 64), np.zeros(1024), -np.zeros(1024), np.zeros(1032)]
    for step in (1, 8, 16, 64):         # signs of neighbours in a lane: the highest bits of two words
        b = a.copy()
        b[3] *= -1
        b[3 + step] *= -1
        changed.append(b)
        c = a.copy()
        c[3], c[3 + step] = a[3 + step], a[3]
        changed.append(c)
    assert len({engine.digest(v.view(np.uint8)) for v in changed}) == len(changed)
