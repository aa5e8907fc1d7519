"""`/healthz`: this process answers. `/readyz`: it can do its work."""

import logging
from collections.abc import Callable, Mapping

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from schemas.errors import first_line

log = logging.getLogger(__name__)


def routes(checks: Mapping[str, Callable[[], None]]) -> list[Route]:
    """The two routes.

    Args:
        checks: what readiness needs -> a function that raises if it is not there, in a thread.
    """

    async def healthz(_request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def readyz(_request: Request) -> JSONResponse:
        missing = []
        for name, check in checks.items():
            try:
                await run_in_threadpool(check)
            except Exception as error:
                log.warning("not ready: %s: %s", name, first_line(error))
                missing.append(name)
        status = 503 if missing else 200
        said = {"status": "unavailable" if missing else "ok", "missing": missing}
        headers = {"Retry-After": "5"} if missing else None
        return JSONResponse(said, status, headers=headers)

    return [Route("/healthz", healthz), Route("/readyz", readyz)]
