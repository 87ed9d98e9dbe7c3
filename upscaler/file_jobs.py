"""Which file a command reads and where its result goes, decided before any work is done."""

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from upscaler import files
from upscaler.errors import FileRefused
from upscaler.file_inputs import STDIO, Inputs, Source, file_path
from upscaler.file_names import ResultNames
from upscaler.files import MAX_FILE_BYTES, nearest_folder, printable
from upscaler.formats import API_SUFFIXES, FileFormat, ImageEncoding

DEFAULT_FOLDER: Final = "upscaled"
MOST_NAMED: Final = 10
"""How many names a line lists before it only counts them."""


@dataclass(frozen=True)
class FileJob:
    """One image to upscale, from `source` to `target`; either may be STDIO.

    `comparison` is the path of the before/after image, if one is wanted.
    """

    source: Path
    target: Path
    comparison: Path | None = None

    @property
    def targets(self) -> list[Path]:
        """All files that it writes."""
        return [self.target, *([self.comparison] if self.comparison else [])]

    def read(self, most_bytes: int = MAX_FILE_BYTES) -> bytes:
        """Read the source. Raises FileRefused as `files.read_image_file` does."""
        if self.source == STDIO:
            return files.read_stdin(most_bytes)
        return files.read_image_file(self.source, most_bytes)

    def is_current(self) -> bool:
        """Whether its results are there, in files that are not older than `source`.

        A result gets its name when it is complete, so one that is there is not a part.
        """
        if STDIO in (self.source, self.target):
            return False
        try:
            read = self.source.stat()
            made = [path.stat() for path in self.targets]
        except OSError:
            return False
        return all(stat.S_ISREG(s.st_mode) and s.st_mtime_ns >= read.st_mtime_ns for s in made)


@dataclass(frozen=True)
class Batch:
    """The jobs of a command, and the inputs that it refuses, each with the reason.

    `passed_over` names what folders hold beside images. `continues` says whether results that are
    current may be left as they are. They may not if one image was named on its own: then nothing
    was interrupted, and whoever repeats such a command wants another result.
    """

    jobs: Sequence[FileJob]
    encoding: FileFormat
    refused: Sequence[FileRefused]
    passed_over: Sequence[str] = ()
    continues: bool = False

    def passed_over_text(self) -> str:
        """The line that counts what was passed over, and names the first MOST_NAMED."""
        number = len(self.passed_over)
        noun = "file that is no image" if number == 1 else "files that are no images"
        return f"passed over {number} {noun} of a kind that is read: {listing(self.passed_over)}"


def plan_files(
    inputs: Iterable[str],
    output: str | None,
    encoding: FileFormat | None,
    *,
    before_after: bool = False,
    recursive: bool = False,
    pipes: bool = False,
    suffixes: Sequence[str] = API_SUFFIXES,
    formats: Iterable[FileFormat] = tuple(ImageEncoding),
) -> Batch:
    """Decide which file is written where, before any work is done.

    `inputs` are files, globs and folders: the images directly in them, or with `recursive` at any
    depth, whose folders are kept below the output's. `output` is a folder if there is one, if it
    ends with a slash and if it has no suffix, by default `upscaled`; else the file of the only
    result. With `before_after` each result has a comparison beside it. With `pipes`, `-` is
    standard input or output, and an input `-` alone goes to standard output by default. The images
    of a folder have one of `suffixes`, and a result that is named one of those of `formats`.

    A result has the stem of its source, or one that `ResultNames.stems` makes of it. No input is
    overwritten, and no two results have the same file. Raises FileRefused if `output` cannot be
    written as asked, and OSError if its folder takes no files.
    """
    texts = list(inputs)
    named = len(texts) == 1 and (texts == ["-"] or os.path.isfile(texts[0]))  # noqa: PTH113
    if output is None and pipes and texts == ["-"]:
        output = "-"
    place = _parse_output(output, encoding, formats, pipes=pipes)
    found = Inputs(
        place.folder,
        is_default=output is None,
        recursive=recursive,
        pipes=pipes,
        suffixes=suffixes,
    )
    found.collect(texts)
    if place.file and len(found.sources) + len(found.refused) > 1:
        name = "standard output" if place.file == STDIO else str(place.file)
        raise FileRefused(name, "that is one file, for more than one image")
    if place.file == STDIO:
        if before_after:
            raise FileRefused("standard output", "it has no place for a comparison: use -o")
        jobs = [FileJob(source.path, STDIO) for source in found.sources]
    else:
        jobs = _jobs(found, place, before_after=before_after)
    passed_over = tuple(found.passed_over)
    return Batch(jobs, place.encoding, found.refused, passed_over, continues=not named)


@dataclass(frozen=True)
class _Output:
    """Where results go: all into `folder`, or the only one to `file`, which is in it or STDIO."""

    folder: Path
    encoding: FileFormat
    file: Path | None = None


def _parse_output(
    text: str | None, encoding: FileFormat | None, formats: Iterable[FileFormat], *, pipes: bool
) -> _Output:
    """Where the option `text` puts results. Raises FileRefused if they cannot be there."""
    if pipes and text == "-":
        return _Output(Path(), encoding or ImageEncoding.PNG, STDIO)
    if text == "":
        raise FileRefused("''", "that is no name for a file or a folder")
    path = file_path(DEFAULT_FOLDER if text is None else text)
    # A Path has no slash at its end any more, nor a dot.
    ends_as_folder = os.path.basename(text or "") in ("", ".", "..")  # noqa: PTH119
    if ends_as_folder or not path.suffix or os.path.isdir(path):  # noqa: PTH112
        _check_output(path, path)
        return _Output(path, encoding or ImageEncoding.PNG)
    _check_output(path, path.parent)
    return _Output(path.parent, _encoding_by_name(path, encoding, formats), path)


def _check_output(output: Path, folder: Path) -> None:
    """Raise FileRefused on `output` unless `folder` is writable or can be created."""
    there = nearest_folder(folder)
    if not there.is_dir():
        raise FileRefused(str(output), f"{there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise FileRefused(str(output), f"{there} is not yours to write to")


def _encoding_by_name(
    path: Path, asked: FileFormat | None, formats: Iterable[FileFormat]
) -> FileFormat:
    """The format of the result `path`, by its suffix; raises FileRefused if `asked` differs."""
    by_suffix = {suffix: name for name in formats for suffix in name.suffixes}
    named = by_suffix.get(path.suffix.lower())
    if named is None:
        raise FileRefused(
            str(path), f"results are called {', '.join(by_suffix)}, and a folder ends with /"
        )
    if asked not in (None, named):
        raise FileRefused(str(path), f"that is not the name of a {asked} file")
    return named


def listing(names: Sequence[str]) -> str:
    """The first MOST_NAMED of `names` as they can be printed, and how many more there are."""
    more = len(names) - MOST_NAMED
    return ", ".join(map(printable, names[:MOST_NAMED])) + (f" and {more} more" if more > 0 else "")


def _jobs(found: Inputs, output: _Output, *, before_after: bool) -> list[FileJob]:
    """A job for each source; adds those to the refused ones of `found` that can have none."""
    jobs: dict[Source, FileJob | FileRefused] = {}
    # First those that need no other suffix: of `A.jpg` and `a.png`, the second keeps its name on a
    # disk to which they are the same.
    first = sorted(found.sources, key=lambda source: not _has_suffix(source.path, output.encoding))
    with ResultNames.within(output.folder, [source.path for source in found.sources]) as names:
        for source in first:
            try:
                jobs[source] = _job(source, output, names, before_after)
            except FileRefused as refusal:
                jobs[source] = refusal
    in_order = [jobs[source] for source in found.sources]
    found.refused += [each for each in in_order if isinstance(each, FileRefused)]
    return [each for each in in_order if isinstance(each, FileJob)]


def _has_suffix(path: Path, encoding: FileFormat) -> bool:
    return path.suffix.lower() == encoding.suffixes[0]


def _job(source: Source, output: _Output, names: ResultNames, before_after: bool) -> FileJob:
    """The job for a source, by the first of its names that is free."""
    folder = output.folder / source.below
    if output.file:
        stems: Iterable[str] = [output.file.stem]
        suffix = output.file.suffix
    else:
        suffix = output.encoding.suffixes[0]
        named = Path("stdin") if source.path == STDIO else source.path
        stems = names.stems(named, folder, suffix)
    for stem in stems:
        comparison = folder / f"{stem}-before-after{suffix}" if before_after else None
        job = FileJob(source.path, folder / f"{stem}{suffix}", comparison)
        if names.take(source.path, job.targets):
            return job
    raise FileRefused(str(source.path), f"no name is free for its result in {folder}")
