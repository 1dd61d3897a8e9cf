"""From the name of a choice in the settings to the class that implements it.

The rule is one: the choice ``l-dawa`` of ``aggregation.kind`` is the class in
``server_app/aggregation/l_dawa.py`` that names itself so. A new choice is therefore one new file,
and its name in the ``Literal`` of the settings.
"""

from __future__ import annotations

import importlib
from typing import TypeVar

T = TypeVar("T")


def implementation(package: str, name: str, base: type[T]) -> type[T]:
    """Return the subclass of ``base`` whose ``name`` is ``name``, from its module in ``package``.

    Raises LookupError where there is none: a choice of the settings that nobody has written.
    """
    module = importlib.import_module(f"{package}.{name.replace('-', '_')}")
    for found in vars(module).values():
        if isinstance(found, type) and issubclass(found, base) and vars(found).get("name") == name:
            return found
    raise LookupError(f"{module.__name__} holds no {base.__name__} with name = {name!r}")
