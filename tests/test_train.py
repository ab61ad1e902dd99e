"""Tests the last lines that `train` prints."""

import math
import pathlib

from tf_metalstm.train import last_words

RUN = pathlib.Path("runs/mine")


def test_the_best_validation_is_said_with_the_next_command():
    assert last_words("accuracy", 0.97654, 500, RUN, True) == (
        "Best validation accuracy 0.9765, after 500 updates.\n"
        "Next: python -m tf_metalstm.evaluate --run_dir=runs/mine"
    )


def test_a_run_that_was_not_validated_is_evaluated_with_its_last_weights():
    words = last_words("accuracy", math.nan, 0, RUN, False)
    assert words.startswith("It ended before its first validation, see --validate_every.")
    assert words.endswith("evaluate --run_dir=runs/mine --checkpoint=last")
    assert "nan" not in words


def test_a_run_whose_validations_all_diverged_is_told_so():
    words = last_words("mse", math.nan, 0, RUN, True)
    assert words.startswith("No validation mse was a finite number: try a lower learning rate")
    assert words.endswith("--checkpoint=last")
