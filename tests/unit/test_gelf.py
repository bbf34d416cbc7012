import random
import socket
import threading
from datetime import UTC, datetime

import pytest

from stackward.core.model import Counts, JobResult, Outcome, StackResult
from stackward.observe import gelf
from unit.receivers import receive_gelf_tcp, receive_gelf_udp

NOW = datetime(2026, 11, 21, 2, 4, tzinfo=UTC)
STEPS = (
    ("backup-config", JobResult(Outcome.OK, counts=Counts(files=3, bytes=99))),
    (
        "backup-data",
        JobResult(
            Outcome.FAILED,
            ("failed: shop", "and more"),
            (
                StackResult("caf\udce9", Outcome.OK, standstill_seconds=0.5, artifact="data-2026-11-21"),
                StackResult("shop", Outcome.FAILED, ("disk full",)),
                StackResult("", Outcome.OK),
            ),
            exit_code=4,
        ),
    ),
)


def records():
    return list(gelf.records(STEPS, host="nas", at=NOW, trigger="schedule"))


def noise(length):
    """Text that does not compress well."""
    return "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=length))


@pytest.fixture
def udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        receiver.bind(("127.0.0.1", 0))
        yield receiver, f"udp://127.0.0.1:{receiver.getsockname()[1]}"


def test_a_record_per_job_and_per_stack_says_how_it_ended():
    config, data, cafe, shop = records()
    assert (config["version"], config["host"], config["timestamp"]) == ("1.1", "nas", NOW.timestamp())
    assert (config["short_message"], config["level"], config["_files"]) == ("backup-config ended ok", 6, 3)
    assert "full_message" not in config
    assert (data["level"], data["_exit_code"], data["full_message"]) == (3, 4, "failed: shop\nand more")
    assert (cafe["_stack"], cafe["_standstill_seconds"], cafe["_artifact"]) == ("caf\\xe9", 0.5, "data-2026-11-21")
    assert shop["short_message"] == "backup-data of shop ended failed: disk full"
    assert {record["_trigger"] for record in records()} == {"schedule"}


def test_udp_messages_are_decoded_by_whoever_speaks_gelf(udp):
    receiver, url = udp
    gelf.send(url, records())
    assert receive_gelf_udp(receiver, 4) == records()


def test_a_large_message_goes_in_chunks(udp):
    receiver, url = udp
    large = {**records()[0], "full_message": noise(20_000)}
    assert len(gelf.datagrams(large, b"12345678")) > 5
    gelf.send(url, [large])
    assert receive_gelf_udp(receiver, 1) == [large]


def test_what_no_128_chunks_hold_loses_its_end_and_says_so(udp):
    receiver, url = udp
    text = noise(600_000)
    assert len(gelf.datagrams({"full_message": text}, b"12345678")) <= 128
    gelf.send(url, [{"short_message": "x", "full_message": text}])
    (message,) = receive_gelf_udp(receiver, 1)
    assert message["full_message"].endswith("… (left out)")
    assert text.startswith(message["full_message"][:1000])


def test_tcp_messages_end_with_nul():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        received = []
        thread = threading.Thread(target=lambda: received.extend(receive_gelf_tcp(listener)))
        thread.start()
        odd = {**records()[0], "full_message": "a\0b"}
        gelf.send(f"tcp://127.0.0.1:{listener.getsockname()[1]}", [odd, *records()])
        thread.join()
    assert received == [odd, *records()]


def test_a_server_that_is_away_is_an_error_over_tcp():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="refused"):
            gelf.send(f"tcp://127.0.0.1:{closed.getsockname()[1]}", records())
