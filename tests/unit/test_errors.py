"""The exceptions of the package."""

import re
from collections.abc import Iterator

from storage_cleanup import errors


def tree(error: type[Exception], depth: int = 0) -> Iterator[tuple[int, str]]:
    """Yield an exception and those below it, each with how far below."""
    yield depth, error.__name__
    for each in error.__subclasses__():
        yield from tree(each, depth + 1)


def test_the_tree_in_the_docstring_is_the_one_in_the_code() -> None:
    lines = re.findall(r"^ {4}([│├└─ ]*)(\w+)", errors.__doc__ or "", re.MULTILINE)
    assert [(len(branches) // 4, name) for branches, name in lines] == list(tree(errors.StorageCleanupError))
