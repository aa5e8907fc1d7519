"""Every line of the log says which process speaks."""

import re
import subprocess
import sys


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


def test_handlers_of_others_are_taken_over_without_dramatiqs_lines_of_each_attempt() -> None:
    said = lines(
        "logging.basicConfig(level='INFO', format='theirs %(message)s');"
        " logs.take_over('worker web');"
        " log = logging.getLogger('dramatiq.worker');"
        " log.critical('Consumer encountered a connection error: %s', 'x');"
        " log.info('Restarting consumer in %0.2f seconds.', 3.0);"
        " log.info('Worker process is ready for action.')"
    )

    assert len(said) == 1
    assert re.search(r"INFO worker web\[\d+\] dramatiq\.worker: Worker process is ready", said[0])


def test_pika_says_nothing() -> None:
    assert lines("logs.configure('relay', 'DEBUG'); logging.getLogger('pika.x').error('e')") == []
