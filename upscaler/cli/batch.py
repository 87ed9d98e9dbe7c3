"""A batch of `upscaler image`: each image is upscaled, left or failed, and the end says so."""

import errno
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from PIL import Image

from upscaler.api.sizes import Size
from upscaler.cli.output import error_text, fail, note, say
from upscaler.errors import FileRefused, Unauthorized, Unreachable
from upscaler.file_inputs import STDIO
from upscaler.file_jobs import Batch, FileJob, listing
from upscaler.files import STDOUT, printable
from upscaler.imaging.decode import pixel_limit
from upscaler.imaging.other_formats import MAX_PIXELS

INTERRUPTED: Final = 128 + 2
"""The exit status of an interrupted process, by the convention of shells: 128 + SIGINT."""
NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""The errors of a disk that takes no other result either."""


def check_stdout(batch: Batch, *, as_json: bool) -> None:
    """Raise FileRefused if an image is to go to standard output and cannot."""
    if all(job.target != STDIO for job in batch.jobs):
        return
    if as_json:
        raise FileRefused(STDOUT, "it has the image, and no room for --json: use -o FILE")
    if sys.stdout is None or sys.stdout.isatty():
        raise FileRefused(STDOUT, "it is a terminal or closed: redirect it, or use -o FILE")


@dataclass
class BatchRun:
    """The work on `batch`, and what became of it.

    `measure` returns the size that a result should have. With `again`, results that are there are
    made anew. `is_stopped` says that no other image can succeed either.
    """

    batch: Batch
    measure: Callable[[FileJob], Size]
    as_json: bool
    again: bool
    upscaled: int = 0
    left: int = 0
    failures: list[str] = field(default_factory=list)
    not_done: Sequence[FileJob] = ()
    is_stopped: bool = False

    def run(self, upscale: Callable[[FileJob], dict[str, Any]]) -> int:
        """Upscale the images in order by `upscale`; return the exit status as `run_by` does."""

        def work() -> None:
            for number, job in enumerate(self.batch.jobs, 1):
                with self.attempt(job):
                    if not self.leaves(job):
                        self.report(job, upscale(job))
                if self.is_stopped:
                    self.stop(self.batch.jobs[number:])
                    break

        return self.run_by(work)

    def run_by(self, work: Callable[[], None]) -> int:
        """Let `work` make the images, each in an `attempt`, unless it `leaves` it, and `report` it.

        Returns the exit status: 0, 1 if one failed, 130 if interrupted. Raises OSError, with STDOUT
        as its filename, if standard output cannot be written.
        """
        interrupted = False
        try:
            for refusal in self.batch.refused:
                self._fail(refusal.path, refusal, named=True)
            work()
        except KeyboardInterrupt:
            interrupted = True
        return self._end(interrupted)

    @contextmanager
    def attempt(self, job: FileJob) -> Iterator[None]:
        """Keep what goes wrong in the block as the failure of an image."""
        try:
            yield
        except OSError as error:
            if error.filename == STDOUT:
                raise
            of_target = error.filename in [str(path) for path in job.targets]
            self._fail(str(job.source), error, named=of_target)
            self.is_stopped |= of_target and error.errno in NO_ROOM
        except Exception as error:  # any error: one image must not stop the others
            self._fail(str(job.source), error, named=isinstance(error, FileRefused))
            self.is_stopped |= isinstance(error, Unauthorized | Unreachable)

    def leaves(self, job: FileJob) -> bool:
        """Whether the result of an image is there, and is to stay; then it says so."""
        size = self._size_there(job) if self.batch.continues and not self.again else None
        if size is not None:
            self._report_left(job, size)
            self.left += 1
        return size is not None

    def _size_there(self, job: FileJob) -> Size | None:
        """The size of the result if it is there, current, and of the size that is asked for."""
        if not job.is_current():
            return None
        try:
            size = self.measure(job)
            with pixel_limit(MAX_PIXELS):
                result = Image.open(job.target, formats=[self.batch.encoding.upper()])
            with result:
                return size if result.size == size else None
        except Exception:  # whatever it is, upscaling the image finds it again and says so
            return None

    def report(self, job: FileJob, result: dict[str, Any]) -> None:
        """Print that an image is upscaled: with `--json`, `result`."""
        self.upscaled += 1  # before it is said, so that an interruption counts what was
        if job.target == STDIO:  # which has the image, and nothing else
            return
        if self.as_json:
            say(json.dumps(result))
            return
        line = "{input} -> {output} ({width}x{height}, {model}, {seconds:.1f} s)"
        say(printable(line.format_map(result)))
        if job.comparison:
            say(printable(f"  before and after: {job.comparison}"))

    def _report_left(self, job: FileJob, size: Size) -> None:
        if self.as_json:
            width, height = size
            facts = {"input": str(job.source), "output": str(job.target)}
            say(json.dumps({**facts, "width": width, "height": height, "left": True}))

    def _fail(self, path: str, error: Exception, *, named: bool) -> None:
        """Keep the failure of an image as a line for the end; with `--json`, print it too.

        `named` says that the error names a file itself: its target, for a fault that is not the
        input's.
        """
        text = error_text(error)
        if self.as_json:
            say(json.dumps({"input": path, "error": text}))
        self.failures.append(text if named else f"{printable(path)}: {text}")

    def stop(self, rest: Sequence[FileJob]) -> None:
        """Leave the rest, whose results could not be written either."""
        self.not_done = rest
        if self.as_json:
            for job in rest:
                say(json.dumps({"input": str(job.source), "error": "not done: see the one before"}))

    def _end(self, interrupted: bool) -> int:
        """Say what was not upscaled, and why; return the exit status."""
        total = len(self.batch.jobs) + len(self.batch.refused)
        if self.batch.passed_over:
            note(self.batch.passed_over_text())
        if self.left:
            note(
                f"left {self.left} of {total}, whose results exist, are not older than the image, "
                "and have the requested size (--again repeats them)"
            )
        if self.failures:
            note("\n  ".join([f"{len(self.failures)} of {total} failed:", *self.failures]))
        if self.not_done:
            names = listing([str(job.source) for job in self.not_done])
            note(f"stopped there, and {len(self.not_done)} of {total} not done: {names}")
        if interrupted:
            text = f"interrupted: {self.upscaled + self.left} of {total} are done"
            go_on = "; run the same command again to continue" if self.batch.continues else ""
            return fail(text + go_on, INTERRUPTED)
        return int(bool(self.failures))
