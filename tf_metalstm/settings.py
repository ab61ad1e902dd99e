"""The settings of a command: the chosen parts, and the value of every option in use.

    settings = make_settings({"method": "matching_networks", "cosine_scale": 10.0})
    settings.of(MatchingNetworksOptions).cosine_scale

An option is in use if a chosen part has it, or if it is one of the options below, which every run
has. Any other option has no effect, so it is an error to set it.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from tf_metalstm.catalogue import FAMILIES
from tf_metalstm.data.sources.base import SPLITS
from tf_metalstm.options import Option, OptionError, Options, option, options_of
from tf_metalstm.training.devices import STRATEGIES

Chosen = TypeVar("Chosen", bound=Options)


@dataclass(frozen=True)
class TrainingOptions(Options):
    """How long a run trains, and on which devices."""

    title: ClassVar[str] = "Training"

    max_steps: int = option(
        10_000,
        "Number of meta-updates; 0 keeps the initial weights.",
        at_least=0,
        may_change=True,
    )
    max_minutes: float | None = option(
        None,
        "Stop after this many minutes of training, summed over all starts of the run.",
        above=0,
        may_change=True,
    )
    episodes_per_step: int = option(1, "E, the number of tasks in a meta-update.", at_least=1)
    seed: int = option(
        0, "Random seed of the initial weights and of the training tasks.", at_least=0, below=2**31
    )
    checkpoint_every: int = option(
        100, "Meta-updates between checkpoints and log entries.", at_least=1
    )
    validate_every: int = option(500, "Meta-updates between validations.", at_least=1)
    validation_episodes: int = option(
        100, "Number of validation tasks; every validation uses the same ones.", at_least=2
    )
    strategy: str = option(
        "none",
        "Where to train: on one device (none), all GPUs of this machine (mirrored), or several "
        "machines (multi_worker).",
        choices=STRATEGIES,
    )
    jit_compile: bool = option(
        False, "Compile the training step with XLA, for GPUs; needs deterministic=false."
    )
    deterministic: bool = option(
        True, "Use only operations that always give the same result; may be slower if E > 1."
    )


@dataclass(frozen=True)
class OptimizerOptions(Options):
    """The optimizer of the training, which is Adam."""

    title: ClassVar[str] = "Optimizer of the training"
    requires: ClassVar[str | None] = "is_trained"

    learning_rate: float = option(
        1e-3, "Learning rate of Adam; with a schedule, the highest value.", above=0
    )
    warmup_steps: int = option(
        0, "Number of meta-updates in which the learning rate rises from 0; 0: no rise.", at_least=0
    )
    decay_steps: int = option(
        0,
        "Number of meta-updates after the rise in which the learning rate falls as a cosine to "
        "a hundredth; 0: no fall.",
        at_least=0,
    )
    weight_decay: float = option(
        0.0,
        "Decoupled weight decay (AdamW): each update multiplies kernels by 1 - learning rate x "
        "this; 0: no decay.",
        at_least=0,
    )
    weight_average: float = option(
        0.0,
        "Momentum of an exponential average of the weights; validation uses the average; 0: no "
        "average.",
        at_least=0,
        below=1,
    )
    clip_norm: float = option(
        0.25,
        "Clip a meta-gradient to this global norm; 0: no limit.",
        at_least=0,
    )
    clip_value: float = option(
        0.0,
        "Clip the entries of a meta-gradient to this absolute value; 0: no limit.",
        at_least=0,
    )


KERAS_OPTIMIZERS = (
    "SGD",
    "momentum",
    "Nesterov",
    "Adam",
    "RMSprop",
    "Lion",
    "Schedule-Free AdamW",
    "Muon",
)
"""Names of the optimizers that a learned one is compared with."""


@dataclass(frozen=True)
class EvaluationOptions(Options):
    """Which tasks and weights the commands after training use."""

    title: ClassVar[str] = "Evaluation"

    split: str = option("test", "The split to take tasks from.", choices=SPLITS, may_change=True)
    num_episodes: int = option(
        600, "Number of tasks in an evaluation.", at_least=1, may_change=True
    )
    evaluation_seed: int = option(
        0, "Random seed of the list of tasks, also in validation.", at_least=0, below=2**31
    )
    checkpoint: str = option(
        "best",
        "Weights to use: those with the best validation score, or the last ones.",
        choices=("best", "last"),
        may_change=True,
    )
    grid: tuple[str, ...] = option(
        (), "Values that search tries: NAME=VALUE|VALUE,NAME=VALUE|VALUE.", may_change=True
    )
    baseline_run_dir: str | None = option(
        None,
        "Folder of another run on functions; visualize draws it below this run.",
        may_change=True,
        is_path=True,
    )
    optimizer_dirs: tuple[str, ...] = option(
        (),
        "Folders of exported learned optimizers; compare_optimizers tests them on the same "
        "problems.",
        may_change=True,
        is_path=True,
    )
    baselines: tuple[str, ...] = option(
        (),
        "Optimizers of Keras that compare_optimizers tunes, beside Adam; default: all.",
        choices=KERAS_OPTIMIZERS,
        may_change=True,
    )
    example_dir: str | None = option(
        None,
        "Folder to which export also writes the images of one new episode.",
        may_change=True,
        is_path=True,
    )


ALWAYS: tuple[type[Options], ...] = (TrainingOptions, OptimizerOptions, EvaluationOptions)
"""Options that belong to no part."""


class UnusedOptionError(OptionError):
    """An option was set that has no effect with the chosen parts."""


@dataclass(frozen=True)
class Settings:
    """The settings of a command: the chosen parts and the value of every option in use.

    chosen: family -> name of the chosen member, for the families in use.
    values: the values of all options in use, by name.
    run_dir: folder of the run, or None.
    modules: modules with further parts, as in --parts.
    """

    chosen: Mapping[str, str]
    values: Mapping[str, Any]
    run_dir: str | None = None
    modules: tuple[str, ...] = ()

    def of(self, options: type[Chosen]) -> Chosen:
        """Returns the options of one class; options not in use have their default."""
        names = self.values.keys() & options_of(options).keys()
        return options(**{name: self.values[name] for name in names})

    def member(self, family: str) -> Any:
        """Returns the chosen member of a family that is in use."""
        return FAMILIES[family][self.chosen[family]]

    def of_member(self, family: str) -> Any:
        """Returns the options of the chosen member of a family."""
        return self.of(self.member(family).part.options)

    def get(self, name: str) -> Any:
        """Returns the value of an option or the chosen member of a family; None if not in use."""
        return self.values.get(name, self.chosen.get(name))

    def said(self) -> dict[str, Any]:
        """Returns all choices and values, as the argument of `make_settings`."""
        return {**self.chosen, **self.values}

    def changed(self, **values: Any) -> Settings:
        """Returns the same settings with some values changed.

        Raises:
            OptionError: a value is not allowed, or its option is not in use.
        """
        changed = make_settings({**self.said(), **values}, self.run_dir, strict=values.keys())
        return dataclasses.replace(changed, modules=self.modules)

    def placed(self, run_dir: Any) -> Settings:
        """Returns the same settings with another run folder."""
        return dataclasses.replace(self, run_dir=None if run_dir is None else str(run_dir))

    @property
    def training(self) -> TrainingOptions:
        """How long the run trains, and on which devices."""
        return self.of(TrainingOptions)

    @property
    def evaluation(self) -> EvaluationOptions:
        """Which tasks and weights the commands after training use."""
        return self.of(EvaluationOptions)

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.chosen["method"]

    @property
    def source(self) -> str:
        """Name of the source."""
        return self.chosen["source"]


def make_settings(
    said: Mapping[str, Any] | None = None,
    run_dir: str | None = None,
    strict: Set[str] | None = None,
) -> Settings:
    """Returns settings from values of options and names of members.

    Args:
        said: option -> value, and family -> name of the member. Everything else has its default.
        run_dir: folder of the run.
        strict: names in `said` that must be in use; None for all. Other names that are not in use
            are ignored.

    Raises:
        OptionError: a name is unknown, or a value is not allowed.
        UnusedOptionError: an option has no effect with the chosen parts.
    """
    said = dict(said or {})
    chosen = _choose(said)
    in_use = _in_use(chosen)
    values = {name: each.default for name, each in in_use.items()}
    for name, value in said.items():
        if name in in_use:
            values[name] = value
        elif name not in chosen and (strict is None or name in strict):
            raise _unused(name, chosen)
    settings = Settings(chosen, values, run_dir)
    for owner in (*ALWAYS, *(settings.member(family).part.options for family in chosen)):
        settings.of(owner)  # checks the values
    for name in said.keys() if strict is None else strict:
        if name in in_use:
            _check_company(in_use[name], settings)
    _check_kind(settings)
    return settings


def known_options() -> dict[str, Option]:
    """Returns the options of all parts and of every run, by name."""
    options: dict[str, Option] = {}
    for family in FAMILIES.values():
        for member in family:
            options.update(options_of(member.part.options))
    for owner in ALWAYS:
        options.update(options_of(owner))
    return options


def owners_of(name: str) -> Iterator[tuple[str, str]]:
    """Yields (family, member) for each part that has the option, or needs the family, `name`."""
    for family in FAMILIES.values():
        for member in family:
            if name in options_of(member.part.options) or name in member.part.needs:
                yield family.name, member.part.name


def _choose(said: Mapping[str, Any]) -> dict[str, str]:
    """Returns the members in use: source, method, and the members that these need."""
    chosen: dict[str, str] = {}
    waiting = ["source", "method"]
    while waiting:
        family = FAMILIES[waiting.pop(0)]
        if family.name not in chosen:
            name = said.get(family.name) or family.default
            try:
                chosen[family.name] = name
                waiting += family[name].part.needs
            except ValueError as error:
                raise OptionError(
                    family.name, str(error).removeprefix(f"{family.name} ")
                ) from error
    return {name: chosen[name] for name in FAMILIES if name in chosen}


def _in_use(chosen: Mapping[str, str]) -> dict[str, Option]:
    method = FAMILIES["method"][chosen["method"]]
    classes = [FAMILIES[family][name].part.options for family, name in chosen.items()]
    return {
        name: each
        for owner in (*classes, *ALWAYS)
        for name, each in options_of(owner).items()
        if (requires := _requires(each)) is None or getattr(method, requires)
    }


def _requires(each: Option) -> str | None:
    """Returns the attribute that a method must have if the option shall have an effect."""
    return vars(each.owner).get("requires")  # not inherited, see Options


def _unused(name: str, chosen: Mapping[str, str]) -> OptionError:
    known = known_options()
    if name not in known and name not in FAMILIES:
        near = difflib.get_close_matches(name, [*known, *FAMILIES], n=1)
        return OptionError(
            name, "is not an option" + (f"; did you mean {near[0]}?" if near else ".")
        )
    owners = list(owners_of(name))
    requires = _requires(known[name]) if name in known else None
    has_it = any(
        name in options_of(owner)
        for owner in (*(FAMILIES[f][n].part.options for f, n in chosen.items()), *ALWAYS)
    )
    if has_it and requires is not None:
        why = {"is_episodic": "is not trained on episodes", "is_trained": "is not trained"}
        return UnusedOptionError(
            name,
            f"does nothing with method={chosen['method']}, which {why[requires]}. Leave it out.",
        )
    families = dict.fromkeys(family for family, _ in owners)
    belongs = " and ".join(
        f"{family}={_one_of([n for f, n in owners if f == family])}" for family in families
    )
    present = [f"{family}={chosen[family]}" for family in families if family in chosen]
    with_what = " ".join(present or [f"method={chosen['method']}"])
    return UnusedOptionError(
        name, f"does nothing with {with_what}: it belongs to {belongs}. Leave it out."
    )


def _one_of(names: Sequence[str]) -> str:
    """Returns names as "a", "a or b", "a, b or c"."""
    *before, last = names
    return f"{', '.join(before)} or {last}" if before else last


def _check_company(each: Option, settings: Settings) -> None:
    """Checks that an option has an effect together with the other settings."""
    for other, value in each.only_with.items():
        allowed = value if isinstance(value, tuple) else (value,)
        if settings.get(other) not in allowed:
            text = other if value is True else f"{other}={' or '.join(map(str, allowed))}"
            raise UnusedOptionError(each.name, f"does nothing without {text}. Leave it out.")


def _check_kind(settings: Settings) -> None:
    method, source = settings.member("method"), settings.member("source")
    if source.kind not in method.kinds:
        raise ValueError(
            f"method={settings.method} is for {' or '.join(method.kinds)}, but "
            f"source={settings.source} has {source.kind}: choose another source or method."
        )
