"""All families of parts, and functions that add members from outside the package.

tf_metalstm.add_part(MyRule)                     in Python
python -m tf_metalstm.train --parts=my_module    from a file in the current folder that has
                                                 PARTS = (MyRule,)
[project.entry-points."tf_metalstm.parts"]       from an installed package, which is found
my_rule = "my_package.my_module:MyRule"          automatically
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from typing import Any

from tf_metalstm.data.catalogue import SOURCES
from tf_metalstm.learners.catalogue import LEARNERS
from tf_metalstm.methods.catalogue import METHODS
from tf_metalstm.options import options_of
from tf_metalstm.parts import Family, all_options
from tf_metalstm.rules.catalogue import RULES
from tf_metalstm.starts.catalogue import STARTS

ENTRY_POINTS = "tf_metalstm.parts"

FAMILIES: dict[str, Family] = {
    family.name: family for family in (SOURCES, METHODS, LEARNERS, RULES, STARTS)
}
"""The families by name, in the order of the help and of run.flags."""


def add_part(member: Any) -> Any:
    """Adds a method, a rule, a start, a learner or a source; returns it.

    Afterwards it can be used in flags, help and run.flags like a part of the package.

    Args:
        member: a class with the attributes `part` and `family`; base classes such as
            `tf_metalstm.Rule` have `family`.

    Raises:
        ValueError: it is not a part, its name is in use, or another part has an option of the same
            name.
    """
    family = FAMILIES.get(getattr(member, "family", ""))
    if family is None:
        raise ValueError(
            f"{member!r} belongs to no family: derive it from Method, FewShotMethod, Rule, Start, "
            f"Learner or Tasks, or give it one of the families {', '.join(FAMILIES)}."
        )
    family.add(member)
    try:
        check_owners()
    except ValueError:
        family.remove(member.part.name)
        raise
    return member


def check_owners(reserved: Sequence[str] = ()) -> None:
    """Checks that every option has only one owner.

    Args:
        reserved: names that no part may use.

    Raises:
        ValueError: two classes declare an option of the same name.
    """
    owners: dict[str, type] = {}
    for family in FAMILIES.values():
        for member, name in all_options(family):
            owner = options_of(member.part.options)[name].owner
            taken = name in FAMILIES or name in reserved
            if owners.setdefault(name, owner) is not owner or taken:
                other = "the command line" if taken else owners[name].__name__
                raise ValueError(
                    f"The option {name} of {owner.__name__} belongs to {other} already: give it "
                    "another name, or inherit it from a class that both share."
                )


def load_parts(modules: Sequence[str]) -> None:
    """Adds the parts of modules and of installed packages.

    Args:
        modules: names of modules, which may be in the current folder. Each has a tuple PARTS.

    Raises:
        ValueError: a module cannot be imported, or has no PARTS.
    """
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        add_part(entry.load())
    for name in modules:
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            raise ValueError(
                f"parts={name} cannot be imported ({error}): name a module in the current folder "
                "or on Python's path, without the ending .py."
            ) from error
        if not isinstance(getattr(module, "PARTS", None), (tuple, list)):
            raise ValueError(f"parts={name} has no PARTS: add PARTS = (MyRule,) to {name}.py.")
        for member in module.PARTS:
            add_part(member)
