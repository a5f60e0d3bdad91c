"""One download against every answer a server can give: the bytes are right, or there are none."""

import contextlib
import errno
import io
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from brainseg import errors, files
from brainseg.data import download
from brainseg.errors import IntegrityError, MachineError
from brainseg.io import untrusted_zip
from tests.support.faulty_server import FaultyServer

BODY = bytes(range(256)) * 4096  # 1 MiB
FAST = download.RetryLimits(idle_s=5, pause_s=0.001)
HASTY = FAST._replace(idle_s=0.3)  # for servers that stop sending


def left_over(root: Path) -> set[str]:
    return {path.suffix for path in (root / ".brainseg/downloads").iterdir()}


class Clock:
    """Stands in for ``time``: sleeping takes no time."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Busy(contextlib.AbstractContextManager):
    """An answer that asks the client to come back later."""

    url, status_code, reason, headers = "http://127.0.0.1/", 429, "Too Many Requests", {"Retry-After": "3600"}

    def __exit__(self, *_):
        return None


class Trickle(Busy):
    """A byte, then the connection breaks."""

    status_code, headers = 200, {}

    def __init__(self):
        self.raw, self.has_begun = self, False

    def read1(self, *_, **__):
        self.has_begun = not self.has_begun
        if self.has_begun:
            return b"x"
        raise requests.ConnectionError


class Steady(Trickle):
    """``size`` bytes after each wait of nine seconds, ``times`` times."""

    def __init__(self, clock: Clock, size: int, times: int):
        self.raw, self.clock, self.size, self.times = self, clock, size, times

    def read1(self, *_, **__):
        self.times -= 1
        if self.times < 0:
            return b""
        self.clock.sleep(9)
        return bytes(self.size)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(download, "time", clock)
    return clock


def test_a_server_that_drips_is_given_up(clock, monkeypatch):
    """A byte in nine seconds is never silence."""
    monkeypatch.setattr(requests, "get", lambda *_, **__: Steady(clock, 1, 10**6))
    with pytest.raises(MachineError, match="less than 8 KiB a second arrive; 5 tries") as caught:
        download.fetch("http://127.0.0.1/a.zip")
    assert caught.value.problems[0].fix == download.BY_HAND
    assert 5 * download.RETRY_LIMITS.slow_s <= clock.now < 400


def test_a_slow_connection_may_take_its_hours(clock, monkeypatch):
    """10 KiB a second, in bursts."""
    asked = []
    monkeypatch.setattr(requests, "get", lambda *_, **__: asked.append(1) or Steady(clock, 90 * 2**10, 500))
    assert download.fetch("http://127.0.0.1/a.zip").stat().st_size == 500 * 90 * 2**10
    assert len(asked) == 1 and clock.now == 4500


def test_a_fast_start_does_not_pay_for_hours_of_slowness(clock, monkeypatch):
    class Tiring(Steady):
        def read1(self, *_, **__):
            self.size = 10 * 2**20 if self.times == 1000 else 1
            return super().read1()

    monkeypatch.setattr(requests, "get", lambda *_, **__: Tiring(clock, 1, 1000))
    with pytest.raises(MachineError, match="less than 8 KiB a second"):
        download.fetch("http://127.0.0.1/a.zip")
    assert clock.now < 400


def test_d5_a_connection_that_drips_is_resumed():
    with FaultyServer(BODY, "drip") as server:
        assert download.fetch(server.url, FAST._replace(slow_s=0.4)).read_bytes() == BODY
    assert int(server.ranges[1][6:-1]) > len(BODY) // 2  # the single bytes are kept, too


def test_d4_a_head_of_an_answer_that_never_ends_is_given_up():
    begun = time.monotonic()
    with (
        FaultyServer(BODY, "drip-head", times=9) as server,
        pytest.raises(MachineError, match="no answer in time; 1 tries"),
    ):
        download.fetch(server.url, FAST._replace(silence_s=0.3, pause_s=0.5))
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize(
    ("answer", "tries", "least_s", "most_s"),
    [(None, 4, 45, 60), (Busy(), 3, 45, 60), (Trickle(), 5, 60, 80)],
    ids=["silence", "Retry-After", "a byte each time"],
)
def test_d4_at_most_60_s_since_the_last_byte_pauses_counted(monkeypatch, answer, tries, least_s, most_s):
    """Every answer arrives as late as the timeouts allow."""
    clock = Clock()

    def late(*_, timeout, **__):
        clock.sleep(sum(timeout) - 0.1)
        if answer is None:
            raise requests.ConnectTimeout
        return answer

    monkeypatch.setattr(download, "time", clock)
    monkeypatch.setattr(requests, "get", late)
    with pytest.raises(MachineError, match=f"{tries} tries"):
        download.fetch("http://127.0.0.1/a.zip")
    assert least_s < clock.now < most_s


def test_a_connection_is_given_up_sooner_than_an_answer():
    connect_s, idle_s = download._Deadline(download.RETRY_LIMITS).timeouts_s()
    assert connect_s < idle_s <= 10 and download.RETRY_LIMITS.tries == 5


def test_bytes_arrive_and_a_whole_file_is_not_fetched_again(project_root):
    with FaultyServer(BODY) as server:
        path = download.fetch(server.url, FAST)
        assert download.fetch(server.url, FAST) == path
    assert path.read_bytes() == BODY and server.ranges == [None]
    download.discard(path)
    assert left_over(project_root) == set()


@pytest.mark.parametrize("fault", ["truncate", "reset", "stall"])
def test_d5_a_connection_that_breaks_half_way_is_resumed(fault):
    with FaultyServer(BODY, fault) as server:
        assert download.fetch(server.url, HASTY if fault == "stall" else FAST).read_bytes() == BODY
    assert len(server.ranges) == 2
    assert server.ranges[1] is None or int(server.ranges[1][6:-1]) > 0
    assert fault == "reset" or server.ranges[1]  # a reset may drop what was on its way


def test_d5_a_server_without_range_sends_it_all_again():
    with FaultyServer(BODY, "no-range") as server:
        assert download.fetch(server.url, FAST).read_bytes() == BODY
    assert server.ranges == [None, "bytes=524288-"]


def test_d5_a_file_that_changed_on_the_server_is_fetched_from_the_start():
    with FaultyServer(BODY, "replaced") as server:
        assert download.fetch(server.url, FAST).read_bytes() == BODY[::-1]
    assert len(server.ranges) == 2


def test_d5_a_part_without_its_etag_is_not_trusted(project_root):
    part = half_a_download(project_root)
    part.with_suffix(".etag").write_text('W/"weak"')
    with FaultyServer(BODY) as server:
        rename(part, server.url)
        assert download.fetch(server.url, FAST).read_bytes() == BODY
    assert server.ranges == [None]


def test_d7_a_part_that_was_whole_when_killed_is_taken(project_root):
    part = half_a_download(project_root, size=len(BODY))
    with FaultyServer(BODY) as server:
        rename(part, server.url)
        assert download.fetch(server.url, FAST).read_bytes() == BODY
    assert server.ranges == ["bytes=1048576-"]


def test_d7_sigkill_half_way_then_resumed(project_root):
    command = "import sys; from brainseg.data import download; download.fetch(sys.argv[1])"
    with FaultyServer(BODY, "stall", times=9) as server:
        process = subprocess.Popen([sys.executable, "-c", command, server.url], stderr=subprocess.DEVNULL)
        wait_until(
            lambda: any(p.stat().st_size == len(BODY) // 2 for p in (project_root / ".brainseg").rglob("*.part"))
        )
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        server.fault = None
        assert download.fetch(server.url, FAST).read_bytes() == BODY
    assert server.ranges[-1] == "bytes=524288-"


@pytest.mark.parametrize("status", ["401", "403", "404"])
def test_d4_refusals_are_not_repeated(status):
    with FaultyServer(BODY, status, times=9) as server, pytest.raises(MachineError, match=f"HTTP {status}") as caught:
        download.fetch(server.url, FAST)
    assert len(server.ranges) == 1
    assert "BRAINSEG_MIRROR=/path/to/archive.zip dvc repro" in caught.value.problems[0].fix
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("status", ["429", "500", "503"])
def test_d4_a_busy_server_is_asked_again_at_most_five_times(status):
    with FaultyServer(BODY, status, times=4) as server:
        assert download.fetch(server.url, FAST).read_bytes() == BODY
    with FaultyServer(BODY, status, times=9) as server, pytest.raises(MachineError, match=f"HTTP {status}") as caught:
        download.fetch(server.url, FAST)
    assert len(server.ranges) == 5
    assert caught.value.problems[0].fix == download.BY_HAND


def test_d4_retry_after_is_heeded(monkeypatch):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    for wait, expected in (("7", 7), ("3600", 10)):
        with FaultyServer(b"x", "429", headers={"Retry-After": wait}) as server:
            download.fetch(server.url, FAST)
        assert expected in pauses


def test_d4_no_network_and_stalled_body():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://user:password@127.0.0.1:{unused.getsockname()[1]}/a.zip"
    with pytest.raises(MachineError, match="no connection; 5 tries") as caught:
        download.fetch(url, FAST)
    assert caught.value.problems[0].fix == download.BY_HAND and "password" not in str(caught.value)
    begun = time.monotonic()
    with (
        FaultyServer(BODY, "stall", times=9) as server,
        pytest.raises(MachineError, match="no answer in time; 5 tries"),
    ):
        download.fetch(server.url, HASTY)
    assert time.monotonic() - begun < 5


def test_d6_disk_full_before_names_bytes_and_leaves_nothing(project_root, monkeypatch):
    monkeypatch.setattr(files, "free_bytes", lambda _: 2**20 + 7)
    with FaultyServer(BODY * 2) as server, pytest.raises(MachineError, match=r"2,097,152 bytes needed, 1,048,583 free"):
        download.fetch(server.url, FAST)
    assert ".part" not in left_over(project_root)


def test_d6_disk_full_during_names_bytes_and_leaves_nothing(project_root, monkeypatch):
    class Full(io.FileIO):
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "open", lambda path, mode: Full(path, mode), raising=False)
    what = r"No space left .*1,048,576 bytes needed, [\d,]+ free"
    with FaultyServer(BODY) as server, pytest.raises(MachineError, match=what):
        download.fetch(server.url, FAST)
    assert ".part" not in left_over(project_root)


def test_d6_read_only_folder(monkeypatch):
    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(MachineError, match=r"Permission denied \([\d,]+ bytes needed, [\d,]+ free\)"):
        download.fetch("http://127.0.0.1:9/a.zip", FAST)


def test_d3_more_than_the_limit_is_not_fetched(project_root, monkeypatch):
    monkeypatch.setattr(untrusted_zip, "MAX_TOTAL_BYTES", 2**19)
    with FaultyServer(BODY) as server, pytest.raises(IntegrityError, match="larger than the 524,288 bytes"):
        download.fetch(server.url, FAST)
    assert ".part" not in left_over(project_root)


def test_two_runs_at_once_do_not_write_into_one_file(project_root):
    with FaultyServer(BODY, "stall") as server, ThreadPoolExecutor(1) as pool:
        first = pool.submit(download.fetch, server.url, FAST)
        wait_until(lambda: list((project_root / ".brainseg").rglob("*.part")))
        with pytest.raises(MachineError, match="another run"):
            download.fetch(server.url, FAST)
        server.stopping.set()
        assert first.result().read_bytes() == BODY


def test_bad_files_go_to_quarantine(project_root):
    with FaultyServer(BODY) as server:
        path = download.fetch(server.url, FAST)
    moved = download.quarantine(path)
    assert moved.parent == project_root / ".brainseg/quarantine" and moved.read_bytes() == BODY
    assert left_over(project_root) == set()


def test_messages_are_for_people(capsys):
    with FaultyServer(BODY, "404", times=9) as server, pytest.raises(SystemExit) as caught:
        errors.run(lambda: download.fetch(server.url, FAST))
    assert caught.value.code == 3
    assert capsys.readouterr().err.startswith(f"ERROR 3 http://127.0.0.1:{server.server_port}/bundle/archive.zip: ")


def half_a_download(root: Path, size: int = len(BODY) // 2) -> Path:
    part = root / ".brainseg/downloads/a.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(BODY[:size])
    part.with_suffix(".etag").write_text(f'"{hash(BODY)}"')
    return part


def rename(part: Path, url: str) -> None:
    """Give a part the name that ``fetch`` looks for."""
    name = download.hashlib.sha256(url.encode()).hexdigest()[:16]
    for suffix in (".part", ".etag"):
        part.with_suffix(suffix).rename(part.with_name(name).with_suffix(suffix))


def wait_until(condition, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.005)


def test_the_size_of_a_file_is_asked_without_fetching_it(project_root):
    with FaultyServer(BODY) as server:
        assert download.ask_size(server.url, 5) == len(BODY)
    with pytest.raises(TimeoutError, match="no connection"):
        download.ask_size(server.url, 5)
    with FaultyServer(BODY, "404") as server, pytest.raises(MachineError, match="HTTP 404"):
        download.ask_size(server.url, 5)
    assert not list(project_root.rglob("*"))


@pytest.mark.parametrize("fault", ["503", "drip-head"])
def test_a_server_that_may_answer_later_is_told_from_one_that_refuses(fault):
    with FaultyServer(BODY, fault) as server, pytest.raises(TimeoutError):
        download.ask_size(server.url, 0.3)
