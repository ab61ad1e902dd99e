"""The settings of a command: the chosen parts, and the value of every option in use.

    settings = make_settings({"method": "matching_networks", "cosine_scale": 10.0})
    settings.of(MatchingNetworksOptions).cosine_scale

An option is in use where a chosen part has it, or where it is one of the options below, which
every run has. Whatever else is said does nothing, and is an error.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from tf_metalstm.catalogue import FAMILIES
from tf_metalstm.data.sources.base import SPLITS
from tf_metalstm.options import Option, OptionError, Options, option, options_of
from tf_metalstm.training.devices import STRATEGIES

Chosen = TypeVar("Chosen", bound=Options)


@dataclass(frozen=True)
class TrainingOptions(Options):
    """How long a run goes, and on what it runs."""

    title: ClassVar[str] = "Training"

    max_steps: int = option(
        10_000,
        "Number of meta-updates; 0 leaves the method as it is initialized.",
        at_least=0,
        may_change=True,
    )
    max_minutes: float | None = option(
        None,
        "Stop after this many minutes of training, summed over all starts of the run.",
        above=0,
        may_change=True,
    )
    episodes_per_step: int = option(1, "E, the number of tasks of a meta-update.", at_least=1)
    seed: int = option(
        0, "Random seed of the initial weights and of the training tasks.", at_least=0, below=2**31
    )
    checkpoint_every: int = option(
        100, "Meta-updates between checkpoints and log entries.", at_least=1
    )
    validate_every: int = option(500, "Meta-updates between validations.", at_least=1)
    validation_episodes: int = option(
        100, "Number of tasks of a validation; always the same ones.", at_least=2
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
        True, "Use only operations that give the same result every time; may be slower where E > 1."
    )


@dataclass(frozen=True)
class OptimizerOptions(Options):
    """The optimizer of the training, Adam."""

    title: ClassVar[str] = "Optimizer of the training"
    requires: ClassVar[str | None] = "is_trained"

    learning_rate: float = option(
        1e-3, "Learning rate of Adam; with a schedule, its highest value.", above=0
    )
    warmup_steps: int = option(
        0, "Number of meta-updates in which the learning rate rises from 0; 0: none.", at_least=0
    )
    decay_steps: int = option(
        0,
        "Number of meta-updates after the warm-up in which the learning rate falls as a cosine to "
        "a hundredth; 0: it stays.",
        at_least=0,
    )
    weight_decay: float = option(
        0.0,
        "Decoupled weight decay of kernels (AdamW): each update takes off the learning rate times "
        "this part of them; 0: none.",
        at_least=0,
    )
    weight_average: float = option(
        0.0,
        "Momentum of an exponential average of the weights, which is then validated; 0: none.",
        at_least=0,
        below=1,
    )
    clip_norm: float = option(
        0.25,
        "Largest global norm of a meta-gradient, clipped to it; 0: no limit.",
        at_least=0,
    )
    clip_value: float = option(
        0.0,
        "Largest absolute value of an entry of a meta-gradient, clipped to it; 0: no limit.",
        at_least=0,
    )


@dataclass(frozen=True)
class EvaluationOptions(Options):
    """What the commands after training look at."""

    title: ClassVar[str] = "Evaluation"

    split: str = option("test", "The split to take tasks from.", choices=SPLITS, may_change=True)
    num_episodes: int = option(
        600, "Number of tasks of an evaluation.", at_least=1, may_change=True
    )
    evaluation_seed: int = option(
        0, "Random seed of the list of tasks, in validation too.", at_least=0, below=2**31
    )
    checkpoint: str = option(
        "best",
        "The weights best on validation, or the last ones.",
        choices=("best", "last"),
        may_change=True,
    )
    grid: tuple[str, ...] = option(
        (), "Values that search tries: NAME=VALUE|VALUE,NAME=VALUE|VALUE.", may_change=True
    )
    baseline_run_dir: str | None = option(
        None,
        "Another run on functions, which visualize draws below this one.",
        may_change=True,
        is_path=True,
    )
    example_dir: str | None = option(
        None,
        "Folder into which export also writes the images of one unseen episode.",
        may_change=True,
        is_path=True,
    )


ALWAYS: tuple[type[Options], ...] = (TrainingOptions, OptimizerOptions, EvaluationOptions)
"""Options that belong to no part."""


class UnusedOptionError(OptionError):
    """An option was set that does nothing with the chosen parts."""


@dataclass(frozen=True)
class Settings:
    """The settings of a command: the chosen parts and the value of every option in use.

    chosen: family -> name of the member, for the families in use.
    values: every option in use, by name.
    run_dir: folder of the run, or None.
    modules: with further parts, as --parts names them.
    """

    chosen: Mapping[str, str]
    values: Mapping[str, Any]
    run_dir: str | None = None
    modules: tuple[str, ...] = ()

    def of(self, options: type[Chosen]) -> Chosen:
        """Returns options of one class; those not in use have their default."""
        names = self.values.keys() & options_of(options).keys()
        return options(**{name: self.values[name] for name in names})

    def member(self, family: str) -> Any:
        """Returns the chosen member of a family that is in use."""
        return FAMILIES[family][self.chosen[family]]

    def of_member(self, family: str) -> Any:
        """Returns the options of the chosen member of a family."""
        return self.of(self.member(family).part.options)

    def get(self, name: str) -> Any:
        """Returns the value of an option, or the chosen member of a family; None if not in use."""
        return self.values.get(name, self.chosen.get(name))

    def said(self) -> dict[str, Any]:
        """Returns all of it, as `make_settings` takes it."""
        return {**self.chosen, **self.values}

    def changed(self, **values: Any) -> Settings:
        """Returns the same settings but for some values.

        Raises:
            OptionError: a value is not allowed, or its option not in use.
        """
        changed = make_settings({**self.said(), **values}, self.run_dir, strict=values.keys())
        return dataclasses.replace(changed, modules=self.modules)

    def placed(self, run_dir: Any) -> Settings:
        """Returns the same settings of another run folder."""
        return dataclasses.replace(self, run_dir=None if run_dir is None else str(run_dir))

    @property
    def training(self) -> TrainingOptions:
        """How long the run goes, and on what it runs."""
        return self.of(TrainingOptions)

    @property
    def evaluation(self) -> EvaluationOptions:
        """What the commands after training look at."""
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
    """Returns settings from options and members of families by name.

    Args:
        said: what was said; the rest is by default.
        run_dir: folder of the run.
        strict: names that must be in use; None for all that were said. Others that are not in use
            are left out.

    Raises:
        OptionError: a name is unknown, or a value not allowed.
        UnusedOptionError: an option does nothing with the chosen parts.
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
    """Returns every option there is, by name."""
    options: dict[str, Option] = {}
    for family in FAMILIES.values():
        for member in family:
            options.update(options_of(member.part.options))
    for owner in ALWAYS:
        options.update(options_of(owner))
    return options


def owners_of(name: str) -> Iterator[tuple[str, str]]:
    """Yields (family, member) for each part that has an option, or needs a family."""
    for family in FAMILIES.values():
        for member in family:
            if name in options_of(member.part.options) or name in member.part.needs:
                yield family.name, member.part.name


def _choose(said: Mapping[str, Any]) -> dict[str, str]:
    """Returns the members in use: source, method, and what those need."""
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
    """Returns the attribute that a method must have for an option to do anything."""
    return vars(each.owner).get("requires")  # not inherited: a subclass has options of its own


def _unused(name: str, chosen: Mapping[str, str]) -> OptionError:
    known = known_options()
    if name not in known and name not in FAMILIES:
        near = difflib.get_close_matches(name, [*known, *FAMILIES], n=1)
        return OptionError(name, "is no option" + (f"; did you mean {near[0]}?" if near else "."))
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
        f"{family}={' or '.join(n for f, n in owners if f == family)}" for family in families
    )
    present = [f"{family}={chosen[family]}" for family in families if family in chosen]
    with_what = " ".join(present or [f"method={chosen['method']}"])
    return UnusedOptionError(
        name, f"does nothing with {with_what}: it belongs to {belongs}. Leave it out."
    )


def _check_company(each: Option, settings: Settings) -> None:
    """Checks that an option that was said is not idle beside the others."""
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
