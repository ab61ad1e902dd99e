"""Tests that every run of a table can be started."""

import pytest
from toy_table import ROOT

from tf_metalstm.flags import parse_settings
from tf_metalstm.tables import results, runs
from tf_metalstm.tables.catalogue import TABLES


@pytest.mark.parametrize("table", TABLES)
def test_every_run_of_a_table_is_a_recipe_that_is_there(table):
    found = TABLES[table]()
    assert len({(cell.method, cell.num_way, cell.num_shot) for cell in found}) == len(found)
    assert len({results.key(cell) for cell in found}) == len(found)
    for cell in found:
        for one in runs.in_order(cell.run):
            [flagfile] = one.flags
            assert (ROOT / flagfile.removeprefix("--flagfile=")).is_file()


def test_every_ablation_is_a_row():
    names = {cell.run.name for cell in TABLES["ablations"]()}
    assert names == {path.stem for path in (ROOT / "flags" / "ablations").glob("*.flags")}


@pytest.mark.parametrize("table", TABLES)
def test_what_is_asked_for_is_what_is_validated(table):
    # The last checkpoint has the current weights; validation and the best one have averages.
    for cell in TABLES[table]():
        averaged = parse_settings(cell.run.flags).get("weight_average")
        assert cell.checkpoint == "best" or not averaged
