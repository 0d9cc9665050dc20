# Snakemake's records of what it made. DVC versions them, so they hold no times; and who lives in
# this folder is known by a kernel lock, which a killed process cannot leave behind.
import atexit
import fcntl
import json
import sys
import zlib
from pathlib import Path

RECORDS = Path(".snakemake/metadata").absolute()


def settle(alive):
    try:
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # Whoever lives on does it.
    for path in RECORDS.rglob("*"):
        try:
            record = json.loads(path.read_text())
        except (IsADirectoryError, ValueError):
            continue
        if record["starttime"] or record["endtime"]:
            job = zlib.crc32((record["shellcmd"] or "").encode())
            record |= {"starttime": 0.0, "endtime": 0.0, "job_hash": job}
            fresh = path.with_suffix(".new")
            fresh.write_text(json.dumps(record))
            fresh.replace(path)


def tell_times():
    """For --report alone: when jobs ended and how long they took, as their benchmarks say."""
    for path in RECORDS.rglob("*"):
        record = json.loads(path.read_text()) if path.is_file() else {}
        for log in record.get("log") or ():
            benchmark = Path(log).with_suffix(".tsv")
            if benchmark.exists():
                seconds = float(benchmark.read_text().splitlines()[1].split("\t")[0])
                ended = benchmark.stat().st_mtime
                record |= {"starttime": ended - seconds, "endtime": ended}
                path.write_text(json.dumps(record))


if workflow.is_main_process:
    RECORDS.mkdir(parents=True, exist_ok=True)
    alive = (RECORDS.parent / "alive").open("w")
    unlocks = "--unlock" in sys.argv
    try:
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB if unlocks else fcntl.LOCK_SH)
    except BlockingIOError:
        raise WorkflowError(
            "another snakemake is at work in this folder: wait until it is done, or stop it."
        )
    atexit.register(settle, alive)
    if "--report" in sys.argv:
        tell_times()
