"""Packs what `make build` has made into a zip that `sam deploy` takes without this repository; needs no AWS account."""

import hashlib
import re
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / ".aws-sam/build"
STATE_MACHINE = ROOT / "functions/backlog_drain.asl.json"
BESIDE = (ROOT / "database/install.sql", ROOT / "database/uninstall.sql", ROOT / "LICENSE")
"""What a deploy needs besides: the database's installation for the SQL editor."""
_EPOCH = (1980, 1, 1, 0, 0, 0)


def package(build: Path, directory: Path) -> Path:
    """Pack a build into a zip, with its SHA-256 in a file beside it; return the zip.

    The template in it names nothing outside it. The same files make the same bytes.

    Raises
    ------
    FileNotFoundError
        Nothing was built there.
    """
    template, replaced = re.subn(
        r"DefinitionUri: \S+", f"DefinitionUri: {STATE_MACHINE.name}", (build / "template.yaml").read_text()
    )
    if replaced != 1:
        raise ValueError(f"{build / 'template.yaml'} has {replaced} state machines instead of one")
    files = {
        path.relative_to(build).as_posix(): path.read_bytes()
        for path in build.rglob("*")
        if path.is_file() and path != build / "template.yaml"
    }
    files |= {path.name: path.read_bytes() for path in (STATE_MACHINE, *BESIDE)}
    files["template.yaml"] = template.encode()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / f"storage-cleanup-{version}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name], zipfile.ZIP_DEFLATED)
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    target.with_suffix(".zip.sha256").write_text(f"{digest}  {target.name}\n")
    return target


def main() -> None:
    """Pack the build of this repository into ``build/``."""
    if not (BUILD / "template.yaml").exists():
        sys.exit("Nothing has been built: run `make build` first")
    target = package(BUILD, ROOT / "build")
    print(f"{target.relative_to(ROOT)}, {target.stat().st_size / 1e6:.1f} MB")
    print(target.with_suffix(".zip.sha256").read_text(), end="")


if __name__ == "__main__":
    main()
