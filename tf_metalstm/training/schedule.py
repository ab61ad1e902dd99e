"""How long a run goes on, and how often it writes checkpoints and validates."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """How long a run goes on, and how often it writes checkpoints and validates.

    max_steps: meta-updates of the run; 0 for a method that is used as it starts.
    checkpoint_every: meta-updates between checkpoints; divides the other two numbers.
    validate_every: meta-updates between validations.
    max_minutes: time of training, all starts together; None for no limit.
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
