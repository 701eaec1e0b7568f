"""The Makefile's targets, and the check on a bare machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_every_target_that_is_declared_has_a_rule() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    declared = set(" ".join(re.findall(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)).split())
    rules = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    assert {"setup", "demo", "test"} <= declared
    assert declared <= rules, f"declared without a rule: {declared - rules}"


@pytest.mark.parametrize(
    ("reason", "strict", "code"), [("no TRL", "1", 1), ("no TRL", "0", 0), ("no CUDA", "1", 0)]
)
def test_where_all_must_be_present_a_skip_fails(tmp_path: Path, reason: str, strict: str, code: int) -> None:
    """With the conftest of these tests: a test that skips, and a file that skips itself."""
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    skip = f"import pytest\npytest.skip({reason!r}, allow_module_level=True)\ndef test(): pass\n"
    (tmp_path / "test_file.py").write_text(skip)
    (tmp_path / "test_one.py").write_text(f"import pytest\ndef test(): pytest.skip({reason!r})\n")
    (tmp_path / "test_works.py").write_text("def test_works(): pass\n")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n",
            "0",
            "--continue-on-collection-errors",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            str(tmp_path),
            ".",
        ],
        cwd=tmp_path,
        env={**os.environ, "SAFEPREF_CI": strict},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode != 0) == bool(code), done.stdout + done.stderr
    assert (f"everything must be present: Skipped: {reason}" in done.stdout) == bool(code), done.stdout
    ended = "1 failed, 1 passed, 1 error" if code else "1 passed, 2 skipped"
    assert ended in done.stdout.splitlines()[-1]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_an_unknown_target_is_an_error() -> None:
    done = subprocess.run(["make", "-n", "nonsense"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("works", [True, False], ids=["working", "broken"])
def test_install_check_tries_the_command_in_a_fresh_environment(tmp_path: Path, works: bool) -> None:
    """With a stand-in for Python that notes its arguments and makes an environment of two scripts."""
    log, temporary = tmp_path / "log", tmp_path / "tmp"
    temporary.mkdir()
    python, command = tmp_path / "python", "dpo  DPO" if works else "nothing"
    executable(
        python,
        f"""echo "$*" >>{log}
if [ "$2" = venv ]; then
  mkdir -p "$3/bin"
  cp "$0" "$3/bin/python"
  printf '%s\\n' '#!/bin/bash' 'echo "{command}"' >"$3/bin/safepref"
  chmod +x "$3/bin/safepref"
fi""",
    )
    done = subprocess.run(
        ["make", "install-check", f"PYTHON={python}"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == works, done.stderr
    made, installed = log.read_text().splitlines()
    assert made.startswith(f"-m venv {temporary}")
    assert installed.startswith("-m pip install") and installed.endswith("-c constraints.txt .")
    assert list(temporary.iterdir()) == []


def executable(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@pytest.mark.skipif(os.name == "nt", reason="a shell script; not hardware")
@pytest.mark.parametrize("bare", [True, False], ids=["bare machine", "furnished machine"])
def test_the_check_installs_what_the_machine_lacks(tmp_path: Path, bare: bool) -> None:
    """The script on a stand-in of a machine: `apt-get` notes what it is asked for and brings `make`."""
    binaries, log = tmp_path / "bin", tmp_path / "log"
    binaries.mkdir()
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci/run").write_text((ROOT / ".ci/run").read_text())
    (binaries / "dirname").symlink_to("/usr/bin/dirname")
    make = f'echo "make $*" >>{log}'
    bring = (
        f"[ \"$1\" = install ] && printf '%s\\n' '#!/bin/bash' 'echo \"make $*\" >>{log}' >{binaries}/make"
    )
    executable(
        binaries / "apt-get", f'echo "apt-get $*" >>{log}\n{bring} && /bin/chmod +x {binaries}/make\ntrue'
    )
    executable(binaries / "chromium", "true")
    executable(binaries / "python3", f'[ "$2" != "import ensurepip" ] || exit {int(bare)}')
    if not bare:
        executable(binaries / "make", make)
    done = subprocess.run(
        ["/bin/bash", ".ci/run"], cwd=tmp_path, env={"PATH": str(binaries)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = log.read_text().splitlines()
    installed = [line for line in lines if line.startswith("apt-get") and " install " in line]
    if bare:
        assert installed[0].split()[-2:] == ["make", "python3-venv"]
    else:
        assert not installed
    assert [line.split(" PYTHON=")[0] for line in lines if line.startswith("make")] == [
        "make setup",
        "make -j2 --output-sync lint types install-check",
        "make test",
    ]
