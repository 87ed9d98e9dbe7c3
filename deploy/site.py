"""What mkdocs builds beside docs/: the pages of the repository's root, and the reference.

A hook of mkdocs.yml. The files stay as they are, with links that lead somewhere on GitHub.
"""

import ast
import re
from pathlib import Path
from posixpath import normpath
from typing import Any, Final

from mkdocs.structure.files import File, Files

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
}
"""The pages of the root, and their names on the site."""
LINK: Final = re.compile(r"(\]\()(?![a-z]+:|#)([^)#\s]+)")


def _public() -> dict[str, str]:
    """The public names, and the modules that have them, as upscaler/__init__.py lists them."""
    for node in ast.parse((ROOT / "upscaler" / "__init__.py").read_text()).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "_MODULES":
            found: dict[str, str] = ast.literal_eval(node.value or node.target)
            return found
    raise LookupError("upscaler/__init__.py has no _MODULES")


INTRODUCTION: Final = """# Reference

The public names of `upscaler`, which are imported from there: [From Python](PYTHON.md) shows them
in use. All others may change.
"""


def _reference() -> str:
    names = [f"::: upscaler.{module}.{name}" for name, module in sorted(_public().items())]
    return "\n\n".join([INTRODUCTION, *names])


def _on_site(text: str, folder: str, repository: str) -> str:
    """The text of a file in `folder`, with links that lead somewhere on the site."""

    def link(match: re.Match[str]) -> str:
        path = normpath(f"{folder}/{match[2]}")
        if path in PAGES:
            return match[1] + PAGES[path]
        if path.startswith("docs/") and not (ROOT / path).is_dir():
            return match[1] + path.removeprefix("docs/")
        return f"{match[1]}{repository}/tree/main/{path}"

    return LINK.sub(link, text)


def on_files(files: Files, config: Any) -> Files:  # noqa: ANN401
    """Add the pages that docs/ does not have."""
    for name, page in PAGES.items():
        text = _on_site((ROOT / name).read_text(), ".", config.repo_url)
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, "reference.md", content=_reference()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:  # noqa: ANN401, ARG001
    """Turn the links of a page of docs/, as GitHub has them, into links of the site."""
    if page.file.generated_by:
        return markdown
    return _on_site(markdown, "docs", config.repo_url)
