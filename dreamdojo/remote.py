"""Datasets that lie elsewhere: whatever `scheme://` fsspec knows, with a cache of whole files on this machine.

    CACHE/datasets/NAME-HASH/meta/...        the meta of a dataset, small and kept
    CACHE/datasets/NAME-HASH/listing.json    where it is, and its files
    CACHE/files/NAME-HASH/...                its tables and videos, as many as fit; those not used for longest go first

HASH changes when the dataset does. Files appear whole. Several processes may use one cache: a file is fetched by one of
them, and none that is held open is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import posixpath
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamdojo.errors import DataError, MissingDependencyError
from dreamdojo.files import disk_full, partial_path, read_json, write_json

_LISTING = "listing.json"
_STATED = ("size", "ETag", "etag", "blob_id", "mtime", "LastModified", "md5Hash", "created")
_ATTEMPTS = 3
_PATIENCE = 5.0
"""Seconds in which nothing of a file comes before it is asked for again, beside the request that waits."""
_LOCKS = 64


class StorageError(DataError):
    """A file that could not be fetched: the storage failed, not the file. Never a reason to leave an episode out."""


class CacheFullError(StorageError):
    """A cache in which all files are in use."""


def is_remote(path: Path | str) -> bool:
    """Whether a path is a URL."""
    return "://" in str(path)


def system_of(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.

    Raises:
        MissingDependencyError: if its scheme needs a package that is not installed.
        DataError: if there is no such scheme.
    """
    import fsspec.core

    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingDependencyError(f"{url}: {error}. Install that package, or copy the files here.") from error
    except ValueError as error:
        raise DataError(f"{url}: expected an address that fsspec can open, found {error}. Check it.") from error


@dataclass(frozen=True, kw_only=True)
class FileCache:
    """A folder of copies of remote files."""

    folder: Path
    """Where they lie; on a disk of this machine."""
    limit: int
    """Bytes of tables and videos; never exceeded."""

    @classmethod
    def default(cls) -> FileCache:
        """`DREAMDOJO_CACHE` (`~/.cache/dreamdojo`) of at most `DREAMDOJO_CACHE_GB` (50) gigabytes."""
        folder = os.environ.get("DREAMDOJO_CACHE") or Path.home() / ".cache" / "dreamdojo"
        return cls(folder=Path(folder), limit=int(float(os.environ.get("DREAMDOJO_CACHE_GB", "50")) * 1e9))


class RemoteDataset:
    """A dataset folder elsewhere: its meta is here, its other files come when they are asked for. Can be pickled."""

    def __init__(self, url: str, cache: FileCache) -> None:
        """List the files of `url` and fetch its meta.

        Raises:
            DataError: if there is no dataset.
            StorageError: if the storage does not answer.
        """
        self.url, self.cache = url.rstrip("/"), cache
        self.files = self._list()
        self._key = f"{posixpath.basename(self.url) or 'dataset'}-{self.hash[:12]}"
        self.folder = cache.folder / "datasets" / self._key
        if not (self.folder / _LISTING).is_file():
            self._fetch_meta()

    files: dict[str, dict[str, Any]]
    """Name inside the dataset -> `size` in bytes, and what else the storage says that changes with the file."""

    @property
    def hash(self) -> str:
        """32 hex digits that change when the address or, as far as the storage tells, any file does."""
        stated = repr((self.url, sorted((name, sorted(about.items())) for name, about in self.files.items())))
        return hashlib.blake2b(stated.encode(), digest_size=16).hexdigest()

    @contextmanager
    def held(self, path: Path) -> Iterator[Path]:
        """A copy of the file that would be `path` in `folder`; it stays while the block runs.

        Raises:
            DataError: if the dataset has no such file, or it is larger than the cache.
            StorageError: if it cannot be fetched, or everything in the cache is in use.
        """
        name = path.relative_to(self.folder).as_posix()
        copy = self.cache.folder / "files" / self._key / name
        while True:
            try:
                file = copy.open("rb")
            except FileNotFoundError:
                self._fetch(name, copy)
                continue
            with file:
                fcntl.flock(file, fcntl.LOCK_SH)
                if os.fstat(file.fileno()).st_nlink == 0:  # removed between these two lines
                    continue
                now = time.time_ns()  # finer than the system's own stamp, which cannot tell who was last
                os.utime(copy, ns=(now, now))
                yield copy
                return

    def _list(self) -> dict[str, dict[str, Any]]:
        system, inside = system_of(self.url)

        def read() -> dict[str, dict[str, Any]]:
            found = system.find(inside, detail=True)
            for path, about in found.items():
                if about.get("size") is None:  # a plain web server says so only of each file
                    about.update(system.info(path))
            return found

        found = _persistently(self.url, read)
        base = inside.rstrip("/") + "/"
        files = {
            path.removeprefix(base): {
                key: str(about[key]) if key != "size" else about[key] for key in _STATED if key in about
            }
            for path, about in found.items()
        }
        if "meta/info.json" not in files:
            raise DataError(
                f"dataset {self.url}: expected meta/info.json there, found {len(files)} other files. Check the address."
            )
        return files

    def _fetch_meta(self) -> None:
        building = partial_path(self.folder)
        shutil.rmtree(building, ignore_errors=True)
        with disk_full(self.folder):
            for name in self.files:
                if name.startswith("meta/"):
                    self._download(name, building / name)
            write_json(building / _LISTING, {"url": self.url, "files": self.files})
        try:
            building.rename(self.folder)
        except OSError:
            shutil.rmtree(building)
            read_json(self.folder / _LISTING, of=f"the copy of {self.url}")  # another process was faster

    def _fetch(self, name: str, copy: Path) -> None:
        if name not in self.files:
            raise DataError(f"dataset {self.url}: expected the file {name}, found no such file. Upload it again.")
        size = int(self.files[name]["size"])
        copy.parent.mkdir(parents=True, exist_ok=True)
        with alone(self.cache.folder / "locks" / str(hash_of(self._key + name) % _LOCKS)):
            if copy.is_file():
                return
            part = copy.with_name(f".{copy.name}.partial-{os.getpid()}-{size}")
            try:
                with alone(self.cache.folder / "locks" / "room"):
                    _make_room(self.cache, size, for_what=f"{self.url}/{name}")
                    part.touch()
                with disk_full(copy, needed=size):
                    self._download(name, part)
                part.replace(copy)
            finally:
                part.unlink(missing_ok=True)

    def _download(self, name: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        url, expected = f"{self.url}/{name}", int(self.files[name]["size"])
        system, inside = system_of(url)

        def read() -> None:
            _first_whole(lambda copy: system.get_file(inside, str(copy)), target)
            found = target.stat().st_size
            if found != expected:
                raise OSError(f"{found} of {expected} bytes")

        _persistently(url, read)


def hash_of(text: str) -> int:
    """A number that is the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _persistently(url: str, read: Any) -> Any:
    """What `read` returns; a storage that fails is asked three times."""
    for attempt in range(_ATTEMPTS):
        try:
            return read()
        except FileNotFoundError as error:
            raise DataError(f"{url}: expected a dataset's files, found nothing there. Check the address.") from error
        except Exception as error:  # every file system has errors of its own
            if isinstance(error, DataError) or getattr(error, "errno", None) in (28, 122):
                raise
            if attempt == _ATTEMPTS - 1:
                raise StorageError(
                    f"{url}: expected to fetch it, found {type(error).__name__}: {error}, {_ATTEMPTS} times. Check the "
                    "connection and the rights, then run this again: it goes on where it stopped."
                ) from error
            time.sleep(0.2 * 4**attempt)
    raise AssertionError


def _first_whole(fetch: Callable[[Path], None], target: Path) -> None:
    """Fetch into `target`; while nothing comes, ask up to three times at once, and take what is there first.

    Storage that answers at once but for one request in a thousand would else let every trainer wait for that one.
    """
    ended: queue.SimpleQueue[tuple[Path, Exception | None]] = queue.SimpleQueue()
    copies: list[Path] = []
    sizes: list[int] = []

    def run(copy: Path) -> None:
        try:
            fetch(copy)
        except Exception as error:  # whoever waits raises it
            ended.put((copy, error))
        else:
            ended.put((copy, None))

    def begin() -> None:
        copies.append(target.with_name(f"{len(copies) or ''}{target.name}"))  # counted by the cache, as `target` is
        threading.Thread(target=run, args=(copies[-1],), daemon=True).start()

    begin()
    try:
        while True:
            try:
                copy, error = ended.get(timeout=_PATIENCE)
                break
            except queue.Empty:
                before, sizes = sizes, [copy.stat().st_size if copy.exists() else 0 for copy in copies]
                if (sizes == before or not any(sizes)) and len(copies) < _ATTEMPTS:
                    begin()
        if error is not None:
            raise error
        copy.replace(target)
        copies.remove(target)
    finally:  # whoever is late writes into files without a name, and into none that is begun after it
        for late in copies:
            late.unlink(missing_ok=True)


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """One process, and one thread of it, at a time."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make_room(cache: FileCache, size: int, *, for_what: str) -> None:
    """Remove files not used for longest until `size` bytes more fit; what others are fetching counts in full."""
    if size > cache.limit:
        raise DataError(
            f"{for_what}: expected a file of at most {cache.limit / 1e9:.3g} GB, the size of the cache, found "
            f"{size / 1e9:.3g} GB. Set DREAMDOJO_CACHE_GB higher."
        )
    files, total = [], 0
    for path in (cache.folder / "files").rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            about = path.stat()
            if not path.is_file():
                continue
            if ".partial-" in path.name:
                process, reserved = path.name.rsplit("-", 2)[1:]
                if _runs(int(process)):
                    total += int(reserved)
                else:
                    path.unlink()
                continue
            total += about.st_size
            files.append((about.st_mtime_ns, about.st_size, path))
    for _, bytes_of, path in sorted(files):
        if total + size <= cache.limit:
            return
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # in use
                continue
            path.unlink()
            total -= bytes_of
    if total + size > cache.limit:
        raise CacheFullError(
            f"{for_what}: expected room for {size / 1e9:.3g} GB in the cache {cache.folder}, found {total / 1e9:.3g} "
            f"of {cache.limit / 1e9:.3g} GB in use. Set DREAMDOJO_CACHE_GB higher, or use fewer workers."
        )


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
