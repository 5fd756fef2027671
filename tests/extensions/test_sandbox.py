"""A script sees its package, its arguments and nothing else."""

import os
import subprocess
import tempfile
from pathlib import Path
from uuid import uuid4

import pytest

from apps.common.errors import PolarError, UpstreamError
from apps.extensions import ports
from apps.extensions.adapters import processes, sandbox, scripts
from apps.extensions.adapters.scripts import ScriptRuntime
from apps.extensions.errors import ToolMisconfigured
from apps.gateway.errors import OutcomeUnknown, OutputBroken
from apps.gateway.ports import EffectClass
from tests.extensions import hostile
from tests.extensions.hostile import execute, row_of, source, target, write

pytestmark = pytest.mark.django_db

needs_isolation = pytest.mark.skipif(
    not sandbox.isolation().is_available, reason=sandbox.isolation().detail
)

ECHO = "import json, sys\nprint(json.dumps({'said': json.load(sys.stdin)['say']}))\n"


@pytest.fixture
def package():
    """A package in a folder that every user of this machine may walk into."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield write(Path(folder) / "package", {"echo.py": ECHO})


def _try(package, body: str, **more):
    """Write a script that reports what became of an attempt, and target it."""
    (package / "try.py").write_text(hostile.report(body))
    return target(source(package, **more), "try.py")


@needs_isolation
def test_script_answers_json_for_json(rob, package):
    output = execute(rob, target(source(package), "echo.py"), {"say": "hello"})

    assert output == {"said": "hello"}
    assert row_of("hostile/echo").state == "succeeded"


@needs_isolation
def test_environment_holds_only_what_was_given(rob, package, monkeypatch):
    monkeypatch.setenv("HOST_SECRET", "canary")
    trying = _try(package, "return dict(os.environ)", env={"COLOUR": "red"})

    got = execute(rob, trying)["got"]

    assert got["COLOUR"] == "red"
    assert set(got) <= {
        "COLOUR", "HOME", "LANG", "LC_CTYPE", "PATH", "PWD", "TMPDIR",
        processes.CALL_MARK, processes.CHILD_MARK, processes.EXTENSION_MARK,
    }  # fmt: skip


@needs_isolation
def test_granted_folder_is_read_and_no_other(rob, package, tmp_path):
    open_folder = write(tmp_path / "open", {"a.txt": "readable"})
    shut_folder = write(tmp_path / "shut", {"a.txt": "private"})
    grants = ports.Grants(read_paths=(str(open_folder),))
    body = f"""
seen = open({str(open_folder / "a.txt")!r}).read()
return [seen, os.path.exists({str(shut_folder)!r})]
"""

    assert execute(rob, _try(package, body, grants=grants))["got"] == [
        "readable",
        False,
    ]


@needs_isolation
def test_folder_granted_for_reading_is_not_written(rob, package, tmp_path):
    folder = write(tmp_path / "open", {})
    grants = ports.Grants(read_paths=(str(folder),))
    body = f"open({str(folder / 'new')!r}, 'w'); return 'wrote'"

    assert execute(rob, _try(package, body, grants=grants))["got"] == "OSError"


@needs_isolation
def test_folder_granted_for_writing_is_written(rob, package, tmp_path):
    folder = write(tmp_path / "open", {})
    folder.chmod(0o777)
    grants = ports.Grants(write_paths=(str(folder),))

    execute(rob, _try(package, f"open({str(folder / 'new')!r}, 'w')", grants=grants))

    assert (folder / "new").exists()


@needs_isolation
def test_constraint_narrows_a_granted_folder(rob, package, tmp_path):
    wide = write(tmp_path / "wide", {"a.txt": "outside"})
    narrow = write(wide / "narrow", {"b.txt": "inside"})
    grants = ports.Grants(read_paths=(str(wide),))
    (package / "try.py").write_text(
        hostile.report(
            f"return [os.listdir({str(wide)!r}), os.listdir({str(narrow)!r})]"
        )
    )
    narrowed = target(
        source(package, grants=grants),
        "try.py",
        constraints={"pathsAllowlist": [str(narrow)]},
    )

    assert execute(rob, narrowed)["got"] == [["narrow"], ["b.txt"]]


@pytest.mark.parametrize(
    "path", ["/", "/etc", "/root", "/proc", "/run/x", "var", "/a/../b"]
)
def test_folders_of_the_host_are_never_granted(package, path):
    job = sandbox.Job.of(
        source(package, grants=ports.Grants(read_paths=(path,))), ("true",)
    )

    with pytest.raises(ToolMisconfigured):
        sandbox.check(job)


@pytest.mark.parametrize("name", ["LD_PRELOAD", "GCONV_PATH", "POLAR_CALL", "a b", ""])
def test_variables_that_run_code_are_never_passed(package, name):
    job = sandbox.Job.of(source(package), ("true",), env={name: "x"})

    with pytest.raises(ToolMisconfigured):
        sandbox.check(job)


def test_network_that_cannot_be_held_is_refused(package, no_isolation):
    job = sandbox.Job.of(
        source(
            package,
            grants=ports.Grants(domains=("a.example",)),
            accepts_degraded=True,
        ),
        ("true",),
    )

    with pytest.raises(ToolMisconfigured) as refused:
        sandbox.check(job)

    assert refused.value.reason_code == "network_not_enforceable"


def test_nothing_starts_without_isolation(rob, package, no_isolation):
    with pytest.raises(ToolMisconfigured) as refused:
        execute(rob, target(source(package), "echo.py"), {"say": "x"})

    assert refused.value.reason_code == "isolation_unavailable"
    assert row_of("hostile/echo").error_code == "isolation_unavailable"


def test_accepted_degraded_runs_and_says_so(rob, package, no_isolation, caplog):
    degraded = source(package, accepts_degraded=True)

    output = execute(rob, target(degraded, "echo.py"), {"say": "x"})

    assert output == {"said": "x"}
    assert "sandbox.degraded" in [
        getattr(record, "event", "") for record in caplog.records
    ]


@pytest.fixture
def no_isolation(monkeypatch):
    """A host where bubblewrap does not work."""
    missing = ports.Isolation(is_available=False, detail="bwrap is not installed")
    monkeypatch.setattr(sandbox, "isolation", lambda: missing)


@pytest.mark.parametrize(
    "name", ["../echo.py", "/bin/sh", "", ".", "missing.py", "link"]
)
def test_script_outside_its_package_is_not_run(rob, package, name):
    (package / "link").symlink_to("/bin/sh")

    with pytest.raises(ToolMisconfigured):
        execute(rob, target(source(package), name, capability="hostile/out"))

    assert row_of("hostile/out").state == "failed"


@needs_isolation
def test_failure_tells_the_exit_code_and_the_last_words(rob, package):
    (package / "bad.py").write_text("import sys; sys.exit('no such city')")

    with pytest.raises(UpstreamError, match=r"exit code 1: no such city"):
        execute(rob, target(source(package), "bad.py"))


@needs_isolation
@pytest.mark.parametrize("text", ["[" * 100_000, "\0", b"\xff"])
def test_answer_that_nobody_can_keep_is_refused(rob, package, text):
    said = text if isinstance(text, bytes) else text.encode()
    write = f"import sys; sys.stdout.buffer.write({said!r})"
    (package / "say.py").write_text(write)

    with pytest.raises(OutputBroken):
        execute(rob, target(source(package), "say.py"))


@needs_isolation
def test_script_finds_its_arguments_where_its_author_looks_for_them(rob, package):
    body = "import sys; print(sys.argv[1:], sys.stdin.read().strip())"
    (package / "say.py").write_text(body)
    words = ["--file", "a b.txt", "$HOME; rm -rf /", "*"]

    said = {"args": words, "stdin": "five\nlines"}
    output = execute(rob, target(source(package), "say.py"), said)

    assert output == {"text": f"{words} five\nlines\n"}


@needs_isolation
def test_write_that_does_not_end_is_in_doubt(rob, package):
    (package / "hang.py").write_text("import time; time.sleep(60)")
    hanging = target(
        source(package, limits=ports.Limits(call_seconds=0.3)),
        "hang.py",
        effect_class=EffectClass.RECONCILABLE,
    )

    with pytest.raises(OutcomeUnknown):
        execute(rob, hanging)

    assert row_of("hostile/hang").state == "unknown"


@needs_isolation
def test_arguments_and_secrets_are_not_in_the_process_list(package):
    job = sandbox.Job.of(source(package), ("true",), env={"TOKEN": "s3cret-canary"})

    wires = sandbox._Wires(job, None)
    with wires:
        assert not any("s3cret-canary" in word for word in wires.argv)


@needs_isolation
def test_refused_permit_leaves_no_process(rob, package, monkeypatch):
    held = source(package)

    def refuse(*_, **__):
        raise PolarError("stopped meanwhile")

    monkeypatch.setattr("apps.gateway.engine.ledger.start", refuse)
    with pytest.raises(PolarError, match="stopped meanwhile"):
        execute(rob, target(held, "echo.py"), {"say": "x"})

    assert processes.end_extension(held.extension_id) == []


def test_processes_of_this_host_are_read():
    seen = {each.pid for each in processes.everything()}

    assert os.getpid() in seen


def test_child_whose_mark_cannot_be_read_yet_is_ended_all_the_same():
    """While the kernel still loads a program its command line is empty."""
    with subprocess.Popen(["sleep", "60"]) as unmarked:
        assert processes.end_child("no such mark", unmarked.pid)
        assert unmarked.wait(5) < 0


def test_process_of_somebody_else_is_never_ended_by_its_number():
    alive = processes.look_at(os.getpid())
    assert alive is not None

    assert processes.end_child("no such mark", alive.parent)

    assert processes.look_at(alive.parent) is not None


def rehearse(trying: ports.Target, arguments: dict[str, object] | None = None):
    return ScriptRuntime().rehearse(trying, arguments or {})["got"]


@needs_isolation
def test_dry_run_is_told_and_holds_nothing_that_could_act(package, tmp_path):
    folder = write(tmp_path / "open", {"a.txt": "kept"})
    grants = ports.Grants(
        write_paths=(str(folder),), domains=("example.org",), secrets={"T": uuid4()}
    )
    body = f"""
seen = open({str(folder / "a.txt")!r}).read()
try:
    open({str(folder / "a.txt")!r}, "w").write("changed")
except OSError:
    seen += ", not written"
return [seen, os.environ.get("DRY_RUN"), "T" in os.environ, "https_proxy" in os.environ]
"""

    got = rehearse(_try(package, body, grants=grants, trust="trusted"))

    assert got == ["kept, not written", "1", False, False]
    assert (folder / "a.txt").read_text() == "kept"


@needs_isolation
def test_dry_run_that_hangs_is_ended(package, monkeypatch):
    monkeypatch.setattr(scripts, "LONGEST_REHEARSAL", 0.5)

    with pytest.raises(UpstreamError, match="did not end"):
        rehearse(_try(package, "import time; time.sleep(60)"))


def test_dry_run_without_isolation_runs_nothing(package, monkeypatch):
    """Not even where an operator accepted that for real calls."""
    shut = ports.Isolation(is_available=False, detail="no bwrap")
    monkeypatch.setattr(sandbox, "isolation", lambda: shut)

    with pytest.raises(ToolMisconfigured, match="without isolation"):
        rehearse(_try(package, "return 1", accepts_degraded=True))
