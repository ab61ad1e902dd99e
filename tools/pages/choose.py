"""docs/choose.md: when to choose which method, and its accuracy and training time here."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pages.markdown import between, table
from pages.results import percent
from tf_metalstm.catalogue import FAMILIES
from tf_metalstm.methods.few_shot import FewShotMethod
from tf_metalstm.tables.catalogue import TABLES
from tf_metalstm.tables.results import Result, key, read_records


class Choice(NamedTuple):
    """A row.

    title: name of the method in words; the same as in the tables, there before the first comma.
    flags: flags of the method; the first one is --method.
    when: one sentence that says when to choose it.
    """

    title: str
    flags: tuple[str, ...]
    when: str

    @property
    def method(self) -> str:
        """The value of --method."""
        return self.flags[0].partition("=")[2]


_CHOICES = (
    Choice(
        "prototypical networks",
        ("--method=prototypical_networks",),
        "Try this first: it adapts in one pass and works with any number of classes.",
    ),
    Choice(
        "nearest neighbour",
        ("--method=nearest_neighbor",),
        "You want a strong baseline that is trained like an ordinary classifier.",
    ),
    Choice(
        "matching networks",
        ("--method=matching_networks",),
        "The pictures of a class look different: here every support picture votes.",
    ),
    Choice(
        "siamese networks",
        ("--method=siamese_networks",),
        "To compare with Koch et al.: it compares pairs of pictures with a learned distance.",
    ),
    Choice(
        "relation networks",
        ("--method=relation_networks", "--halvings=2"),
        "To compare with Sung et al.: a network compares feature maps, which is slower.",
    ),
    Choice(
        "ridge regression",
        ("--method=ridge_regression",),
        "As prototypical networks, with a linear head that is solved for instead of means.",
    ),
    Choice(
        "logistic regression",
        ("--method=logistic_regression",),
        "Features of a pretrained network, with several pictures of each class.",
    ),
    Choice(
        "fine-tuning from logistic regression",
        ("--method=fine_tuning", "--rule=adam", "--trained_layers=4"),
        "A pretrained network, and five or more pictures of each class; 100 pictures take 8 s.",
    ),
    Choice(
        "updates of the last layer",
        ("--method=head_adaptation", "--rule=meta_lstm"),
        "Good features, and 5 to 50 pictures of classes that are like those of the training.",
    ),
    Choice(
        "outer-product LSTM",
        ("--method=outer_product_lstm",),
        "Good features, and 5 to 20 pictures of classes that are like those of the training.",
    ),
    Choice(
        "meta-LSTM",
        ("--method=gradient_based", "--rule=meta_lstm"),
        "To study a learned learning rate and weight decay, or to reproduce the paper.",
    ),
    Choice(
        "MAML",
        ("--method=gradient_based", "--rule=sgd", "--second_order"),
        "To compare with MAML. Without `--second_order` it is first-order MAML.",
    ),
    Choice(
        "Meta-SGD",
        ("--method=gradient_based", "--rule=meta_sgd", "--second_order"),
        "To compare with Meta-SGD: like MAML, with a learned rate for every parameter.",
    ),
    Choice(
        "fine-tuning",
        ("--method=gradient_based", "--rule=sgd", "--max_steps=0", "--pretrained_run_dir=RUN"),
        "You have a trained network and want no meta-training.",
    ),
    Choice(
        "pixels",
        ("--method=pixel_nearest_neighbor",),
        "To see the accuracy without any learning.",
    ),
    Choice(
        "memory-augmented network",
        ("--method=memory_augmented", "--source=omniglot_stream"),
        "To compare with Santoro et al.: pictures come in a stream, labels one step late.",
    ),
    Choice(
        "learned optimizer",
        ("--method=learned_optimizer", "--source=quadratics"),
        "You want to minimize losses, not to classify: [a learned optimizer](optimizer.md).",
    ),
)

_SOURCES = {"glyphs": "glyphs", "omniglot": "Omniglot", "mini_imagenet": "mini-ImageNet"}
_NUM_SHOT = 5


def choose_page() -> str:
    """Returns the page with its tables.

    Raises:
        ValueError: a method has no row.
    """
    missing = set(FAMILIES["method"].names()) - {choice.method for choice in _CHOICES}
    if missing:
        raise ValueError(f"tools/pages/choose.py has no row for {', '.join(sorted(missing))}.")
    when, accuracy = [], []
    records = {name: _best(name) for name in _SOURCES}
    for choice in _CHOICES:
        flags = " ".join(f"`{flag}`" for flag in choice.flags)
        when.append((choice.title, choice.when, _classes(choice.method), flags))
        values = [_text(records[name].get(choice.title)) for name in _SOURCES]
        if set(values) != {"-"}:
            accuracy.append((choice.title, *values))
    text = Path("docs/choose.md").read_text(encoding="utf-8")
    columns = ("method", "choose it when", "classes", "flags")
    text = between(text, "choices", table(columns, when))
    return between(text, "accuracy", table(("method", *_SOURCES.values()), accuracy))


def _classes(method: str) -> str:
    member = FAMILIES["method"][method]
    if not issubclass(member, FewShotMethod):
        return "-"
    return "any" if member.num_outputs is FewShotMethod.num_outputs else "fixed in training"


def _best(name: str) -> dict[str, Result]:
    """Returns the best record of each method in a table; a method ends at the first comma."""
    records = read_records(name)
    best: dict[str, Result] = {}
    for cell in TABLES[name]():
        result = records.get(key(cell))
        row = cell.method.partition(",")[0]
        if result is None or cell.num_shot != _NUM_SHOT:
            continue
        if row not in best or result.mean > best[row].mean:
            best[row] = result
    return best


def _text(result: Result | None) -> str:
    return "-" if result is None else f"{percent(result)} ({result.minutes:.0f} min)"
