"""Searches settings on validation episodes: python -m tf_metalstm.search --run_dir=... --grid=...

    --grid="inner_rate=0.1|0.01,inner_decay=0|1"

tries every combination on the fixed list of validation episodes. It uses successive halving
(Jamieson & Talwalkar, AISTATS 2016) with a factor of four: all combinations on a tenth of the list,
the best quarter on a fifth, the best quarter of those on the whole list. It writes
RUN_DIR/search.csv, one row for each trial, and the best combination to RUN_DIR/found.flags. Use
that file with `evaluate` and `export` as --flagfile; `FewShotClassifier.load(RUN_DIR)` uses it by
itself. It also has the other settings that differ from the training. If a search was interrupted,
the same command continues it.
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
from tf_metalstm.training.checkpoints import fingerprint_of_weights
from tf_metalstm.training.metrics import estimate

USES = ("evaluation_seed", "checkpoint", "grid", "validation_episodes")

_ROUNDS = (10, 5, 1)  # a round uses this fraction of the list: 1/10, 1/5, all
_FEWEST = 2  # smallest number of episodes in a round
_KEPT = 4  # the next round has a quarter of the combinations

_COLUMNS = ("episodes", "mean", "interval", "subject")

Combination = tuple[tuple[str, str], ...]  # (name of a setting, its value as text)


class Trial(NamedTuple):
    """The score of a combination on some episodes.

    combination: the names and values of settings.
    episodes: number of episodes, from the beginning of the list.
    mean: mean score.
    interval: half width of its 95 % interval.
    """

    combination: Combination
    episodes: int
    mean: float
    interval: float


def main(settings: Settings) -> None:
    """Searches settings of the run in --run_dir and writes the best ones."""
    combinations = parse_grid(settings.evaluation.grid)
    trained = read_settings(settings.run_dir or "")
    for combination in combinations:  # report a wrong one before hours of work
        check_settled(trained, with_values(settings, combination))
    tasks = build_tasks(settings)
    objective = OBJECTIVES[tasks.objective]
    path = Path(settings.run_dir or "", "search.csv")
    everything = settings.training.validation_episodes
    subject = _subject(settings)
    trials = read_trials(path, combinations[0], subject)
    # The set avoids two equal rounds if the list is short.
    rounds = sorted({min(max(everything // part, _FEWEST), everything) for part in _ROUNDS})
    remaining = list(combinations)
    for episodes in rounds:
        if episodes != rounds[0]:
            remaining = remaining[: -(-len(remaining) // _KEPT)]
        for number, combination in enumerate(remaining, 1):
            if (combination, episodes) not in trials:
                mean, interval = _score(with_values(settings, combination), episodes)
                trials[combination, episodes] = Trial(combination, episodes, mean, interval)
                write_atomically(path, _table(trials.values(), subject))
            trial = trials[combination, episodes]
            print(
                f"{number:>3} of {len(remaining)}, {episodes} episodes: {_words(combination)}: "
                f"{objective.text(trial.mean, trial.interval)}",
                flush=True,
            )
        worst = float("-inf") if objective.greater_is_better else float("inf")
        remaining.sort(
            key=lambda c, n=episodes: _sortable(trials[c, n].mean, worst),  # type: ignore[misc]
            reverse=objective.greater_is_better,
        )
    best_flags = Path(settings.run_dir or "", FOUND_FLAGS)
    write_atomically(best_flags, _flagfile_text(settings, remaining[0]))
    best = trials[remaining[0], everything]
    print(
        f"Best: {_words(remaining[0])}: {objective.text(best.mean, best.interval)} on {everything} "
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
        raise ValueError("There is nothing to search: add for example grid='inner_rate=0.1|0.01'.")
    return list(itertools.product(*axes))


def with_values(settings: Settings, combination: Combination) -> Settings:
    """Returns the settings with the values of a combination.

    Raises:
        ValueError: an option is not in use, cannot be searched, or does not allow the value.
    """
    known = known_options()
    of_method = {name for name in settings.values if name not in _not_searched(settings)}
    changes = {}
    for name, value in combination:
        each = known.get(name)
        if each is None or name not in of_method or not _is_searched(each):
            raise ValueError(
                f"grid cannot search {name!r}: name an option of the method or its parts that may "
                "change after training and has one value."
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
    """Returns the options in use that do not belong to the method or its parts."""
    of_method = {
        name
        for family in settings.chosen
        if family != "source"
        for name in options_of(settings.member(family).part.options)
    }
    return settings.values.keys() - of_method


def _typed_flags(settings: Settings) -> list[str]:
    """Returns flags for all settings of parts that differ from those of the training."""
    trained, known = read_settings(settings.run_dir or ""), known_options()
    return [
        flag_line(known[name], now) if name in known else f"--{name}={now}"
        for name, now in changed_of_parts(trained, settings).items()
    ]


def _subject(settings: Settings) -> str:
    """Returns a text that identifies the weights, the evaluation mode and the list of episodes."""
    run = experiment.load_run(settings)
    tasks = experiment.tasks_of_run(settings, run)
    episodes = tasks.episodes("validation", settings.evaluation.evaluation_seed)
    fingerprint = episodes.fingerprint(settings.training.validation_episodes)
    checkpoint = settings.evaluation.checkpoint
    weights = f"{checkpoint} {run.step} "
    # Another training may reach the same step.
    weights += str(fingerprint_of_weights(settings.run_dir or "", checkpoint, run.step))
    mode = f"{run.method.query_normalization}, {run.method.num_updates} updates"
    changed = "".join(f", {flag}" for flag in _typed_flags(settings))
    return f"{weights}, {mode}, {tasks.task}, {fingerprint}{changed}"


def _flagfile_text(settings: Settings, combination: Combination) -> str:
    """Returns the flagfile that evaluates a trained run with a combination."""
    searched = {name for name, _ in combination}
    typed = [flag for flag in _typed_flags(settings) if flag[2:].split("=")[0] not in searched]
    if settings.evaluation.checkpoint != "best":
        typed.append(f"--checkpoint={settings.evaluation.checkpoint}")
    return "".join(f"{flag}\n" for flag in [*typed, *_flags(combination)])


def read_trials(
    path: Path, like: Combination, subject: str
) -> dict[tuple[Combination, int], Trial]:
    """Returns the trials of an earlier start of the same search.

    Args:
        path: path of search.csv.
        like: a combination of the present grid.
        subject: the text of `_subject`.

    Raises:
        ValueError: the trials are of another grid, of other weights or of other episodes.
    """
    if not path.is_file():
        return {}
    names = [name for name, _ in like]
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if any(row.get("subject") != subject for row in rows):
        raise ValueError(
            f"{path} is from a search with other weights or episodes ({rows[0].get('subject')}; "
            f"now {subject}): move it away to search again."
        )
    if not rows or list(rows[0]) != [*names, *_COLUMNS]:
        raise ValueError(
            f"{path} is from a search of other options than {', '.join(names)}: move it away, or "
            "use the same grid."
        )
    trials = {}
    for row in rows:
        combination = tuple((name, row[name]) for name in names)
        trial = Trial(combination, int(row["episodes"]), float(row["mean"]), float(row["interval"]))
        trials[combination, trial.episodes] = trial
    return trials


def _score(settings: Settings, num_episodes: int) -> tuple[float, float]:
    keras.backend.clear_session()  # each combination builds a new graph
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
