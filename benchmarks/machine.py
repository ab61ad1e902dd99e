"""Describes the machine and the commit of a measurement."""

import os
import pathlib
import platform
import subprocess

FOLDER = pathlib.Path(__file__).resolve().parent


def machine():
    """Returns the processor, the number of cores and the load of this machine."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.processor()
    return {"processor": model, "cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]}


def commit():
    """Returns the commit of the clone, with "-dirty" if files have changed."""
    process = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=FOLDER, capture_output=True, text=True
    )
    return process.stdout.strip() or "unknown"
