"""Which results a command writes, for the files and folders that it is given."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.properties import examples
from upscaler.errors import FileRefused
from upscaler.file_jobs import Batch, FileJob, plan_files
from upscaler.formats import ImageEncoding

PNG, JPEG = ImageEncoding.PNG, ImageEncoding.JPEG


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)


def make(*paths: str) -> None:
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(path))


def planned(
    *inputs: str,
    output: str | None = None,
    encoding: ImageEncoding | None = None,
    before_after: bool = False,
    recursive: bool = False,
    pipes: bool = False,
) -> Batch:
    return plan_files(
        inputs, output, encoding, before_after=before_after, recursive=recursive, pipes=pipes
    )


def sources(batch: Batch) -> list[str]:
    return [str(job.source) for job in batch.jobs]


def targets(batch: Batch) -> list[str]:
    return [str(job.target) for job in batch.jobs]


def refused(batch: Batch) -> list[str]:
    return [refusal.path for refusal in batch.refused]


def test_a_picture_goes_into_the_folder_upscaled_as_png() -> None:
    make("in/a.jpg")
    assert planned("in/a.jpg") == Batch(
        [FileJob(Path("in/a.jpg"), Path("upscaled/a.png"))], PNG, []
    )


def test_planning_makes_and_changes_nothing() -> None:
    make("a.png")
    planned("a.png", output="out/there")
    assert sorted(map(str, Path().rglob("*"))) == ["a.png"]
    assert Path("a.png").read_text() == "a.png"


def test_several_pictures_keep_their_order() -> None:
    make("b.png", "a.png", "c.png")
    batch = planned("b.png", "c.png", "a.png", output="out")
    assert targets(batch) == ["out/b.png", "out/c.png", "out/a.png"]


def test_no_input_is_no_job() -> None:
    assert (targets(planned()), refused(planned())) == ([], [])


@pytest.mark.parametrize(("encoding", "name"), [(None, "a.png"), (PNG, "a.png"), (JPEG, "a.jpg")])
def test_the_encoding_gives_the_suffix(encoding: ImageEncoding | None, name: str) -> None:
    make("a.webp")
    batch = planned("a.webp", output="out", encoding=encoding)
    assert targets(batch) == [f"out/{name}"]
    assert batch.encoding is (encoding or PNG)


def test_only_the_last_suffix_is_replaced() -> None:
    make("a.b.jpg", "c")
    assert targets(planned("a.b.jpg", "c")) == ["upscaled/a.b.png", "upscaled/c.png"]


def test_a_folder_stands_for_the_pictures_in_it_sorted() -> None:
    make("in/b.png", "in/a.JPG", "in/d.Jpeg", "in/c.WebP", "in/e.jfif", "in/f.jpe", "in/g.PJPEG")
    make("in/notes.txt", "in/raw.xcf", "in/png", "in/folder.png/e.png", "in/deeper/f.png")
    names = ["a.JPG", "b.png", "c.WebP", "d.Jpeg", "e.jfif", "f.jpe", "g.PJPEG"]
    assert sources(planned("in")) == [f"in/{name}" for name in names]


def test_a_folder_without_a_picture_is_refused() -> None:
    make("in/notes.txt", "in/deeper/a.png")
    assert refused(planned("in")) == ["in"]


def test_a_file_named_on_its_own_may_be_called_anything() -> None:
    make("scan.0001")
    assert sources(planned("scan.0001")) == ["scan.0001"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.png", ["a.png", "b.png"]),
        ("?.jpg", ["c.jpg"]),
        ("[ab].*", ["a.png", "b.png"]),
        ("in/*.png", ["in/d.png"]),
        ("**/*.png", ["a.png", "b.png", "in/d.png", "in/deep/e.png"]),
        ("in/**", ["in/d.png", "in/deep/e.png"]),
    ],
)
@pytest.mark.parametrize("absolute", [False, True])
def test_a_glob_stands_for_the_files_it_matches_sorted(
    pattern: str, found: list[str], absolute: bool
) -> None:
    make("b.png", "a.png", "c.jpg", "in/d.png", "in/deep/e.png")
    root = f"{Path.cwd()}/" if absolute else ""
    assert sources(planned(root + pattern, output="out")) == [root + path for path in found]


@pytest.mark.parametrize("text", ["in", "in/*", "in/**"])
def test_many_pictures_come_in_order(text: str) -> None:
    names = [f"in/{number * 37 % 100:02}.png" for number in range(100)]
    make(*names)
    assert sources(planned(text)) == sorted(names)


def test_a_name_with_brackets_is_a_name_first() -> None:
    make("a[1].png", "a1.png")
    assert sources(planned("a[1].png")) == ["a[1].png"]
    assert sources(planned("a[12].png")) == ["a1.png"]


@pytest.mark.parametrize(
    "missing",
    [
        "missing.png",
        "*.gif",
        "a.png/b.png",
        "loop.png",
        "dangling.png",
        "folder.gi?",
        pytest.param("x" * 300 + ".png", id="a name no file can have"),
    ],
)
def test_a_path_that_is_not_there_is_refused_by_name_and_the_others_go_on(missing: str) -> None:
    make("a.png", "b.png", "folder.gif/c.png")
    Path("loop.png").symlink_to("loop.png")
    Path("dangling.png").symlink_to("nothing.png")
    batch = planned("a.png", missing, "b.png")
    assert sources(batch) == ["a.png", "b.png"]
    assert refused(batch) == [missing]
    assert str(batch.refused[0]) == f"{missing}: there is no such image"


@pytest.mark.parametrize(
    "inputs",
    [
        ("a.png", "a.png"),
        ("a.png", "./a.png"),
        (".", "a.png"),
        ("*.png", "a.png", "?.png"),
        ("in/../a.png", "a.png"),
        ("a.png", "{here}/a.png"),
        (".", "{here}"),
        ("in/b.png", "link/b.png"),
    ],
)
def test_a_picture_named_twice_is_done_once(inputs: Iterable[str]) -> None:
    make("a.png", "in/b.png")
    Path("link").symlink_to("in")
    batch = planned(*(text.format(here=Path.cwd()) for text in inputs))
    assert len(batch.jobs) == 1
    assert refused(batch) == []


def test_a_picture_named_twice_may_go_to_one_file() -> None:
    make("a.png")
    assert targets(planned("a.png", "./a.png", output="b.png")) == ["b.png"]


def test_a_link_under_another_name_is_a_picture_of_its_own() -> None:
    make("a.png")
    Path("soft.png").symlink_to("a.png")
    Path("hard.png").hardlink_to("a.png")
    batch = planned("a.png", "soft.png", "hard.png")
    assert targets(batch) == ["upscaled/a.png", "upscaled/soft.png", "upscaled/hard.png"]


@pytest.mark.parametrize(
    ("inputs", "output", "encoding"),
    [
        (["a.png"], ".", None),
        (["a.jpg"], ".", JPEG),
        (["a.png"], "a.png", None),
        (["a.png"], "in/../a.png", None),
        (["in/b.png"], "in", None),
        (["in/b.png"], "folder-link", None),
        (["folder-link/b.png"], "in", None),
        (["a.png"], "soft.png", None),
        (["a.png"], "hard.png", None),
        (["soft.png"], "a.png", None),
        (["other/a.jpg", "a.png"], ".", None),
        (["other/a.jpg", "dangling.png"], "landing", None),
    ],
)
def test_no_input_is_ever_a_target(
    inputs: list[str], output: str, encoding: ImageEncoding | None
) -> None:
    make("a.png", "a.jpg", "in/b.png", "other/a.jpg", "landing/a.png")
    Path("folder-link").symlink_to("in")
    Path("soft.png").symlink_to("a.png")
    Path("hard.png").hardlink_to("a.png")
    Path("dangling.png").symlink_to("landing/a.png")
    batch = planned(*inputs, output=output, encoding=encoding)
    assert len(batch.jobs) < len(inputs)
    for job in batch.jobs:
        assert not any(job.target.exists() and job.target.samefile(path) for path in inputs)
    assert "overwrite the input" in str(batch.refused[0])


def test_the_refusal_names_the_input_that_would_be_overwritten() -> None:
    make("x/a.jpg", "a.png")
    batch = planned("x/a.jpg", "a.png", output=".")
    assert str(batch.refused[0]) == "x/a.jpg: its result would overwrite the input a.png"


def test_a_folder_may_hold_both_input_and_result_under_another_suffix() -> None:
    make("a.jpg")
    assert targets(planned("a.jpg", output=".")) == ["a.png"]


def test_an_earlier_result_may_be_replaced() -> None:
    make("a.png", "upscaled/a.png")
    assert targets(planned("a.png")) == ["upscaled/a.png"]


def test_no_two_pictures_of_different_folders_share_a_result() -> None:
    make("a.png", "in/a.png")
    batch = planned("a.png", "in/a.png")
    assert batch.jobs == [FileJob(Path("a.png"), Path("upscaled/a.png"))]
    assert refused(batch) == ["in/a.png"]
    assert str(batch.refused[0]).endswith("would overwrite the result of a.png")


def test_no_two_results_share_a_file_through_a_link() -> None:
    make("a.png", "b.png", "upscaled/a.png")
    Path("upscaled/b.png").symlink_to("a.png")
    assert targets(planned("a.png", "b.png")) == ["upscaled/a.png", "upscaled/b-2.png"]


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        *[("b.png", PNG), ("b.PNG", PNG), ("b.jpg", JPEG), ("b.jpeg", JPEG), ("new/b.Jpg", JPEG)],
        *[("b.jfif", JPEG), ("b.JPE", JPEG)],
    ],
)
@pytest.mark.parametrize("asked", [True, False])
def test_an_output_with_a_suffix_is_the_file_and_sets_the_encoding(
    name: str, encoding: ImageEncoding, asked: bool
) -> None:
    make("a.png")
    batch = planned("a.png", output=name, encoding=encoding if asked else None)
    assert batch == Batch([FileJob(Path("a.png"), Path(name))], encoding, [])


@pytest.mark.parametrize(("name", "encoding"), [("b.png", JPEG), ("b.jpg", PNG), ("b.jpeg", PNG)])
def test_an_output_that_contradicts_the_encoding_is_refused(
    name: str, encoding: ImageEncoding
) -> None:
    make("a.png")
    with pytest.raises(FileRefused, match=f"{name}.*{encoding}"):
        planned("a.png", output=name, encoding=encoding)


@pytest.mark.parametrize("name", ["b.xcf", "v1.5", "b.png.bak"])
def test_an_output_with_another_suffix_is_refused_with_those_that_are_not(name: str) -> None:
    make("a.png")
    with pytest.raises(FileRefused, match=rf"{name}.*\.jpg.*\.jpeg.*\.png.*ends with /"):
        planned("a.png", output=name)


@pytest.mark.parametrize("inputs", [["a.png", "b.png"], ["*.png"], ["."], ["a.png", "missing.png"]])
def test_one_output_file_for_several_pictures_is_refused(inputs: list[str]) -> None:
    make("a.png", "b.png")
    with pytest.raises(FileRefused, match=r"out\.png"):
        planned(*inputs, output="out.png")


def test_one_output_file_for_a_folder_of_one_picture_is_fine() -> None:
    make("in/a.png", "in/notes.txt")
    assert targets(planned("in", output="out.jpg")) == ["out.jpg"]


def test_an_existing_folder_with_a_dot_in_its_name_is_a_folder() -> None:
    make("a.png", "b.png")
    Path("v1.png").mkdir()
    batch = planned("a.png", "b.png", output="v1.png", encoding=JPEG)
    assert targets(batch) == ["v1.png/a.jpg", "v1.png/b.jpg"]


@pytest.mark.parametrize("slash", ["/", "/.", "/new/.."])
def test_an_output_that_ends_as_a_folder_is_one(slash: str) -> None:
    make("a.png", "b.png")
    batch = planned("a.png", "b.png", output=f"big-v1.5{slash}")
    assert [os.path.normpath(target) for target in targets(batch)] == [
        "big-v1.5/a.png",
        "big-v1.5/b.png",
    ]


def test_an_empty_output_is_refused() -> None:
    """As a shell makes it of a variable that is not set."""
    make("a.png")
    with pytest.raises(FileRefused, match="no name"):
        planned("a.png", output="")


@pytest.mark.parametrize("output", ["notes", "notes/deeper", "notes/b.png", "loop"])
def test_an_output_that_cannot_be_made_is_refused_by_name(output: str) -> None:
    make("a.png", "notes")
    Path("loop").symlink_to("loop")
    with pytest.raises(FileRefused, match=output):
        planned("a.png", output=output)


def test_what_is_no_picture_in_a_folder_is_passed_over_and_named() -> None:
    make("in/a.png", "in/._a.png", "in/._b.jpg", "in/.DS_Store", "in/Thumbs.db", "in/b.txt")
    Path("in/gone.png").symlink_to("nothing.png")
    os.mkfifo("in/pipe.png")
    batch = planned("in")
    assert sources(batch) == ["in/a.png"]
    assert refused(batch) == []
    names = [".DS_Store", "._a.png", "._b.jpg", "Thumbs.db", "b.txt", "gone.png", "pipe.png"]
    assert list(batch.passed_over) == [f"in/{name}" for name in names]
    assert batch.passed_over_text() == (
        "passed over 7 files that are no images of a kind that is read: "
        + ", ".join(batch.passed_over)
    )


def test_of_many_that_are_passed_over_the_first_are_named() -> None:
    make("in/a.png", *(f"in/{number:02}.txt" for number in range(12)))
    assert planned("in").passed_over_text().endswith("in/08.txt, in/09.txt and 2 more")


def test_a_picture_may_be_called_as_a_mac_calls_its_remarks_if_it_is_named() -> None:
    make("._a.png")
    assert sources(planned("._a.png")) == ["._a.png"]


def test_recursive_keeps_the_tree_below_the_output() -> None:
    make("in/b.png", "in/x/a.jpg", "in/x/y/a.jpg", "in/z/b.png", "in/z/notes.txt", "c.png")
    batch = planned("in", "c.png", output="out", recursive=True)
    assert [(str(job.source), str(job.target)) for job in batch.jobs] == [
        ("in/b.png", "out/b.png"),
        ("in/x/a.jpg", "out/x/a.png"),
        ("in/x/y/a.jpg", "out/x/y/a.png"),
        ("in/z/b.png", "out/z/b.png"),
        ("c.png", "out/c.png"),
    ]
    assert list(batch.passed_over) == ["in/z/notes.txt"]


def test_recursive_enters_no_hidden_folder_and_no_link_and_says_so() -> None:
    make("in/a.png", "in/.git/b.png", "in/x/c.png", "elsewhere/d.png")
    Path("in/x/loop").symlink_to("..")
    Path("in/x/out").symlink_to("../../elsewhere")
    batch = planned("in", recursive=True)
    assert sources(batch) == ["in/a.png", "in/x/c.png"]
    assert list(batch.passed_over) == ["in/.git/", "in/x/loop/", "in/x/out/"]


@pytest.mark.parametrize(("output", "folder"), [(None, "upscaled"), ("x/big", "x/big")])
def test_the_output_inside_an_input_is_not_searched(output: str | None, folder: str) -> None:
    make("a.png", "x/b.png", f"{folder}/a.png", f"{folder}/x/b.png")
    batch = planned(".", output=output, recursive=True)
    assert targets(batch) == [f"{folder}/a.png", f"{folder}/x/b.png"]
    assert refused(batch) == list(batch.passed_over) == []


def test_the_default_output_among_the_inputs_is_passed_over() -> None:
    """As a shell puts it there that expands `*` a second time."""
    make("a.png", "b.jpg", "upscaled/a.png", "upscaled/b.png")
    batch = planned("a.png", "b.jpg", "upscaled")
    assert targets(batch) == ["upscaled/a.png", "upscaled/b.png"]
    assert (refused(batch), list(batch.passed_over)) == ([], ["upscaled"])
    make("upscaled/c.jpg")
    assert "upscaled/c.jpg" in sources(planned("upscaled"))


def test_a_glob_passes_over_the_default_output_unless_it_matches_nothing_else() -> None:
    make("a.png", "x/b.jpg", "upscaled/a.png", "upscaled/x/c.png")
    batch = planned("**/*.*")
    assert targets(batch) == ["upscaled/a.png", "upscaled/b.png"]
    assert list(batch.passed_over) == ["upscaled/a.png", "upscaled/x/c.png"]
    assert sources(planned("upscaled/**/c.png")) == ["upscaled/x/c.png"]


def test_an_output_that_was_chosen_may_hold_pictures_of_ones_own() -> None:
    make("x/a.png", "album/a.png")
    batch = planned("x", "album", output="album")
    assert targets(batch) == []
    assert all("overwrite the input album/a.png" in str(refusal) for refusal in batch.refused)


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        (PNG, ["a-JPG.png", "a-jpeg.png", "a.png", "a-webp.png", "b.png"]),
        (JPEG, ["a.jpg", "a-jpeg.jpg", "a-png.jpg", "a-webp.jpg", "b.jpg"]),
    ],
)
def test_pictures_of_one_stem_have_results_of_their_own(
    encoding: ImageEncoding, names: list[str]
) -> None:
    make("in/a.png", "in/a.JPG", "in/a.jpeg", "in/a.webp", "in/b.jpg", "in/b.txt")
    expected = [f"upscaled/{name}" for name in names]
    assert targets(planned("in", encoding=encoding)) == expected


def test_a_result_is_called_the_same_whichever_others_are_chosen() -> None:
    make("in/a.png", "in/a.jpg", "in/a.webp")
    together = dict(zip(sources(planned("in")), targets(planned("in")), strict=True))
    for source, target in together.items():
        assert targets(planned(source)) == [target]
    assert targets(planned(*reversed(together))) == [*reversed(together.values())]


@pytest.mark.parametrize("output", [".", "in"])
def test_a_result_beside_its_picture_does_not_change_its_name(output: str) -> None:
    """The second time, `a.jpg` has `a.png` beside it, which is its own result."""
    make("in/a.jpg", "a.jpg")
    source = "a.jpg" if output == "." else "in/a.jpg"
    first = targets(planned(source, output=output))
    make(*first)
    assert targets(planned(source, output=output)) == first == [source.replace("jpg", "png")]


def test_a_picture_that_is_called_as_anothers_result_has_another() -> None:
    make("in/a.jpg", "in/a.png", "in/a-jpg.png")
    assert targets(planned("in")) == ["upscaled/a-jpg.png", "upscaled/a-2.png", "upscaled/a.png"]


def test_a_comparison_is_in_the_way_of_no_result() -> None:
    make("in/a.png", "in/a-before-after.png")
    jobs = planned("in", before_after=True).jobs
    assert [(str(job.target), str(job.comparison)) for job in jobs] == [
        ("upscaled/a-before-after.png", "upscaled/a-before-after-before-after.png"),
        ("upscaled/a-2.png", "upscaled/a-2-before-after.png"),
    ]


def a_disk_that(same: Callable[[str], str], patch: pytest.MonkeyPatch) -> None:
    """Let files be on a disk to which names are one if `same` makes the same of them.

    All but those in the folder `in`.
    """

    def here(path: str) -> str:
        folder, name = os.path.split(path)
        if name in ("", ".", "..") or path.split("/", maxsplit=1)[0] == "in":
            return path
        try:
            folder = here(folder) or "."
            there = [each.name for each in Path(folder).iterdir()]
        except OSError:
            return path
        return f"{folder}/{next((each for each in there if same(each) == same(name)), name)}"

    for function in ("stat", "lstat", "open", "mkdir"):
        real = getattr(os, function)

        def call(path: Any, *args: Any, real: Any = real, **options: Any) -> Any:
            is_name = isinstance(path, str | Path) and options.get("dir_fd") is None
            return real(here(str(path)) if is_name else path, *args, **options)

        patch.setattr(os, function, call)


@pytest.mark.parametrize(
    ("same", "names", "results"),
    [
        (str.casefold, ["Photo.png", "photo.jpg"], ["Photo.png", "photo-jpg.png"]),
        (str.casefold, ["PHOTO.jpg", "photo.png"], ["PHOTO-jpg.png", "photo.png"]),
        (str.casefold, ["A.PNG", "a.png", "a.webp"], ["A.png", "a-2.png", "a-webp.png"]),
        (str.casefold, ["STRASSE.png", "straße.png"], ["STRASSE.png", "straße-2.png"]),
        (partial(normalize, "NFC"), ["e\u0301.jpg", "é.jpg"], ["e\u0301.png", "é-jpg.png"]),
        (lambda name: name[:4], ["photo.jpg", "photos.jpg"], ["photo.png"]),
        (str, ["Photo.png", "photo.jpg"], ["Photo.png", "photo.png"]),
    ],
    ids=["case", "order", "three", "long s", "accents", "cut", "as it is"],
)
def test_names_that_are_the_same_to_the_disk_of_the_results_are_told_apart(
    same: Callable[[str], str],
    names: list[str],
    results: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make(*(f"in/{name}" for name in names))
    with monkeypatch.context() as patch:
        a_disk_that(same, patch)
        batch = planned("in", output="out")
    assert sorted(targets(batch)) == sorted(f"out/{name}" for name in results)
    assert len(batch.refused) == len(names) - len(results)


def test_a_name_that_a_folder_of_results_has_is_not_free() -> None:
    make("in/a.jpg", "in/a.png/x.png")
    batch = planned("in", recursive=True)
    assert targets(batch) == ["upscaled/a-jpg.png", "upscaled/a.png/x.png"]


def test_a_folder_whose_name_a_result_has_is_refused() -> None:
    make("in/a.webp", "in/a.png/x.webp")
    batch = planned("in", recursive=True)
    assert targets(batch) == ["upscaled/a.png"]
    assert str(batch.refused[0]).endswith("cannot be called upscaled/a.png/x.png: File exists")


def test_folders_that_are_the_same_to_the_disk_of_the_results_are_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make("in/Sub/a.png", "in/sub/a.png", "in/sub/b.png")
    with monkeypatch.context() as patch:
        a_disk_that(str.casefold, patch)
        batch = planned("in", output="out", recursive=True)
    assert targets(batch) == ["out/Sub/a.png", "out/sub/b.png"]
    assert str(batch.refused[0]).startswith("in/sub/a.png: its result would overwrite")


@pytest.mark.parametrize(
    ("before_after", "name"),
    [(False, "n" * 252), (False, "é" * 126), (True, "n" * 240 + ".png")],
    ids=["by its suffix", "in bytes", "of the comparison"],
)
def test_a_name_that_is_too_long_is_found_and_named_before_any_work(
    before_after: bool, name: str
) -> None:
    make("in/a.png", f"in/{name}")
    batch = planned("in/a.png", f"in/{name}", before_after=before_after)
    assert sources(batch) == ["in/a.png"]
    (refusal,) = batch.refused
    assert refusal.path == f"in/{name}"
    stem = name.removesuffix(".png") + "-before-after" * before_after
    assert refusal.reason == f"its result cannot be called upscaled/{stem}.png: File name too long"


@pytest.mark.parametrize("output", ["n" * 252 + ".png", "n" * 256 + "/", "n" * 256])
def test_an_output_with_a_name_that_is_too_long_is_refused(output: str) -> None:
    make("a.png")
    assert "File name too long" in str(planned("a.png", output=output).refused[0])


def test_a_path_that_is_too_long_is_found_before_any_work() -> None:
    make("a.png")
    output = "/".join(["n" * 250] * 17) + "/"
    assert "File name too long" in str(planned("a.png", output=output).refused[0])


def test_a_folder_that_takes_no_files_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    make("a.png")
    Path("out").mkdir()
    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(OSError, match="No space") as raised:
        planned("a.png", output="out")
    assert raised.value.filename == "out"


@pytest.mark.parametrize(
    ("inputs", "output", "job"),
    [
        (["-"], None, ("-", "-")),
        (["-"], "out/", ("-", "out/stdin.png")),
        (["-"], "b.png", ("-", "b.png")),
        (["a.jpg"], "-", ("a.jpg", "-")),
        (["./-"], None, ("{here}/-", "upscaled/-.png")),
        (["a.jpg"], "./-", ("a.jpg", "{here}/-/a.png")),
    ],
)
def test_a_dash_is_standard_input_and_output(
    inputs: list[str], output: str | None, job: tuple[str, str]
) -> None:
    make("a.jpg", "-")
    if output == "./-":
        Path("-").unlink()
    source, target = (Path(text.format(here=Path.cwd())) for text in job)
    assert planned(*inputs, output=output, pipes=True).jobs == [FileJob(source, target)]


def test_a_dash_beside_others_goes_where_they_go() -> None:
    make("a.jpg")
    assert targets(planned("a.jpg", "-", "-", pipes=True)) == [
        "upscaled/a.png",
        "upscaled/stdin.png",
    ]


def test_where_there_are_no_pipes_a_dash_is_a_name() -> None:
    assert refused(planned("-")) == ["-"]


def test_standard_output_takes_one_image_and_nothing_beside_it() -> None:
    make("a.png", "b.png")
    with pytest.raises(FileRefused, match="more than one"):
        planned("a.png", "b.png", output="-", pipes=True)
    with pytest.raises(FileRefused, match="comparison"):
        planned("a.png", output="-", pipes=True, before_after=True)


def test_a_result_is_current_if_it_is_a_file_that_is_not_older() -> None:
    make("a.png", "upscaled/a.png", "upscaled/a-before-after.png")
    (job,) = planned("a.png", before_after=True).jobs
    for paths, seconds, current in [
        (job.targets, 100, True),
        (job.targets, 101, True),
        (job.targets[:1], 99, False),
        (job.targets, 101, True),
        (job.targets[1:], 99, False),
    ]:
        os.utime("a.png", (100, 100))
        for path in paths:
            os.utime(path, (seconds, seconds))
        assert job.is_current() is current
    os.utime(job.targets[1], (101, 101))
    assert job.is_current()
    job.target.unlink()
    assert not job.is_current()
    job.target.mkdir()
    assert not job.is_current()


def test_no_result_of_standard_input_is_current() -> None:
    """What a file of that name has is something else."""
    make("a.png", "-", "upscaled/stdin.png")
    job = planned("-", "a.png", pipes=True).jobs[0]
    assert job == FileJob(Path("-"), Path("upscaled/stdin.png"))
    assert not job.is_current()


@pytest.mark.parametrize(
    ("inputs", "continues"),
    [(["a.png"], False), (["a.png", "b.png"], True), (["in"], True), (["?.png"], True)],
)
def test_a_batch_continues_and_one_picture_is_made_anew(inputs: list[str], continues: bool) -> None:
    make("a.png", "b.png", "in/a.png")
    assert planned(*inputs).continues is continues


FILES = st.sampled_from(
    [
        f"{folder}{stem}{suffix}"
        for folder in ("", "in/", "in/deep/", "upscaled/")
        for stem in ("a", "b", "a.b", "a[1]")
        for suffix in (".png", ".PNG", ".jpg", ".jpeg", ".webp", ".txt", "")
    ]
)
OUTPUTS = st.sampled_from([None, ".", "in", "in/deep", "upscaled", "new", "soft", "x.png", "a.png"])


@st.composite
def spelled(draw: st.DrawFn, path: str) -> str:
    """One of several ways to write the path of a file that is there."""
    here = str(Path.cwd())
    return draw(st.sampled_from([path, f"./{path}", f"upscaled/../{path}", f"{here}/{path}"]))


@st.composite
def linked(draw: st.DrawFn, files: list[str]) -> list[str]:
    """The names of new links, of either kind, to some of `files`."""
    made = []
    for number, path in enumerate(draw(st.lists(st.sampled_from(files), max_size=2))):
        name = f"upscaled/link{number}.png"
        if draw(st.booleans()):
            Path(name).symlink_to(Path.cwd() / path)
        else:
            Path(name).hardlink_to(path)
        made.append(name)
    return made


@settings(max_examples=examples(200))
@given(st.data(), OUTPUTS, st.sampled_from([None, PNG, JPEG]))
def test_whatever_is_asked_no_input_and_no_result_is_lost(
    data: st.DataObject, output: str | None, encoding: ImageEncoding | None
) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        files = data.draw(st.lists(FILES, min_size=1, max_size=6, unique=True))
        make(*files, "in/keep.txt", "upscaled/keep.txt")
        Path("soft").symlink_to("in")
        links = data.draw(linked(files))
        chosen = data.draw(st.lists(st.sampled_from(files + links), max_size=6, unique=True))
        inputs = [data.draw(spelled(path)) for path in chosen]
        missing = data.draw(st.lists(st.sampled_from(["no.png", "in/no.png"]), unique=True))
        try:
            batch = planned(*inputs, *missing, output=output, encoding=encoding)
        except FileRefused as error:
            assert error.path == output  # noqa: PT017  an answer, but not the only one
            return
        check(batch, inputs, missing)


def check(batch: Batch, inputs: list[str], missing: list[str]) -> None:
    """The rules of any plan for `inputs`, which are there, and `missing`, which are not."""
    places = [os.path.realpath(job.target) for job in batch.jobs]
    assert len(set(places)) == len(places)
    for job in batch.jobs:
        assert not any(job.target.exists() and job.target.samefile(path) for path in inputs)
    answered = sources(batch) + refused(batch)
    assert len(set(answered)) == len(answered)
    assert {str(Path(path)) for path in inputs} | set(missing) == set(answered)
    assert set(missing) <= set(refused(batch))
