"""Every line of the log says which process speaks."""

import json
import logging
import re
import subprocess
import sys
from datetime import datetime

import pytest

from schemas import logs


def lines(code: str) -> list[str]:
    program = f"import logging; from schemas import logs; {code}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stderr.splitlines()


def test_line_names_the_process_and_its_id() -> None:
    (line,) = lines("logs.configure('relay', 'INFO'); logging.getLogger('a.b').info('hello')")

    assert re.fullmatch(r"\S+ \S+ INFO relay\[\d+\] a\.b: hello", line)


def test_name_can_become_more_particular() -> None:
    (line,) = lines(
        "logs.configure('worker', 'INFO'); logs.name_process('worker web');"
        " logging.getLogger('a').warning('x')"
    )

    assert " WARNING worker web[" in line


def test_dramatiqs_lines_of_each_attempt_are_left_out() -> None:
    said = lines(
        "logs.configure('worker', 'INFO', 'text');"
        " logs.configure('worker web', 'INFO', 'text', dramatiq=True);"
        " log = logging.getLogger('dramatiq.worker');"
        " log.critical('Consumer encountered a connection error: %s', 'x');"
        " log.info('Restarting consumer in %0.2f seconds.', 3.0);"
        " log.info('Worker process is ready for action.')"
    )

    assert len(said) == 1
    assert re.search(r"INFO worker web\[\d+\] dramatiq\.worker: Worker process is ready", said[0])


def test_pika_says_nothing() -> None:
    assert lines("logs.configure('relay', 'DEBUG'); logging.getLogger('pika.x').error('e')") == []


def test_line_for_programs_is_one_object_with_its_fields() -> None:
    said = lines(
        "logs.configure('relay', 'INFO', 'json'); log = logging.getLogger('a.b');\n"
        "with logs.about(queue='web', order=None): logs.say(log, 'ran\\nx', tasks=3)\n"
        "log.warning('later')"
    )

    first, second = map(json.loads, said)
    assert datetime.fromisoformat(first.pop("time")).tzinfo is not None
    assert first.pop("pid") > 0
    assert first == {
        "level": "INFO", "process": "relay", "logger": "a.b", "message": "ran x",
        "queue": "web", "tasks": 3,
    }  # fmt: skip
    assert "queue" not in second


def test_fields_follow_the_message_for_people() -> None:
    (line,) = lines(
        "logs.configure('relay', 'INFO', 'text');"
        " logs.say(logging.getLogger('a'), 'ran', tasks=3, seconds=0.01234567, key='a b')"
    )

    assert line.endswith(' a: ran tasks=3 seconds=0.01235 key="a b"')


def test_format_by_itself_is_for_programs_where_no_terminal_is() -> None:
    (line,) = lines("logs.configure('relay', 'INFO', 'auto'); logging.getLogger('a').info('x')")

    assert json.loads(line)["message"] == "x"


def test_line_break_in_what_others_wrote_makes_no_second_line() -> None:
    (line,) = lines(
        "logs.configure('relay', 'INFO', 'text');"
        " logging.getLogger('a').info('name %s', 'x\\r\\n2026 ERROR forged\\x1b[31m')"
    )

    assert line.endswith("a: name x  2026 ERROR forged [31m")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("cannot reach postgresql://api:hunter2@db/x", "cannot reach postgresql://api:***@db/x"),
        ("GET https://u:p%40ss@far/x?y=1 failed", "GET https://u:***@far/x?y=1 failed"),
        ("Authorization: Bearer abc.DEF-123456", "Authorization: ***"),
        ("sent bearer abcdef123456 to it", "sent bearer *** to it"),
        ('{"token": "tok_123456", "a": 1}', '{"token": "***", "a": 1}'),
        ("password=hunter2&x=1", "password=***&x=1"),
        ("the token has expired", "the token has expired"),
        ("order k-1: 3 tokens left", "order k-1: 3 tokens left"),
        ("https://example.com/path?q=a@b", "https://example.com/path?q=a@b"),
    ],
)
def test_secrets_are_left_out(text: str, kept: str) -> None:
    assert logs.redacted(text) == kept


def test_last_lines_of_what_is_listened_to_are_kept() -> None:
    log = logging.getLogger("listened")
    with logs.listening() as kept:
        for number in range(logs.MOST_LINES + 5):
            logs.note(log, f"line {number} password=hunter2")
    logs.note(log, "not listened to any more")

    assert len(kept) == logs.MOST_LINES
    assert re.fullmatch(r"\S+Z line 24 password=\*\*\*", kept[-1])
