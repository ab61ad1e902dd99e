"""What is dear and the same in several files is made by one process of a test run for all of them.

Tests must not change it.
"""

import os

import filelock


def made_once(tmp_path_factory, name, make):
    """Returns a folder that all processes of this test run share.

    Args:
        tmp_path_factory: the fixture of pytest.
        name: name of the folder.
        make: called with the path of the folder, which does not exist; fills it.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, done = root / f"once_{name}", root / f"once_{name}.done"
    with filelock.FileLock(root / f"once_{name}.lock"):
        if not done.exists():
            make(folder)
            done.touch()
    return folder
