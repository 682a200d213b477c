"""Keys: where they come from, what is kept of them, and how their limits count."""

import pytest

from dynasor.errors import ConfigError
from serving.key_limits import Bucket
from serving.keys import ADMINS, USERS, hash_of, load_keys, new_key
from serving.server import keys_of
from tests.serving.running_server import settings


def test_a_bucket_fills_at_its_rate_and_remembers_its_debt():
    now = [0.0]
    bucket = Bucket(60, clock=lambda: now[0])
    assert bucket.wait(60) == 0
    bucket.take(90)
    assert bucket.wait(1) == pytest.approx(31)
    now[0] = 31
    assert bucket.wait(1) == pytest.approx(0)
    now[0] = 1e6
    assert bucket.wait(60) == 0
    assert bucket.wait(61) == 0  # more than it holds is as good as full


def test_a_public_server_without_keys_must_be_told_twice(monkeypatch):
    for variable in (USERS, ADMINS):
        monkeypatch.delenv(variable, raising=False)
    assert not keys_of(settings())
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):
        with pytest.raises(ConfigError, match="allow_public_without_keys"):
            keys_of(settings(host=host))
    assert not keys_of(settings(host="0.0.0.0", allow_public_without_keys=True))
    monkeypatch.setenv(USERS, "0123456789abcdef")
    assert len(keys_of(settings(host="0.0.0.0"))) == 1


def test_keys_come_from_a_file_of_hashes_or_from_the_environment(tmp_path):
    secret = new_key()
    file = tmp_path / "keys.toml"
    file.write_text(f'[[key]]\nname = "a"\nsha256 = "{hash_of(secret)}"\nconcurrent = 2\n')
    found = load_keys(file, {}).find(secret)
    assert (found.name, found.concurrent, found.admin) == ("a", 2, False)
    assert secret not in file.read_text()
    assert secret not in repr(found)
    both = load_keys(None, {USERS: "u" * 20 + ", " + "v" * 20, ADMINS: "w" * 20})
    assert both.find("w" * 20).admin
    assert both.find("v" * 20).name == "user-2"
    assert both.find("") is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", r"\[\[key\]\]"),
        ("key = 3", r"\[\[key\]\]"),
        ("[[key]]\nname = 'a'\nsha256 = 'short'", "key 1: sha256"),
        ("[[key]]\nname = 'a'\nsecret = 'x'", "key 1"),
        ("[[key]", "TOML"),
    ],
)
def test_a_wrong_file_of_keys_is_one_clear_error(tmp_path, content, problem):
    file = tmp_path / "keys.toml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=problem):
        load_keys(file, {})
    with pytest.raises(ConfigError, match="shorter"):
        load_keys(None, {USERS: "short"})
