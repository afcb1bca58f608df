"""Durations and sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightcone.system.units import format_bytes, format_seconds, parse_bytes, parse_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        (90, 90.0),
        (0.5, 0.5),
        ("0.5", 0.5),
        ("30s", 30.0),
        ("30m", 1800.0),
        ("30 min", 1800.0),
        ("250ms", 0.25),
        ("2h", 7200.0),
        ("1h30m", 5400.0),
        ("1H 30M", 5400.0),
        (" 1d ", 86400.0),
        ("1d2h3m4s", 93784.0),
        ("1.5h", 5400.0),
        ("0", 0.0),
    ],
)
def test_durations(text: str | int | float, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", " ", "soon", "1x", "-5", "h", "1h later", "1:30", True, None])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_seconds(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1024", 1024),
        (1024, 1024),
        ("0", 0),
        ("16Gi", 16 << 30),
        ("16 GiB", 16 << 30),
        ("512Mi", 512 << 20),
        ("500M", 500_000_000),
        ("8GB", 8_000_000_000),
        ("1k", 1000),
        ("1Ki", 1024),
        ("1.5Ti", 3 << 39),
        ("10b", 10),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "lots", "16 Gigs", "-1", "1e9", "16Gii", True, None])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (99.4, "99 s"),
        (180.0, "3 min"),
        (3599.0, "1 h"),
        (3900.0, "1 h 5 min"),
        (86400.0, "1 d"),
        (183600.0, "2 d 3 h"),
    ],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (512, "512 B"),
        (1536, "1.5 KiB"),
        (25_125_558_681, "23.4 GiB"),
        (5 << 40, "5.0 TiB"),
        (5000 << 40, "5000.0 TiB"),
    ],
)
def test_sizes_for_people(size: float, text: str) -> None:
    assert format_bytes(size) == text


@given(st.text())
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    try:
        assert parse_seconds(text) >= 0
    except ValueError as error:
        assert repr(text) in str(error)


@given(st.text())
def test_any_text_is_a_size_or_refused(text: str) -> None:
    try:
        assert parse_bytes(text) >= 0
    except ValueError as error:
        assert repr(text) in str(error)
