"""Which images the inputs of a command name: files, folders and globs."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from upscaler.errors import FileRefused
from upscaler.files import identity
from upscaler.formats import API_SUFFIXES

STDIO: Final = Path("-")
"""Standard input as a source, standard output as a target. See `file_path`."""


class Source(NamedTuple):
    """An image, and the folder of its result, relative to that of the output."""

    path: Path
    below: Path = Path()


@dataclass
class Inputs:
    """The images that a command names, each once, what it passes over, and what is refused.

    `output` is the folder of the results, which is not searched when it lies inside an input.
    With `is_default` it holds nothing but results, and is left out of several inputs as well: `*`
    and `**` match it. With `recursive` folders are searched at any depth; hidden
    folders and links to folders are not. With `pipes`, `-` is standard input. The images
    of a folder are those with one of `suffixes`.
    """

    output: Path
    is_default: bool = False
    recursive: bool = False
    pipes: bool = False
    suffixes: Sequence[str] = API_SUFFIXES
    sources: list[Source] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    refused: list[FileRefused] = field(default_factory=list)
    _known: set[Path] = field(default_factory=set)

    def collect(self, texts: Sequence[str]) -> None:
        """Add what the arguments `texts` name."""
        for text in texts:
            if self.pipes and text == "-":
                self._add(Source(STDIO))
            # Unlike Path's methods, these return False for what they may not look at.
            elif os.path.isdir(text):  # noqa: PTH112
                if len(texts) > 1 and self.is_default and self._is_output(text):
                    self.passed_over.append(text)
                else:
                    self._add_all(text, self._in_folder(text), "there is no image in this folder")
            elif os.path.isfile(text):  # noqa: PTH113
                self._add(Source(file_path(text)))
            else:
                self._add_all(text, self._matches(text), "there is no such image")

    def _add_all(self, text: str, sources: Iterator[Source], otherwise: str) -> None:
        """Add the sources that an argument names, or refuse it if there are none."""
        refused, empty = len(self.refused), True
        for source in sources:
            empty = False
            self._add(source)
        if empty and len(self.refused) == refused:
            self.refused.append(FileRefused(text, otherwise))

    def _add(self, source: Source) -> None:
        key = source.path.parent.resolve() / source.path.name
        if key not in self._known:
            self._known.add(key)
            self.sources.append(source)

    def _in_folder(self, root: str) -> Iterator[Source]:
        """The images in a folder, sorted, those of its own before those of folders in it."""
        for folder, folders, names in os.walk(root, onerror=self._refuse):
            for name in sorted(names):
                path = Path(folder, name)
                if is_image_name(name, self.suffixes) and os.path.isfile(path):  # noqa: PTH113
                    yield Source(path, path.parent.relative_to(root))
                else:
                    self.passed_over.append(str(path))
            inside = sorted(folders) if self.recursive else []
            folders.clear()
            for name in inside:
                path = Path(folder, name)
                if name.startswith(".") or path.is_symlink():
                    self.passed_over.append(f"{path}{os.sep}")
                elif not self._is_output(path):
                    folders.append(name)

    def _matches(self, pattern: str) -> Iterator[Source]:
        # Path.glob takes no absolute pattern.
        matches = map(file_path, sorted(glob.glob(pattern, recursive=True)))  # noqa: PTH207
        paths = [path for path in matches if path.is_file()]
        results = {path for path in paths if any(map(self._is_output, path.parents))}
        if self.is_default and len(results) < len(paths):
            self.passed_over += [str(path) for path in paths if path in results]
            paths = [path for path in paths if path not in results]
        yield from map(Source, paths)

    def _is_output(self, folder: str | Path) -> bool:
        return identity(Path(folder)) == identity(self.output)

    def _refuse(self, error: OSError) -> None:
        reason = error.strerror or "it cannot be read"
        self.refused.append(FileRefused(str(error.filename), reason))


def is_image_name(name: str, suffixes: Sequence[str]) -> bool:
    """Whether a file of a folder is an image, by its name.

    Macs write `._photo.jpg` beside `photo.jpg`, with what other disks have no place for.
    """
    return os.path.splitext(name)[1].lower() in suffixes and not name.startswith("._")  # noqa: PTH122


def file_path(text: str) -> Path:
    """The path of a file or folder; one that is called `-` is absolute, and so is not STDIO."""
    path = Path(text)
    return path.absolute() if path == STDIO else path
