"""Writes the database of the present data version, one row per table, for the upgrade tests.

Run it once when a version is about to be released, and check the file in:
``PYTHONPATH=.:broker python tests/broker/data/make.py``. A later version's test opens it.
"""

import shutil
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Any

from claudemesh_broker.datafile import open_datafile
from claudemesh_broker.migrations import DATA_VERSION

FOLDER = Path(__file__).parent
SAMPLES: dict[str, Any] = {"TEXT": "a text", "INTEGER": 7, "BLOB": b"bytes", "REAL": 0.5}


def make(path: Path) -> None:
    """Make a database with one row in every table."""
    with sqlite3.connect(path) as small:
        small.execute("PRAGMA page_size = 512")
        small.execute("PRAGMA journal_mode = WAL")
    small.close()
    path.chmod(0o600)
    made = open_datafile(path)
    made.reader.close()
    for (table,) in made.writer.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table'"
        " AND name NOT LIKE 'sqlite_%' AND name <> 'migrations'"
    ).fetchall():
        columns = made.writer.execute(f"PRAGMA table_info({table})").fetchall()
        values = [SAMPLES[column["type"]] for column in columns]
        marks = ", ".join("?" * len(values))
        made.writer.execute(f"INSERT INTO {table} VALUES ({marks})", values)  # noqa: S608 - ours
    made.writer.close()


if __name__ == "__main__":
    target = FOLDER / f"v{DATA_VERSION}.sqlite3"
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / target.name
        make(made)
        shutil.copyfile(made, target)
    sys.stdout.write(f"{target}: {target.stat().st_size} bytes\n")
