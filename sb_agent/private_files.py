"""Files that hold credentials and keys: written whole or not at all, readable by nobody else."""

from __future__ import annotations

import os
import ssl
import tempfile
from pathlib import Path


def replace(path: Path, content: bytes) -> None:
    """Leave the content in the file, mode 0600, in a directory of mode 0700; safe against crashes.

    The temporary file is made exclusively, so nobody can put a link in its place.
    """
    temporary = _write_beside(path, content)
    try:
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def create(path: Path, content: bytes) -> bool:
    """Leave the content in a new file and return True; an existing file stays, and False says so.

    The file is complete from the moment it is there, also for another process that looks.
    """
    temporary = _write_beside(path, content)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    _sync_directory(path.parent)
    return True


def check_writable(path: Path) -> None:
    """Return when a file could be written there; OSError otherwise."""
    _write_beside(path, b"").unlink()


def unusable(path: Path, *, size: int | None = None) -> str | None:
    """Return why a file can neither be used nor made there, or None; nothing is made.

    A file that exists has to have the size.
    """
    try:
        if path.exists():
            return _unreadable(path, size)
        place = path.parent
        while not place.exists():
            place = place.parent
    except OSError as problem:
        return f"{path} cannot be used ({problem.strerror})"
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return None
    return f"{path} does not exist and cannot be made in {place}"


def _unreadable(path: Path, size: int | None) -> str | None:
    if not path.is_file() or not os.access(path, os.R_OK):
        return f"{path} cannot be read"
    if size is not None and path.stat().st_size != size:
        return f"{path} must hold exactly {size} bytes"
    return None


def no_authority(path: Path) -> str | None:
    """Return why the file cannot say whom to trust, or None."""
    if not path.is_file():
        return f"{path} is no file"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        return f"{path} holds no certificate in PEM"
    except OSError as problem:
        return f"{path} cannot be read ({problem.strerror})"
    return None


def is_private(path: Path) -> bool:
    """Tell whether nobody but the owner has any right on the file."""
    return path.stat().st_mode & 0o077 == 0


def _write_beside(path: Path, content: bytes) -> Path:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync_directory(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
