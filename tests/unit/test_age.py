from __future__ import annotations

import os
import pty
import stat
import subprocess
import sys

import pytest

from stackward.core.errors import RefusedError, SettingsError, StackwardError
from stackward.tools import age
from stackward.tools.process import CommandError


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "age.key"
    return path, age.generate_key(path)


def encrypt(tmp_path, plain: bytes, *recipients: str):
    path = tmp_path / "file.age"
    with open(path, "wb") as file, age.encrypting(recipients, file) as sink:
        sink.write(plain)
    return path


def decrypt(identity, path) -> bytes:
    with open(path, "rb") as file, age.decrypting(identity, file) as plain:
        return plain.read()


def test_what_is_encrypted_is_decrypted_with_the_identity_alone(tmp_path, key):
    plain = os.urandom(3 << 20)
    path = encrypt(tmp_path, plain, key[1])
    assert plain[:100] not in path.read_bytes()
    assert decrypt(key[0], path) == plain
    assert subprocess.run(["age", "-d", "-i", key[0], path], capture_output=True, check=True).stdout == plain


def test_nothing_encrypted_is_nothing_decrypted(tmp_path, key):
    assert decrypt(key[0], encrypt(tmp_path, b"", key[1])) == b""


def test_each_of_several_recipients_can_decrypt(tmp_path, key):
    other = tmp_path / "other.key"
    path = encrypt(tmp_path, b"x", key[1], age.generate_key(other))
    assert decrypt(key[0], path) == decrypt(other, path) == b"x"


def test_a_key_is_private_and_never_replaced(key):
    path, recipient = key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert recipient.startswith("age1")
    assert age.recipients_of(path) == (recipient,)
    with pytest.raises(StackwardError, match="there already"):
        age.generate_key(path)


def test_the_wrong_identity_is_refused_with_a_hint(tmp_path, key):
    other = tmp_path / "other.key"
    age.generate_key(other)
    with pytest.raises(RefusedError, match="were not encrypted for"):
        decrypt(other, encrypt(tmp_path, b"x", key[1]))


def test_a_missing_identity_is_refused(tmp_path, key):
    with pytest.raises(RefusedError, match="is not there"):
        decrypt(tmp_path / "none", encrypt(tmp_path, b"x", key[1]))


def test_damage_is_an_error(tmp_path, key):
    path = encrypt(tmp_path, b"x" * 200_000, key[1])
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CommandError):
        decrypt(key[0], path)


@pytest.mark.parametrize("wrong", ["age1nonsense", "", "AGE-SECRET-KEY-1QQQQ", "-i", "/etc/passwd"])
def test_a_wrong_recipient_is_a_wrong_setting(tmp_path, wrong):
    with pytest.raises(SettingsError, match="STACKWARD_AGE_RECIPIENTS"):
        age.check_recipients([wrong])
    with pytest.raises(SettingsError, match="STACKWARD_AGE_RECIPIENTS") as caught:
        encrypt(tmp_path, b"x" * 1_000_000, wrong)
    assert "SECRET-KEY-1" not in str(caught.value)


def test_a_good_recipient_passes_and_none_does_not(key):
    age.check_recipients([key[1]])
    with pytest.raises(SettingsError, match="no age recipient"):
        age.check_recipients([])


def on_a_terminal(argv, *, answer):
    """Run a program on a terminal of its own and type the answer whenever it asks for a passphrase; returns what it said."""
    child, terminal = pty.fork()
    if child == 0:
        os.execvp(argv[0], [os.fspath(part) for part in argv])
    said, answered = b"", 0
    with open(terminal, "r+b", buffering=0) as file:
        try:
            while chunk := file.read(1000):
                said += chunk
                while answered < said.count(b"passphrase") and said.rstrip().endswith(b":"):
                    file.write(answer + b"\n")
                    answered = said.count(b"passphrase")
        except OSError:  # the terminal of a process that has ended
            pass
    assert os.waitpid(child, 0)[1] == 0, said
    return said


def test_an_identity_with_a_passphrase_asks_for_it_on_our_terminal(tmp_path):
    recipient = age.generate_key(tmp_path / "key")
    with open(tmp_path / "secret.age", "wb") as file, age.encrypting([recipient], file) as sink:
        sink.write(b"hello")
    on_a_terminal(["age", "-p", "-o", tmp_path / "key.age", tmp_path / "key"], answer=b"correct horse")
    script = (
        "import sys, pathlib\n"
        f"sys.path[:0] = {sys.path!r}\n"
        "from stackward.tools import age\n"
        f"with open({str(tmp_path / 'secret.age')!r}, 'rb') as file:\n"
        f"    with age.decrypting(pathlib.Path({str(tmp_path / 'key.age')!r}), file) as plain:\n"
        "        print('plain', plain.read())\n"
    )
    assert b"plain b'hello'" in on_a_terminal([sys.executable, "-c", script], answer=b"correct horse")
