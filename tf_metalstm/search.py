"""Searches settings on validation episodes: python -m tf_metalstm.search --run_dir=... --grid=...

    --grid="inner_rate=0.1|0.01,inner_decay=0|1"

tries every combination on the fixed list of validation episodes, by successive halving (Jamieson &
Talwalkar, AISTATS 2016) with a factor of four: all combinations on a tenth of the list, the best
quarter on a fifth, the best quarter of those on the whole list. It writes RUN_DIR/search.csv, one
row for each trial, and the best combination to RUN_DIR/found.flags. `evaluate` and `export` take
that file as --flagfile; it also holds what else was set differently from the training. The same
command goes on with a search that was interrupted.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import keras

from tf_metalstm import experiment
from tf_metalstm.argv import FOUND_FLAGS
from tf_metalstm.construction import build_tasks
from tf_metalstm.files import write_atomically
from tf_metalstm.flags import flag_line, read_settings, run_command
from tf_metalstm.objectives import OBJECTIVES
from tf_metalstm.options import Option, OptionError, options_of
from tf_metalstm.runs import changed_of_parts, check_settled
from tf_metalstm.scoring import episode_scores, questions
from tf_metalstm.settings import Settings, known_options
from tf_metalstm.training.checkpoints import best_fingerprint
from tf_metalstm.training.metrics import estimate

USES = ("evaluation_seed", "checkpoint", "grid", "validation_episodes")

_ROUNDS = (10, 5, 1)  # the whole list over that of a round
_FEWEST = 2  # episodes of a round
_KEPT = 4  # combinations of a round over those of the next

_COLUMNS = ("episodes", "mean", "interval", "subject")

Combination = tuple[tuple[str, str], ...]  # (name of a setting, its value as text)


class Trial(NamedTuple):
    """One combination on so many episodes.

    combination: what was tried.
    episodes: how many of the list.
    mean: score.
    interval: half width of its 95 % interval.
    """

    combination: Combination
    episodes: int
    mean: float
    interval: float


def main(settings: Settings) -> None:
    """Searches for the run in --run_dir and writes what was found."""
    combinations = parse_grid(settings.evaluation.grid)
    trained = read_settings(settings.run_dir or "")
    for combination in combinations:  # so that a wrong one is said before hours of work
        check_settled(trained, with_values(settings, combination))
    tasks = build_tasks(settings)
    objective = OBJECTIVES[tasks.objective]
    path = Path(settings.run_dir or "", "search.csv")
    everything = settings.training.validation_episodes
    subject = _subject(settings)
    trials = read_trials(path, combinations[0], subject)
    # No round twice, where the list is short.
    rounds = sorted({min(max(everything // part, _FEWEST), everything) for part in _ROUNDS})
    left = list(combinations)
    for episodes in rounds:
        if episodes != rounds[0]:
            left = left[: -(-len(left) // _KEPT)]
        for number, combination in enumerate(left, 1):
            if (combination, episodes) not in trials:
                mean, interval = _score(with_values(settings, combination), episodes)
                trials[combination, episodes] = Trial(combination, episodes, mean, interval)
                write_atomically(path, _table(trials.values(), subject))
            trial = trials[combination, episodes]
            print(
                f"{number:>3} of {len(left)}, {episodes} episodes: {_words(combination)}: "
                f"{objective.text(trial.mean, trial.interval)}",
                flush=True,
            )
        order = float("-inf") if objective.greater_is_better else float("inf")
        left.sort(
            key=lambda c, n=episodes: _sortable(trials[c, n].mean, order),  # type: ignore[misc]
            reverse=objective.greater_is_better,
        )
    best_flags = Path(settings.run_dir or "", FOUND_FLAGS)
    write_atomically(best_flags, _found_text(settings, left[0]))
    best = trials[left[0], everything]
    print(
        f"Best: {_words(left[0])}: {objective.text(best.mean, best.interval)} on {everything} "
        f"validation episodes. All trials: {path}\n"
        f"Next: python -m tf_metalstm.evaluate --run_dir={settings.run_dir} --flagfile={best_flags}"
    )


def parse_grid(grid: Sequence[str]) -> list[Combination]:
    """Returns every combination of values.

    >>> parse_grid(["a=1|2", "b=x"])
    [(('a', '1'), ('b', 'x')), (('a', '2'), ('b', 'x'))]
    """
    axes = []
    for part in grid:
        name, _, values = part.partition("=")
        if not name or not values:
            raise ValueError(
                f"grid must be NAME=VALUE|VALUE,NAME=VALUE|VALUE, got {part!r}: for example "
                "grid='inner_rate=0.1|0.01,inner_decay=0|1'."
            )
        axes.append([(name, value) for value in values.split("|")])
    if not axes:
        raise ValueError("There is nothing to search: give --grid='inner_rate=0.1|0.01'.")
    return list(itertools.product(*axes))


def with_values(settings: Settings, combination: Combination) -> Settings:
    """Returns the settings with the values of a combination.

    Raises:
        ValueError: there is no such option in use, it cannot be searched, or not have the value.
    """
    known = known_options()
    of_method = {name for name in settings.values if name not in _not_searched(settings)}
    changes = {}
    for name, value in combination:
        each = known.get(name)
        if each is None or name not in of_method or not _is_searched(each):
            raise ValueError(
                f"grid cannot search {name!r}: name numbers or words that a trained method takes."
            )
        try:
            changes[name] = each.parse(value)
            each.check(changes[name])
        except OptionError as error:
            raise ValueError(f"grid: {error}") from error
        except ValueError as error:
            raise ValueError(f"grid: {name} {error}.") from error
    return settings.changed(**changes)


def _is_searched(each: Option) -> bool:
    return not (each.settled or each.training_only or each.many)


def _not_searched(settings: Settings) -> set[str]:
    """Returns the options in use that are not of the method or its parts."""
    of_method = {
        name
        for family in settings.chosen
        if family != "source"
        for name in options_of(settings.member(family).part.options)
    }
    return settings.values.keys() - of_method


def _typed_flags(settings: Settings) -> list[str]:
    """Returns the flags that say all of the parts that the run was not trained with."""
    trained, known = read_settings(settings.run_dir or ""), known_options()
    return [
        flag_line(known[name], now) if name in known else f"--{name}={now}"
        for name, now in changed_of_parts(trained, settings).items()
    ]


def _subject(settings: Settings) -> str:
    """Returns what is searched: the weights, the way to ask them, the list of episodes."""
    run = experiment.load_run(settings)
    tasks = experiment.tasks_of_run(settings, run)
    episodes = tasks.episodes("validation", settings.evaluation.evaluation_seed)
    fingerprint = episodes.fingerprint(settings.training.validation_episodes)
    weights = f"{settings.evaluation.checkpoint} {run.step}"
    if settings.evaluation.checkpoint == "best":  # trained anew they are others
        weights += f" {best_fingerprint(settings.run_dir or '')}"
    asked = f"{run.method.query_normalization}, {run.method.num_updates} updates"
    changed = "".join(f", {flag}" for flag in _typed_flags(settings))
    return f"{weights}, {asked}, {tasks.task}, {fingerprint}{changed}"


def _found_text(settings: Settings, combination: Combination) -> str:
    """Returns a flagfile by which a trained run is asked as the best combination was."""
    searched = {name for name, _ in combination}
    typed = [flag for flag in _typed_flags(settings) if flag[2:].split("=")[0] not in searched]
    return "".join(f"{flag}\n" for flag in [*typed, *_flags(combination)])


def read_trials(
    path: Path, like: Combination, subject: str
) -> dict[tuple[Combination, int], Trial]:
    """Returns the trials of an earlier start.

    Args:
        path: of search.csv.
        like: a combination of the grid that is searched now.
        subject: what is searched now.

    Raises:
        ValueError: they are of another grid, or of something else.
    """
    if not path.is_file():
        return {}
    names = [name for name, _ in like]
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if any(row.get("subject") != subject for row in rows):
        raise ValueError(
            f"{path} is of a search on other weights or episodes ({rows[0].get('subject')}; now "
            f"{subject}): move it away to search again."
        )
    if not rows or list(rows[0]) != [*names, *_COLUMNS]:
        raise ValueError(
            f"{path} is of a search for something else than {', '.join(names)}: move it away, or "
            "give the same grid."
        )
    trials = {}
    for row in rows:
        combination = tuple((name, row[name]) for name in names)
        trial = Trial(combination, int(row["episodes"]), float(row["mean"]), float(row["interval"]))
        trials[combination, trial.episodes] = trial
    return trials


def _score(settings: Settings, num_episodes: int) -> tuple[float, float]:
    keras.backend.clear_session()  # each combination is a graph of its own
    run = experiment.load_run(settings)
    tasks = experiment.tasks_of_run(settings, run)
    episodes = tasks.episodes("validation", settings.evaluation.evaluation_seed)
    stream, answer = questions(run.method, episodes, num_episodes)
    return estimate(episode_scores(run.method, stream, one_of_many=True, answer=answer)[0])


def _table(trials: Iterable[Trial], subject: str) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    rows = list(trials)
    writer.writerow([*(name for name, _ in rows[0].combination), *_COLUMNS])
    for trial in rows:
        values = [value for _, value in trial.combination]
        score = [f"{trial.mean:.6f}", f"{trial.interval:.6f}"]
        writer.writerow([*values, trial.episodes, *score, subject])
    return text.getvalue()


def _flags(combination: Combination) -> list[str]:
    return [f"--{name}={value}" for name, value in combination]


def _words(combination: Combination) -> str:
    return " ".join(_flags(combination))


def _sortable(score: float, worst: float) -> float:
    return score if score == score else worst


if __name__ == "__main__":
    run_command(main, continues_a_run=True, uses=USES)
