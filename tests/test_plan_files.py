"""Which results a command writes, for the files and folders that it is given."""

import contextlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.properties import examples
from upscaler.errors import FileRefused
from upscaler.files import Batch, FileJob, plan_files
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
    *inputs: str, output: str | None = None, encoding: ImageEncoding | None = None
) -> Batch:
    return plan_files(inputs, Path(output) if output is not None else None, encoding)


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
    assert planned() == Batch([], PNG, [])


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
    make("in/b.png", "in/a.JPG", "in/d.Jpeg", "in/c.WebP")
    make("in/notes.txt", "in/raw.tiff", "in/png", "in/folder.png/e.png", "in/deeper/f.png")
    assert sources(planned("in")) == ["in/a.JPG", "in/b.png", "in/c.WebP", "in/d.Jpeg"]


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


@pytest.mark.parametrize("second", ["a.jpg", "in/a.png"])
def test_no_two_results_share_a_file(second: str) -> None:
    make("a.png", second)
    batch = planned("a.png", second)
    assert batch.jobs == [FileJob(Path("a.png"), Path("upscaled/a.png"))]
    assert refused(batch) == [second]
    assert str(batch.refused[0]).endswith("would overwrite the result of a.png")


def test_no_two_results_share_a_file_through_a_link() -> None:
    make("a.png", "b.png", "upscaled/a.png")
    Path("upscaled/b.png").symlink_to("a.png")
    assert refused(planned("a.png", "b.png")) == ["b.png"]


@pytest.mark.parametrize(
    ("name", "encoding"),
    [("b.png", PNG), ("b.PNG", PNG), ("b.jpg", JPEG), ("b.jpeg", JPEG), ("new/b.Jpg", JPEG)],
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


@pytest.mark.parametrize("name", ["b.webp", "b.gif", "v1.5", "b.png.bak"])
def test_an_output_with_another_suffix_is_refused_with_those_that_are_not(name: str) -> None:
    make("a.png")
    with pytest.raises(FileRefused, match=rf"{name}.*\.jpg.*\.jpeg.*\.png"):
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


@pytest.mark.parametrize("output", ["notes", "notes/deeper", "notes/b.png", "loop"])
def test_an_output_that_cannot_be_made_is_refused_by_name(output: str) -> None:
    make("a.png", "notes")
    Path("loop").symlink_to("loop")
    with pytest.raises(FileRefused, match=output):
        planned("a.png", output=output)


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
