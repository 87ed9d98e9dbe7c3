# Images of the service (cpu, cuda), the mock and the contract tests; docs/DEPLOYMENT.md says how to run
# them. The mock is what is built if no target is named:
#
#     docker build -t upscaler-mock .
#     docker build --target cpu -t upscaler .
#
# None is run by root, and each works with a read-only root: the service writes to /data alone, and the
# contract tests to /reports.

# The Python that locks/ is made for.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS packages
# Without pip in it, which nothing needs that runs.
RUN python -m venv --without-pip /venv
ENV PATH=/venv/bin:$PATH PIP_PYTHON=/venv/bin/python PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY constraints.txt locks/front.txt locks/gpu.txt ./
RUN pip install --require-hashes --no-deps --requirement front.txt

# Of CPUs: torch from PyTorch's index, since PyPI's for Linux comes with several GB of CUDA.
FROM packages AS cpu-packages
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-deps --index-url "$TORCH_INDEX" --constraint constraints.txt torch \
    && awk '/^[^ ]/ { wanted = !/^(torch|triton|nvidia-|cuda-)/ } wanted' gpu.txt > cpu.txt \
    && pip install --require-hashes --no-deps --requirement cpu.txt

FROM packages AS cuda-packages
RUN pip install --require-hashes --no-deps --requirement gpu.txt

# By itself, so that a change of our own code downloads none of the packages again.
FROM scratch AS source
COPY pyproject.toml README.md LICENSE /
COPY docs/photo.png /docs/
COPY upscaler /upscaler
COPY mock_server /mock_server
COPY contract_tests /contract_tests

# Each of these adds what the locks leave out, in the versions of constraints.txt.
FROM packages AS mock-venv
COPY --from=source / ./
ARG SETUPTOOLS_SCM_PRETEND_VERSION
RUN pip install --constraint constraints.txt .

FROM packages AS contract-venv
COPY --from=source / ./
ARG SETUPTOOLS_SCM_PRETEND_VERSION
RUN pip install --constraint constraints.txt '.[contract]'

FROM cpu-packages AS cpu-venv
COPY --from=source / ./
ARG SETUPTOOLS_SCM_PRETEND_VERSION
RUN pip install --constraint constraints.txt '.[engine]'

FROM cuda-packages AS cuda-venv
COPY --from=source / ./
ARG SETUPTOOLS_SCM_PRETEND_VERSION
RUN pip install --constraint constraints.txt '.[engine]'

FROM python:${PYTHON}-slim AS runtime
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1

FROM runtime AS contract
COPY --from=contract-venv /venv /venv
RUN install --directory --owner 10001 --group 10001 /reports
# Nobody that a volume or a host would know.
USER 10001:10001
WORKDIR /reports
ENTRYPOINT ["upscaler-contract"]

FROM runtime AS server
EXPOSE 8000
# By http.client, since urllib would send it to the proxy of HTTP_PROXY.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s CMD ["python", "-c", "from http.client import HTTPConnection as C; c = C('127.0.0.1', 8000, timeout=2); c.request('HEAD', '/livez'); raise SystemExit(c.getresponse().status != 200)"]

FROM server AS service
# Jobs and results, weights that were downloaded, compiled kernels, and temporary files, which are made
# in the working directory where there is no other place that may be written.
ENV HOME=/data UPSCALER_DATA=/data
RUN install --directory --owner 10001 --group 10001 /data
VOLUME /data
WORKDIR /data
USER 10001:10001
ENTRYPOINT ["upscaler"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]

FROM service AS cpu
COPY --from=cpu-venv /venv /venv

# PyPI's torch brings CUDA along: of the host it needs the driver alone, and NVIDIA's container toolkit.
FROM service AS cuda
USER 0
# Triton compiles what calls its kernels, in C. Debian keeps no older versions to pin.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY --from=cuda-venv /venv /venv
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility UPSCALER_DEVICE=cuda
USER 10001:10001

FROM server AS mock
COPY --from=mock-venv /venv /venv
USER 10001:10001
ENTRYPOINT ["upscaler-mock", "--host", "0.0.0.0", "--port", "8000"]
