"""What may run at every start of Python, and what an install takes in (T19).

A `.pth` file in site-packages runs its `import` lines whenever Python starts, and
stays when its package is uninstalled.
"""

import base64
import csv
import hashlib
import subprocess
import sysconfig
import zipfile
from pathlib import Path

import pytest

from polar_site import bootstrap

#: The only such files that the lock brings, and the packages that own them.
KNOWN = {"a1_coverage.pth": "coverage", "distutils-precedence.pth": "setuptools"}
SITE = Path(sysconfig.get_path("purelib"))


def strangers(site: Path) -> list[str]:
    """Name each start file that no known package recorded with these very bytes."""
    recorded = {
        (row[0], row[1])
        for name in KNOWN.values()
        for record in site.glob(f"{name}-*.dist-info/RECORD")
        for row in csv.reader(record.read_text().splitlines())
    }
    return [
        path.name
        for path in sorted(site.glob("*.pth"))
        if path.name not in KNOWN or (path.name, digest(path)) not in recorded
    ]


def digest(path: Path) -> str:
    """As a wheel's RECORD writes it."""
    raw = hashlib.sha256(path.read_bytes()).digest()
    return "sha256=" + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def test_only_known_files_run_at_the_start_of_python() -> None:
    assert strangers(SITE) == []


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site with one file of a known package."""
    (tmp_path / "coverage-1.dist-info").mkdir()
    (tmp_path / "a1_coverage.pth").write_text("import coverage\n")
    line = f"a1_coverage.pth,{digest(tmp_path / 'a1_coverage.pth')},16\n"
    (tmp_path / "coverage-1.dist-info/RECORD").write_text(line)
    assert strangers(tmp_path) == []
    return tmp_path


def test_planted_start_file_is_named(site: Path) -> None:
    (site / "zz_helper.pth").write_text("import os; os.environ\n")

    assert strangers(site) == ["zz_helper.pth"]


def test_known_start_file_with_other_bytes_is_named(site: Path) -> None:
    (site / "a1_coverage.pth").write_text("import evil\n")

    assert strangers(site) == ["a1_coverage.pth"]


def wheel(
    folder: Path, more: dict[str, str], name: str = "invoice-1.0", also: str = ""
) -> Path:
    """A release of a package, which brings `more` files."""
    path = folder / f"{name}-py3-none-any.whl"
    info, (package, version) = f"{name}.dist-info", name.split("-")
    metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n{also}"
    files = {
        f"{package}.py": "",
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
        **more,
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD"), "")
    return path


def install(folder: Path, lock: Path) -> subprocess.CompletedProcess[str]:
    """As `polar_site/bootstrap.py` installs, but from a folder."""
    command = [*bootstrap.pip_command(), "install", "--quiet", "--no-index"]
    command += ["--find-links", str(folder), "--target", str(folder / "site")]
    command += bootstrap.lock_arguments(lock)
    return subprocess.run(command, capture_output=True, text=True)


def test_release_that_was_exchanged_after_the_lock_is_not_installed(
    tmp_path: Path,
) -> None:
    locked = hashlib.sha256(wheel(tmp_path, {}).read_bytes()).hexdigest()
    lock = tmp_path / "lock.txt"
    lock.write_text(f"invoice==1.0 --hash=sha256:{locked}\n")
    assert install(tmp_path, lock).returncode == 0
    assert (tmp_path / "site/invoice.py").exists()

    wheel(tmp_path, {"zz_helper.pth": "import os\n"})
    refused = install(tmp_path, lock)

    assert refused.returncode != 0
    assert "DO NOT MATCH THE HASHES" in refused.stderr
    assert not list(tmp_path.glob("site/*.pth"))


def test_release_newer_than_the_lock_is_not_looked_at(tmp_path: Path) -> None:
    """Where pip resolves, `paper[ink]` takes the newest paper, which has no hash."""
    extra = "Provides-Extra: ink\n"
    files = [
        wheel(tmp_path, {}, also="Requires-Dist: paper[ink]>=1\n"),
        wheel(tmp_path, {}, "paper-1.0", extra),
    ]
    lock = tmp_path / "lock.txt"
    lock.write_text(
        "".join(
            f"{path.name.split('-')[0]}==1.0 --hash=sha256:"
            f"{hashlib.sha256(path.read_bytes()).hexdigest()}\n"
            for path in files
        )
    )
    wheel(tmp_path, {}, "paper-1.1", extra)

    installed = install(tmp_path, lock)

    assert installed.returncode == 0, installed.stderr
    assert (tmp_path / "site/paper-1.0.dist-info").exists()
