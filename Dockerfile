# Two images from one source: `control-plane` runs the API and the worker, `agent` runs the agent.
# Each holds the packages of its own extra only, at the versions pinned in requirements/.

FROM python:3.11-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /source
COPY pyproject.toml README.md ./
COPY requirements requirements
COPY sql sql
COPY sb sb
COPY sb_agent sb_agent
COPY sb_worker sb_worker
RUN pip wheel --no-deps --wheel-dir /wheels .

FROM build AS build-control-plane
RUN python -m venv /opt/secrets-bridge \
 && wheel=$(echo /wheels/*.whl) \
 && /opt/secrets-bridge/bin/pip install --constraint requirements/all.txt "${wheel}[server]"

FROM build AS build-agent
RUN python -m venv /opt/secrets-bridge \
 && wheel=$(echo /wheels/*.whl) \
 && /opt/secrets-bridge/bin/pip install --constraint requirements/agent.txt "${wheel}[agent]"

FROM python:3.11-slim AS runtime
RUN groupadd --gid 65532 bridge \
 && useradd --uid 65532 --gid bridge --no-create-home --shell /usr/sbin/nologin bridge \
 && install -d -m 0700 -o bridge -g bridge /var/lib/secrets-bridge
ENV PATH=/opt/secrets-bridge/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /var/lib/secrets-bridge
USER 65532:65532

FROM runtime AS agent
COPY --from=build-agent /opt/secrets-bridge /opt/secrets-bridge
CMD ["sb", "agent"]

FROM runtime AS control-plane
COPY --from=build-control-plane /opt/secrets-bridge /opt/secrets-bridge
EXPOSE 8080 8091
CMD ["sb", "api"]
