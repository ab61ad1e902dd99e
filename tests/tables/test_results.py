"""Tests which measured numbers are in the table of results."""

import pytest
from toy_table import PLAIN, TUNED, make_run, report, run

from tf_metalstm.tables import results


@pytest.mark.parametrize(
    "changes",
    [
        {"step": 40},
        {"query_normalization": "batch"},
        {"num_steps": 10},
        {"num_query": 5},
        {"num_shot": 5},
        {"num_episodes": 100},
        {"split": "validation"},
        {"checkpoint": "last"},
        {"evaluation_seed": 1},
        {"changed": {"inner_rate": 0.5}},
        {"other_data": True},
        {"weights": "of another training"},
    ],
)
def test_what_was_measured_otherwise_is_not_shown(changes, tmp_path):
    make_run(tmp_path, 60, best=50)
    report(tmp_path, **changes)
    assert results.find_report(PLAIN, tmp_path, 600) is None
    report(tmp_path)
    assert results.find_report(PLAIN, tmp_path, 600) is not None


def test_a_method_with_one_normalization_has_none_in_its_reports(tmp_path):
    make_run(tmp_path, 60, best=50)
    report(tmp_path, query_normalization=None)
    assert results.find_report(PLAIN, tmp_path, 600) is not None


def test_what_was_searched_with_other_updates_counts_with_them(calls, tmp_path):
    run(tmp_path, "--only=tuned")
    run_dir = tmp_path / "mini_imagenet" / "tuned"
    (run_dir / "found.flags").write_text("--num_evaluation_steps=9\n--inner_rate=0.1\n")
    assert results.find_report(TUNED, run_dir, 600) is None
    report(run_dir, num_shot=5, num_steps=9, changed={"inner_rate": 0.1})
    assert results.find_report(TUNED, run_dir, 600)["num_steps"] == 9


def test_only_what_the_search_found_counts(calls, tmp_path):
    run(tmp_path, "--only=tuned")
    run_dir = tmp_path / "mini_imagenet" / "tuned"
    assert results.find_report(TUNED, run_dir, 600)["changed"] == {"inner_rate": 0.1}
    (run_dir / "found.flags").write_text("--inner_rate=0.5\n")
    assert results.find_report(TUNED, run_dir, 600) is None
    (run_dir / "found.flags").unlink()
    assert results.find_report(TUNED, run_dir, 600) is None
