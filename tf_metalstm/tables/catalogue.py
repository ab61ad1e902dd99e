"""The tables that `reproduce` fills: their runs and the published numbers.

Sources of the published numbers, accuracy in % with its 95 % interval if there is one:

- mini-ImageNet: Ravi & Larochelle, ICLR 2017, table 1, Snell et al., NIPS 2017 (prototypical
  networks), Sung et al., CVPR 2018 (relation networks, transductive);
- Omniglot: Vinyals et al., NIPS 2016 (matching networks, and their own siamese networks), Snell et
  al., NIPS 2017 (prototypical networks), Finn et al., ICML 2017 (MAML, transductive), Li et al.,
  2017 (Meta-SGD, transductive), Sung et al., CVPR 2018 (relation networks, transductive).

The ablations are our own. They show the effect of each change to the preset `paper` after the same
number of updates, on validation episodes. Runs that start from a trained network have their last
weights in the table. If meta-training makes such a run worse, its best weights are those before the
first update, which would hide the effect.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """One training.

    name: name of its folder.
    flags: flags of `train`, without the folders of data and runs.
    before: the run whose weights it starts from, as a tuple of one; else empty.
    searched: whether `search` chooses settings before the evaluation.
    shipped: name of the trained model with its weights, or "". Other runs start from this model if
        the run itself is not on this machine.
    """

    name: str
    flags: tuple[str, ...]
    before: tuple[Run, ...] = ()
    searched: bool = False
    shipped: str = ""


@dataclass(frozen=True)
class Cell:
    """One number.

    method: name of the row.
    num_way: N.
    num_shot: K.
    published: the published number as text, or "".
    run: the run to evaluate.
    split: split of the test episodes.
    checkpoint: `best` on validation, or `last`.
    """

    method: str
    num_way: int
    num_shot: int
    published: str
    run: Run
    split: str = "test"
    checkpoint: str = "best"


def _recipe(name: str) -> str:
    return f"--flagfile=flags/recipes/{name}.flags"


def _mini_imagenet() -> list[Cell]:
    joint = Run("nearest_neighbor", (_recipe("mini_imagenet_nearest_neighbor"),))
    pixels = Run("pixel_nearest_neighbor", (_recipe("mini_imagenet_pixel_nearest_neighbor"),))
    augmented = {
        shot: Run(f"{shot}shot_augmented", (_recipe(f"mini_imagenet_5way_{shot}shot_augmented"),))
        for shot in (1, 5)
    }
    cells = []
    for shot, fine_tune, neighbor, matching, full_context, meta_lstm in (
        (1, "28.86 +- 0.54", "41.08 +- 0.70", "43.40 +- 0.78", "43.56 +- 0.84", "43.44 +- 0.77"),
        (5, "49.79 +- 0.79", "51.04 +- 0.65", "51.09 +- 0.71", "55.31 +- 0.73", "60.60 +- 0.71"),
    ):
        task = f"mini_imagenet_5way_{shot}shot"
        tuned = Run(
            f"{shot}shot_fine_tune",
            (_recipe(f"{task}_fine_tune"),),
            before=(joint,),
            searched=True,
        )
        cells += [
            Cell("pixels, nearest neighbour", 5, shot, "", pixels),
            Cell("fine-tuning", 5, shot, fine_tune, tuned),
            Cell("nearest neighbour", 5, shot, neighbor, joint),
        ]
        for words, name, published in (
            ("matching networks", "matching", matching),
            ("matching networks, full context", "matching_full_context", full_context),
        ):
            run = Run(f"{shot}shot_{name}", (_recipe(f"{task}_{name}"),), before=(joint,))
            cells.append(Cell(words, 5, shot, published, run))
        words = "meta-LSTM, c_0 from random initialization"
        scratch = Run(f"{shot}shot_meta_lstm", (_recipe(task),))
        cells.append(Cell(words, 5, shot, meta_lstm, scratch))
        words += ", mirrored and shifted images, a rate that falls"
        cells.append(Cell(words, 5, shot, meta_lstm, augmented[shot]))
        if shot == 1:
            run = Run("1shot_from_5shot", (_recipe(f"{task}_from_5shot"),), before=(augmented[5],))
            cells.append(Cell("meta-LSTM, begun at that of 5-shot", 5, shot, "", run))
            run = Run("1shot_second_order", (_recipe(f"{task}_second_order"),), before=(run,))
            words = "meta-LSTM, begun at that of 5-shot, then with the second order"
            cells.append(Cell(words, 5, shot, "", run))
        start = Run("pretrained", (_recipe("mini_imagenet_pretrained"),))
        decay = Run("pretrained_decay", (_recipe("mini_imagenet_pretrained_decay"),), (start,))
        run = Run(f"{shot}shot_pretrained", (_recipe(f"{task}_pretrained"),), before=(decay,))
        cells.append(Cell("meta-LSTM, c_0 from a jointly trained network", 5, shot, "", run))
    cells += _mini_imagenet_from_trunk()
    return sorted(cells, key=lambda cell: (cell.num_way, cell.num_shot))


def _mini_imagenet_from_trunk() -> list[Cell]:
    """Returns the rows of a network that was trained jointly for long, and of what begins there."""
    shipped = "mini_imagenet_trunk_conv4_64"
    trunk = Run("trunk_64", (_recipe("mini_imagenet_trunk_64"),), shipped=shipped)
    # Runs for 1-shot and 5-shot, and the published numbers of these at 5-way.
    rows: tuple[tuple[str, tuple[str, str], tuple[str, str]], ...] = (
        (
            "prototypical networks, not trained on episodes, by the cosine",
            ("prototypes", "prototypes"),
            ("", ""),
        ),
        ("ridge regression", ("ridge", "ridge"), ("", "")),
        ("siamese networks", ("siamese", "siamese"), ("", "")),
        ("outer-product LSTM, from prototypes", ("outer_product", "outer_product"), ("", "")),
        ("matching networks", ("1shot_matching", "5shot_matching"), ("", "")),
        (
            "relation networks",
            ("1shot_relation", "5shot_relation"),
            ("50.44 +- 0.82", "65.32 +- 0.70"),
        ),
        (
            "prototypical networks, by the cosine",
            ("5shot_prototypical", "5shot_prototypical"),
            ("49.42 +- 0.78", "68.20 +- 0.66"),
        ),
    )
    tasks = [(way, shot) for way in (5, 20) for shot in (1, 5)]
    end = ", trunk of 64 filters"
    longer = Run(
        "trunk_64_more",
        (_recipe("mini_imagenet_trunk_64_more"),),
        before=(trunk,),
        shipped="mini_imagenet_trunk_60_epochs",
    )
    small = Run("trunk_32", (_recipe("mini_imagenet_trunk_32"),))
    cells = [
        Cell(f"nearest neighbour, trunk of {words}", way, shot, "", run)
        for words, run in (
            ("32 filters", small),
            ("64 filters", trunk),
            ("64 filters after 60 epochs", longer),
        )
        for way, shot in tasks
    ]
    for words, names, published in rows:
        for way, shot in tasks:
            name, number = names[shot == 5], published[shot == 5] if way == 5 else ""
            recipe = _recipe(f"mini_imagenet_trunk_64_{name}")
            run = Run(f"trunk_64_{name}", (recipe,), before=(trunk,))
            cells.append(Cell(words + end, way, shot, number, run))
            if name in ("prototypes", "outer_product"):
                run = Run(f"trunk_64_more_{name}", (recipe,), before=(longer,))
                cells.append(Cell(words + end + " after 60 epochs", way, shot, "", run))
    return cells


# 5-way 1-shot and 5-shot, 20-way 1-shot and 5-shot.
_MATCHING = ("98.1", "98.9", "93.8", "98.5")


def _omniglot() -> list[Cell]:
    joint = Run(
        "nearest_neighbor",
        (_recipe("omniglot_nearest_neighbor"),),
        shipped="omniglot_trunk_conv4_64",
    )
    pixels = Run("pixel_nearest_neighbor", (_recipe("omniglot_pixel_nearest_neighbor"),))
    cells = []
    for shot, matching, maml, meta_sgd in (
        (1, "98.1", "98.7 +- 0.4", "99.53 +- 0.26"),
        (5, "98.9", "99.9 +- 0.1", "99.93 +- 0.09"),
    ):
        task = f"omniglot_5way_{shot}shot"
        cells += [
            Cell("pixels, nearest neighbour", 5, shot, "", pixels),
            Cell("nearest neighbour", 5, shot, "", joint),
        ]
        for words, name, published in (
            ("matching networks", "matching", matching),
            ("MAML", "maml", maml),
            ("Meta-SGD", "meta_sgd", meta_sgd),
            ("meta-LSTM", "", ""),
        ):
            recipe = f"{task}_{name}" if name else task
            run = Run(f"{shot}shot_{name or 'meta_lstm'}", (_recipe(recipe),))
            cells.append(Cell(words, 5, shot, published, run))
    return cells + _omniglot_features(joint)


def _omniglot_features(joint: Run) -> list[Cell]:
    """Returns the rows of methods that compare features, 5- and 20-way.

    Relation networks have another network and begin at random weights, those of the last row at the
    convolutions of a jointly trained network. The meta-LSTM begins at prototypical networks, all
    others at a jointly trained network.
    """
    cells = [Cell("nearest neighbour", 20, shot, "", joint) for shot in (1, 5)]
    prototypical = {shot: _omniglot_run(shot, "prototypical", joint) for shot in (1, 5)}
    for words, name, published in (
        ("siamese networks", "siamese", ("97.3", "98.4", "88.2", "97.0")),
        ("matching networks, from a trained network", "matching_from_joint", _MATCHING),
        ("prototypical networks", "prototypical", ("98.8", "99.7", "96.0", "98.9")),
        ("meta-LSTM from prototypes", "meta_lstm_from_prototypes", ("", "", "", "")),
        ("ridge regression", "ridge", ("", "", "", "")),
        ("relation networks", "relation", ("99.6", "99.8", "97.6", "99.1")),
    ):
        for shot in (1, 5):
            before = {"relation": None, "meta_lstm_from_prototypes": prototypical[shot]}
            run = _omniglot_run(shot, name, before.get(name, joint))
            five, twenty = (published[(way == 20) * 2 + (shot == 5)] for way in (5, 20))
            # The validations of the training are 5-way. On 20-way validation its last weights are
            # better than those.
            last = (name, shot) == ("prototypical", 5)
            cells += [
                Cell(words, 5, shot, five, run),
                Cell(words, 20, shot, twenty, run, checkpoint="last" if last else "best"),
            ]
    run = _omniglot_run(1, "relation_from_joint", joint)
    return [*cells, Cell("relation networks, from a trained network", 5, 1, "99.6", run)]


def _omniglot_run(shot: int, name: str, before: Run | None) -> Run:
    flags = (_recipe(f"omniglot_{shot}shot_{name}"),)
    return Run(f"{shot}shot_{name}", flags, before=() if before is None else (before,))


def _glyphs() -> list[Cell]:
    rows = (
        ("pixels, nearest neighbour", "pixel_nearest_neighbor", "glyphs_pixel_nearest_neighbor"),
        ("nearest neighbour", "nearest_neighbor", "glyphs_nearest_neighbor"),
        ("matching networks", "5shot_matching", "glyphs_5way_5shot_matching"),
        ("prototypical networks", "5shot_prototypical", "glyphs_5way_5shot_prototypical"),
        ("ridge regression", "5shot_ridge", "glyphs_5way_5shot_ridge"),
        ("meta-LSTM", "5shot_meta_lstm", "glyphs_5way_5shot"),
    )
    return [Cell(words, 5, 5, "", Run(name, (_recipe(recipe),))) for words, name, recipe in rows]


# Row and flagfile. Rows after the first list begin at a jointly trained network.
_ABLATIONS = (
    ("the preset `paper`", "running_statistics"),
    ("the same with one more support pass, as all below", "base"),
    ("mirrored and shifted images", "augmentation"),
    ("classes turned by quarters", "turn"),
    ("pixels / 255", "unit_pixels"),
    ("H = 1", "hidden_1"),
    ("H = 8", "hidden_8"),
    ("gates fed back as logits", "gate_logit"),
    ("T = 8", "steps_8"),
    ("gradient divided by the batch", "gradient_divisor"),
    ("the learner's initialization in the authors' code", "original_initialization"),
    ("linear layer of zeros", "zero_linear"),
    ("linear layer of zeros that stays", "linear_fixed"),
    ("zeros that stay, averaged weights", "linear_fixed_average"),
    ("zeros that stay, mirrored and shifted images", "linear_fixed_augmentation"),
    ("Adam's rate rises and falls", "rate_decay"),
    ("averaged weights", "weight_average"),
    ("E = 4", "episodes_4"),
    ("second order", "second_order"),
    ("c_0 stays at its random initialization", "random_frozen"),
    ("f = 1 and one learned rate", "scalar_rate"),
)
_STARTS = (
    ("joint network, linear layer of zeros, no meta-update", "pretrained_start"),
    ("joint network, zeros, kernels times 4, no meta-update", "pretrained_start_scaled"),
)
_PRETRAINED_ABLATIONS = (
    ("joint network", "pretrained"),
    ("joint network, linear layer of zeros", "pretrained_zero_linear"),
    ("joint network, zeros, c_0 stays", "pretrained_frozen"),
    ("joint network, zeros, kernels times 4", "pretrained_linear_learned"),
    ("joint network, zeros that stay, kernels times 4", "pretrained_linear_fixed"),
    ("joint network, zeros that stay, kernels times 4, Adam at 3e-4", "pretrained_slow"),
    ("joint network, zeros that stay, kernels times 4, second order", "pretrained_second_order"),
    (
        "joint network, zeros that stay, kernels times 4, second order, c_0 stays",
        "pretrained_second_order_frozen",
    ),
    (
        "joint network, zeros that stay, kernels times 4, second order, f = 1 and one learned rate",
        "pretrained_second_order_scalar_rate",
    ),
)


def _ablation(name: str, before: tuple[Run, ...] = ()) -> Run:
    return Run(name, (f"--flagfile=flags/ablations/{name}.flags",), before)


def _ablations() -> list[Cell]:
    joint = _ablation("joint")
    rows = [(words, _ablation(name), "best") for words, name in _ABLATIONS]
    rows.append(("nearest neighbour of the joint network", joint, "best"))
    rows += [(words, _ablation(name, (joint,)), "best") for words, name in _STARTS]
    rows += [(words, _ablation(name, (joint,)), "last") for words, name in _PRETRAINED_ABLATIONS]
    return [
        Cell(f"{words} (`{run.name}`)", 5, 5, "", run, "validation", checkpoint)
        for words, run, checkpoint in rows
    ]


TABLES = {
    "ablations": _ablations,
    "glyphs": _glyphs,
    "mini_imagenet": _mini_imagenet,
    "omniglot": _omniglot,
}
