"""Files near or far. What has `scheme://` goes through fsspec and is copied here while it is being read."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dreamdojo.errors import DataError
from dreamdojo.remote import is_remote, system_of

_ENDS = 1 << 16
_WILD = "*?["


def join(folder: str, name: str) -> str:
    """A name inside a folder, near or far."""
    return posixpath.join(folder, name) if is_remote(folder) else str(Path(folder) / name)


def exists(path: str) -> bool:
    """Whether there is a file."""
    if not is_remote(path):
        return Path(path).is_file()
    system, inside = system_of(path)
    return bool(system.isfile(inside))


def list_files(where: str) -> tuple[str, list[str]]:
    """The files behind a remote folder (with its subfolders), pattern or file, and the folder they share.

    Raises:
        DataError: if there is nothing.
    """
    system, inside = system_of(where)
    scheme = where.split("://", 1)[0]
    try:
        if any(sign in inside for sign in _WILD):
            found = [path for path in system.glob(inside) if system.isfile(path)]
            base = posixpath.dirname(inside[: min(inside.index(s) for s in _WILD if s in inside)])
        elif system.isdir(inside):
            found, base = list(system.find(inside)), inside
        else:
            found, base = ([inside] if system.isfile(inside) else []), posixpath.dirname(inside)
    except OSError as error:
        raise DataError(f"{where}: expected files that can be listed, found {error}. Check the address.") from error
    if not found:
        raise DataError(f"{where}: expected files there, found none. Check the address.")

    def address(path: str) -> str:
        return path if is_remote(path) else f"{scheme}://{path}"  # HTTP's own paths are addresses already

    return address(base.rstrip("/")), [address(path) for path in sorted(map(str, found))]


@contextmanager
def local_file(path: str, scratch: Path) -> Iterator[Path]:
    """The file itself, or a copy under `scratch` that is removed afterwards.

    Raises:
        DataError: if it cannot be fetched.
    """
    if not is_remote(path):
        yield Path(path)
        return
    system, inside = system_of(path)
    scratch.mkdir(parents=True, exist_ok=True)
    digest = hashlib.blake2b(path.encode(), digest_size=8).hexdigest()
    copy = scratch / f"{digest}{posixpath.splitext(inside)[1]}"
    try:
        try:
            system.get_file(inside, str(copy))
        except FileNotFoundError as error:
            raise DataError(f"video {path}: expected a file, found nothing. Check the address.") from error
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def fingerprint(path: str) -> str:
    """Hex digits that change when a file does: of its size and both its ends, or of what the remote end states.

    Raises:
        DataError: if it cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    try:
        if is_remote(path):
            system, inside = system_of(path)
            info = system.info(inside)
            stated = {
                key: str(info[key]) for key in ("size", "ETag", "mtime", "LastModified", "md5Hash") if key in info
            }
            digest.update(repr(sorted(stated.items())).encode())
        else:
            with Path(path).open("rb") as file:
                size = file.seek(0, 2)
                file.seek(0)
                digest.update(str(size).encode() + file.read(_ENDS))
                file.seek(max(0, size - _ENDS))
                digest.update(file.read())
    except OSError as error:
        words = error.strerror or type(error).__name__
        raise DataError(f"video {path}: expected a file, found nothing that can be read ({words}).") from error
    return digest.hexdigest()


def read_text(path: str) -> str:
    """A small text file, near or far.

    Raises:
        DataError: if it is missing or not UTF-8.
    """
    try:
        if not is_remote(path):
            return Path(path).read_text(encoding="utf-8")
        system, inside = system_of(path)
        return system.cat_file(inside).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected a readable text file, found {error}. Check the path.") from error
