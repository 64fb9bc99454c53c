# The service, on a CPU: docker build -t gossamer .
# deploy/compose.yaml runs it; Dockerfile.gpu is for NVIDIA's GPUs.
FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/gossamer
ENV PATH=/opt/gossamer/bin:$PATH
WORKDIR /src
# of an index that has torch without CUDA, where the usual one does not: the image is gigabytes smaller by that
ARG PIP_EXTRA_INDEX_URL

# what changes least first: a change of the code does not install its dependencies again
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
      > needs.txt \
 && pip install --only-binary :all: -c constraints.txt -r needs.txt
COPY . .
RUN pip install -c constraints.txt '.[dense]' \
 && pip uninstall -y pip setuptools

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/gossamer --shell /usr/sbin/nologin gossamer \
 && install -d -o gossamer -g gossamer -m 0750 /var/lib/gossamer
COPY --from=build /opt/gossamer /opt/gossamer
COPY deploy/service.toml /etc/gossamer/service.toml
# kernels that were compiled, and whatever else is cached, stay on the volume: a new container starts warm
ENV PATH=/opt/gossamer/bin:$PATH \
    HOME=/var/lib/gossamer \
    NUMBA_CACHE_DIR=/var/lib/gossamer/.cache/numba \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /var/lib/gossamer
VOLUME /var/lib/gossamer
EXPOSE 8080
# not curl, which is not here, nor urllib, which would ask a proxy
HEALTHCHECK --interval=10s --timeout=5s --start-period=180s --retries=3 CMD ["python", "-c", \
  "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8080, timeout=4); c.request('GET', '/readyz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["gossamer"]
CMD ["serve", "--config", "/etc/gossamer/service.toml"]
