"""The names of results: which an image may have, and which of them are free."""

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from upscaler.errors import FileRefused
from upscaler.file_inputs import STDIO, is_image_name
from upscaler.files import identity, nearest_folder
from upscaler.formats import READ_SUFFIXES


class ResultNames:
    """The files of a batch's results, each with the source that has it.

    The file system of the results says which names are the same: one takes `A.png` for `a.png`,
    another two spellings of an accent. So each name is tried there, by an empty file in a temporary
    folder, which is removed in the end.
    """

    def __init__(self, folder: Path, trial: Path, sources: Sequence[Path]) -> None:
        self._folder = folder
        self._trial = trial
        self._sources = sources
        self._inputs = {identity(source): source for source in sources if source != STDIO}
        self._owners: dict[tuple[int, int] | Path, Path] = {}
        self._stems: dict[Path, Counter[str]] = {}

    @classmethod
    @contextmanager
    def within(cls, folder: Path, sources: Sequence[Path]) -> Iterator[Self]:
        """The names in `folder`, which need not be there yet, for the results of `sources`.

        Raises OSError if the folder takes no files.
        """
        there = nearest_folder(folder)
        try:
            trial = tempfile.TemporaryDirectory(prefix=".upscaler-", dir=there)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(there)) from error
        with trial as path:
            yield cls(folder, Path(path), sources)

    def take(self, source: Path, paths: Sequence[Path]) -> bool:
        """Give `paths` to `source`; return False if another image of its folder has one of them.

        Raises FileRefused if one of them is an input, or the result of an image in another folder,
        or cannot be the name of a file.
        """
        made: list[Path] = []
        for path in paths:
            try:
                rival = self._rival(source, path, made)
            except OSError as error:
                reason = f"its result cannot be called {path}: {error.strerror}"
                raise FileRefused(str(source), reason) from error
            if rival:
                if rival.parent == source.parent:
                    return False
                raise FileRefused(str(source), f"its result would overwrite the result of {rival}")
        for path in (*paths, *made):
            self._owners[identity(path)] = source
        return True

    def _rival(self, source: Path, path: Path, made: list[Path]) -> Path | None:
        """The source that has `path` already; None if it is free. Adds the file to try it with."""
        place = identity(path)  # which differs from the name where there is a link
        if place in self._inputs:
            overwritten = f"the input {self._inputs[place]}"
            raise FileRefused(str(source), f"its result would overwrite {overwritten}")
        trial = self._trial / path.relative_to(self._folder)
        trial.parent.mkdir(parents=True, exist_ok=True)
        try:
            trial.touch(exist_ok=False)
        except FileExistsError:
            # Without an owner it is a folder of results, or the target of this comparison.
            return self._owners.get(identity(trial), source)
        made.append(trial)
        return self._owners.get(place)

    def stems(self, source: Path, folder: Path, suffix: str) -> Iterator[str]:
        """The stems that the result of `source` may have, with `suffix` in `folder`.

        The first is that of the source. If its folder has several images of that stem, only one
        with the suffix of the result has it; others have theirs at its end, as `a-jpg.png`. So the
        name does not depend on which of them are selected. The others are for file systems to which
        further names are the same.
        """
        own = source.suffix[1:]
        same_suffix = source.suffix.lower() == suffix
        if same_suffix or not self._shares_stem(source, folder):
            yield source.stem
        if own and not same_suffix:
            yield f"{source.stem}-{own}"
        for number in range(2, len(self._sources) + 2):
            yield f"{source.stem}-{number}"

    def _shares_stem(self, source: Path, folder: Path) -> bool:
        """Whether the source's folder has other images of its stem.

        If results go to that folder, they would be among them, so there only inputs count.
        """
        if source.parent not in self._stems:
            if identity(source.parent) == identity(folder):
                names = [path.name for path in self._sources if path.parent == source.parent]
            else:
                names = _image_names(source.parent)
            self._stems[source.parent] = Counter(Path(name).stem for name in {*names, source.name})
        return self._stems[source.parent][source.stem] > 1


def _image_names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            names = [each.name for each in entries if each.is_file()]
    except PermissionError:  # one may read files in it, but not list them
        return []
    return [name for name in names if is_image_name(name, READ_SUFFIXES)]
