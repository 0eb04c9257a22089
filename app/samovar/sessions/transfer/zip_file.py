"""The files with chats in a zip archive, unpacked to temporary files: of ChatGPT and llama.cpp's page."""

import contextlib
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Final

from samovar.core.errors import SamovarError
from samovar.core.units import format_size

MAGIC: Final = b"PK\x03\x04"
MAX_UNPACKED_BYTES: Final = 4 << 30
"""The most that is unpacked of one archive: more is a trap, or would fill the temporary folder."""
_MAX_MEMBERS: Final = 100_000
_MAX_FILES: Final = 20_000
_CHUNK_BYTES: Final = 1 << 20
_WANTED: Final = re.compile(r"(?!__MACOSX/)(.*/)?(conversations(-\d+)?\.json|[^/]*\.jsonl)", re.DOTALL)


class ZipFile:
    """An open archive. `members` are the files with chats in it, by name."""

    def __init__(self, file: IO[bytes], cleanup: contextlib.ExitStack) -> None:
        """The archive is read from `file` until `cleanup` closes."""
        with _explained():
            self._archive = cleanup.enter_context(zipfile.ZipFile(file))
        infos = self._archive.infolist()
        wanted = [info for info in infos if not info.is_dir() and _WANTED.fullmatch(info.filename)]
        if len(infos) > _MAX_MEMBERS or len(wanted) > _MAX_FILES:
            raise SamovarError("the archive has too many files")
        self.members = tuple(sorted(wanted, key=lambda info: info.filename))
        self._num_left = MAX_UNPACKED_BYTES
        if sum(info.file_size for info in wanted) > MAX_UNPACKED_BYTES:
            raise _too_large()
        self.num_bytes = sum(info.file_size for info in wanted)

    def unpacked(self, member: zipfile.ZipInfo) -> IO[bytes]:
        """The member as a temporary file without a name, which is gone when it is closed."""
        unpacked = tempfile.TemporaryFile(prefix="samovar-import-")  # noqa: SIM115 - the caller closes it
        try:
            with _explained(), self._archive.open(member) as packed:
                while chunk := packed.read(_CHUNK_BYTES):
                    self._num_left -= len(chunk)  # what the archive says of its sizes may be wrong
                    if self._num_left < 0:
                        raise _too_large()
                    unpacked.write(chunk)
            unpacked.flush()
        except BaseException:
            unpacked.close()
            raise
        return unpacked


def _too_large() -> SamovarError:
    return SamovarError(f"the archive unpacks to more than {format_size(MAX_UNPACKED_BYTES)}")


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, UnicodeDecodeError, ValueError) as error:
        raise SamovarError(f"the archive is damaged ({error})") from error
    except (NotImplementedError, RuntimeError) as error:  # packed in a way of its own, or with a password
        raise SamovarError(f"the archive cannot be unpacked ({error})") from error
