"""What a compiled function reads besides its arguments is compared at each call, wherever it lies."""

import collections
import functools
import sys
import types

import numpy as np
import pytest

import fastgrad as fg
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
