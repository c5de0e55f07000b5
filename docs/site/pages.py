"""Pages of the site that are files of the repository: `mkdocs build` runs this hook."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}

INLINE_CODE = re.compile(r"<code>[^<]*</code>")
FLAG = re.compile(r"(?<![\w-])--?\w[\w.-]*")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages, with links as the site needs them."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text().replace("](docs/", "](")
        for other, target in PAGES.items():
            text = re.sub(rf"\]\({re.escape(other)}(#[^)]*)?\)", rf"]({target}\1)", text)
        files.append(File.generated(config, page, content=text))
    return files


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Marks the flags in inline code. `wide.css` keeps each of them on one line."""
    return INLINE_CODE.sub(lambda code: FLAG.sub(r'<span class="flag">\g<0></span>', code[0]), html)
