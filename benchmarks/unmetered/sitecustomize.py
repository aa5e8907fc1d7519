"""First on ``PYTHONPATH``: processes that count nothing, to see what counting costs."""

from typing import Any

from prometheus_client import values


class _Nothing:
    _multiprocess = False

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def inc(self, *_: Any, **__: Any) -> None:
        pass

    def set(self, *_: Any, **__: Any) -> None:
        pass

    def set_exemplar(self, *_: Any, **__: Any) -> None:
        pass

    def get(self) -> float:
        return 0.0

    def get_exemplar(self) -> None:
        return None


values.ValueClass = _Nothing
