"""Lines of the log: one for each event, whatever strangers wrote into it."""

from __future__ import annotations

import json
import logging

import pytest

from ml_inference.telemetry import configure_logging, early_lines


@pytest.fixture(autouse=True)
def _undone():
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_message_that_quotes_a_hub_stays_one_line(style, capsys):
    configure_logging(style, "info")
    logging.getLogger("hub").warning("hub: %s", "away\n2026-01-01 [error] forged\r\x1b[2J")
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert "forged" in written
    assert not {"\r", "\x1b"} & set(written)


def test_what_is_logged_before_the_style_is_known_comes_out_in_that_style(capsys):
    with early_lines():
        logging.getLogger("early").warning("one")
        logging.getLogger("early").warning("two")
        configure_logging("json", "warning")
    events = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert events == ["one", "two"]
