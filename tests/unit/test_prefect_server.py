"""Our Prefect servers: their address and their secret."""

import re

import pytest
from prefect.settings import PREFECT_HOME, temporary_settings

from orchestration.prefect.server import SECRET, api_address, auth_string
from runtime.errors import UserError


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("http://127.0.0.1:4200/api", "http://127.0.0.1:4200/api"),
        ("http://127.0.0.1:4200/api/", "http://127.0.0.1:4200/api"),
        ("http://127.0.0.1:4200", "http://127.0.0.1:4200/api"),
        (" http://127.0.0.1:4200/ ", "http://127.0.0.1:4200/api"),
        ("https://example.org/a/path/api", "https://example.org/a/path/api"),
    ],
)
def test_an_address_that_is_clear_is_understood(given, meant):
    assert api_address(given) == meant


@pytest.mark.parametrize(
    "given", ["nonsense", "localhost:4200/api", "ftp://host/api", "http://", "http://host:port/api"]
)
def test_an_address_that_is_none_is_refused_with_its_value_and_the_remedy(given):
    with pytest.raises(UserError, match=re.escape(f"PREFECT_API_URL ({given}) is no address")) as caught:
        api_address(given)
    assert "http://HOST:PORT/api" in str(caught.value)


def test_the_secret_stays_the_same_and_a_damaged_one_is_replaced(tmp_path):
    with temporary_settings({PREFECT_HOME: tmp_path}):
        first = auth_string()
        (tmp_path / SECRET).chmod(0o644)
        assert auth_string() == first
        assert (tmp_path / SECRET).stat().st_mode & 0o777 == 0o600
        (tmp_path / SECRET).write_text(first[:10])
        second = auth_string()
        assert second == auth_string() != first
        assert (tmp_path / SECRET).stat().st_mode & 0o777 == 0o600
