"""The rules by name, as flags name them."""

from __future__ import annotations

from typing import Any

from tf_metalstm.rules.base import Rule
from tf_metalstm.rules.meta_lstm import MetaLSTM
from tf_metalstm.rules.meta_sgd import MetaSGD
from tf_metalstm.rules.sgd import SGD

RULES: dict[str, type[Rule]] = {"meta_lstm": MetaLSTM, "sgd": SGD, "meta_sgd": MetaSGD}


def make_rule(name: str, **options: Any) -> Rule:
    """Builds the rule called `name` from the arguments of its constructor."""
    if name not in RULES:
        raise ValueError(f"--rule must be one of {', '.join(RULES)}, got {name!r}.")
    return RULES[name](**options)
