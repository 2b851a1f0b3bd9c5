"""Files are written whole: under a temporary name first, then renamed into place."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dreamdojo.errors import DataError


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends well, remove it otherwise.

    Raises:
        DataError: if the disk is full. What stood under `path` before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.writing-{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if _is_disk_full(error):
            free = shutil.disk_usage(path.parent).free / 2**20
            raise DataError(
                f"{path}: no space left on the disk ({free:.0f} MB free). Nothing was overwritten; free some space "
                "and run the same command again."
            ) from error
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: if the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DataError(f"{path}: expected a JSON file, found nothing") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a JSON file ({error}). It may be cut short; make it again.") from error


def _is_disk_full(error: BaseException) -> bool:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    # safetensors and torch report the system's error only as text
    return full or "No space left on device" in str(error)
