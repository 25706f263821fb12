"""Whoever cites a file, in a guide, a comment or a docstring, cites one that is there."""

import re

from local.postgres import ROOT

PLACES = (
    *(
        ".ci",
        ".github",
        "benchmarks",
        "database",
        "docs",
        "events",
        "functions",
        "layers",
        "local",
        "requirements",
        "tests",
    ),
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"),
    *("Makefile", "pyproject.toml", "samconfig.toml", "template.yaml"),
)
FILES = {
    file.relative_to(ROOT).as_posix()
    for place in PLACES
    for file in (ROOT / place, *(ROOT / place).rglob("*"))
    if file.is_file() and "__pycache__" not in file.parts
}
READ = {file for file in FILES if file.endswith((".py", ".sql", ".md", ".yaml", ".yml", ".toml", "Makefile"))}
_CITED = re.compile(r"(?<![\w./:-])\w[\w.-]*/[\w./-]*\w\.(?:py|sql|md|ya?ml|json|toml|svg|crt)\b")
NOT_HERE = re.compile(r"build/|events/X\.json|pydantic/")
"""What is made here, an example's name, and what the layer is built without."""


def test_every_file_that_is_cited_is_there() -> None:
    wrong = [
        f"{file}:{number}: there is no {path}"
        for file in sorted(READ)
        for number, line in enumerate((ROOT / file).read_text(encoding="utf-8").splitlines(), 1)
        for path in _CITED.findall(line)
        if not NOT_HERE.match(path) and not any(f"/{known}".endswith(f"/{path}") for known in FILES)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_link_between_pages_leads_somewhere() -> None:
    pages = [file for file in sorted(READ) if file.endswith(".md")]
    links = [
        (page, link)
        for page in pages
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    ]
    assert len(links) > 30
    wrong = [f"{page}: {link}" for page, link in links if not ((ROOT / page).parent / link).exists()]
    assert not wrong, "\n".join(wrong)
