"""Writes a run as `train` leaves it, with initial weights."""

from tf_metalstm.construction import build_method, build_tasks, resolve
from tf_metalstm.flags import write_settings
from tf_metalstm.task_facts import write_facts
from tf_metalstm.training.checkpoints import RunCheckpoints


def fresh_run(settings, step=0):
    """Returns the settings as in run.flags, and the method."""
    tasks = build_tasks(settings)
    settings = resolve(settings, tasks)
    write_settings(settings, settings.run_dir)
    write_facts(tasks, settings.run_dir)
    method = build_method(settings, tasks)
    RunCheckpoints(settings.run_dir, method).save_best(0.5, step)
    return settings, method
