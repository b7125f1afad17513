# syntax=docker/dockerfile:1
# spanproof serve: OTLP on 4317 (gRPC) and 4318 (HTTP), API on 8321, spans in the volume /data.

FROM python:3.12-slim AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip pip wheel --no-deps --wheel-dir /dist .

FROM python:3.12-slim
# Such as nats,kafka: what proofs need to publish messages; demo has the shop.
ARG EXTRAS=""
COPY constraints.txt /dist/
COPY --from=build /dist /dist
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint /dist/constraints.txt "$(echo /dist/*.whl)${EXTRAS:+[$EXTRAS]}"
RUN install --directory --owner=10001 --group=10001 /data
ENV PYTHONUNBUFFERED=1
USER 10001:10001
VOLUME /data
EXPOSE 4317 4318 8321
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8321/healthz', timeout=2)"]
# In a container, serve has to listen beyond loopback, to be reached at all. Publish the ports only to those who may
# read and write the traces, or mount a file of tokens, set SPANPROOF_TOKEN_FILE to it, and leave out the flag.
CMD ["spanproof", "serve", "--db", "/data/spanproof.duckdb", "--otlp-grpc", "0.0.0.0:4317", \
     "--otlp-http", "0.0.0.0:4318", "--api", "0.0.0.0:8321", "--insecure-no-auth"]
