"""The schedule of a run: how long it trains, how often it saves and validates."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """How long a run trains, and how often it saves checkpoints and validates.

    max_steps: number of meta-updates of the run; 0 for a method that is not trained.
    checkpoint_every: meta-updates between checkpoints; must divide the other two numbers.
    validate_every: meta-updates between validations.
    max_minutes: total training time, over all starts of the run; None for no limit.
    """

    max_steps: int
    checkpoint_every: int = 100
    validate_every: int = 500
    max_minutes: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_steps", "checkpoint_every", "validate_every"):
            value = getattr(self, name)
            if name == "max_steps" and value == 0:
                continue
            if value < 1 or value % self.checkpoint_every:
                raise ValueError(
                    f"{name} must be a positive multiple of checkpoint_every, "
                    f"{self.checkpoint_every}; got {value}."
                )
