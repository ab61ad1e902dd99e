"""The training source and the clients take the same files of odd folders; both use one table."""

import collections
from pathlib import Path

import odd_inputs
import pytest
from export_client import folders

from tf_metalstm.data.sources.folder import Folder

MORE = "cdefg"  # a source splits its classes, so it needs more than two
ALL_GONE = ("no classes", "pictures without classes")  # these cases get classes again
CASES = {
    name: entry
    for name, entry in odd_inputs.FOLDERS.items()
    if entry.support == "{s}" and "quer" not in name and name not in ALL_GONE
}


def write(root, change):
    """Writes the folder of a case, with more classes beside the two in the table."""
    odd_inputs.ordinary(root)
    for place, name in enumerate(MORE):
        for number in range(3):
            pixels = odd_inputs.noise(10 * place + number, 0, 255)
            odd_inputs.write(root / "support" / name / f"{number}.png", pixels)
    change(root)


def taken(root, tmp_path):
    """Returns the last names of the files that a source takes of each class, and those left out."""
    staged = Folder(root / "support", tmp_path / "prepared", image_size=8).stage()
    found = collections.defaultdict(list)
    for classes in staged.images.values():
        for name, files in classes.items():
            found[name] += [Path(file).name for file in files]
    return {name: sorted(files) for name, files in found.items()}, "\n".join(staged.left_out)


@pytest.mark.parametrize("name", CASES)
def test_a_source_takes_what_the_clients_take(name, tmp_path, capsys):
    entry = CASES[name]
    write(tmp_path, entry.change)
    try:
        classes = folders.class_files(tmp_path / "support")
    except folders.ClientError:
        # Clients refuse some folders and files; a source continues with the classes that it has.
        found, left_out = taken(tmp_path, tmp_path)
        assert {*MORE} <= found.keys()
        assert "bee" not in found or len(found["bee"]) == 3
        assert (name == "an empty class") != bool(left_out)
        return
    expected = {name: sorted(path.name for path in files) for name, files in classes.items()}
    found, left_out = taken(tmp_path, tmp_path)
    assert found == expected
    said = capsys.readouterr().err
    assert bool(said) == bool(left_out), (said, left_out)


def test_the_table_is_large():
    assert len(CASES) >= 15
