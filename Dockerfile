# No torch, no weights, no root: the mock, and the contract tests.
#
#     docker build -t upscaler-mock .
#     docker run --rm -p 8001:8000 upscaler-mock --token secret
#
#     docker build --target contract -t upscaler-contract .
#     docker run --rm -e UPSCALER_TOKEN -v "$PWD/reports:/reports" --user "$(id -u)" \
#         upscaler-contract --base-url https://... --html contract.html
#
# Options go behind. The mock's port within is always 8000, and reports are written to /reports.
FROM python:3.11-slim AS source

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY pyproject.toml constraints.txt README.md LICENSE /source/
COPY docs/photo.png /source/docs/
COPY upscaler /source/upscaler
COPY mock_server /source/mock_server
COPY contract_tests /source/contract_tests

FROM source AS contract
RUN pip install --constraint /source/constraints.txt '/source[contract]' && rm -r /source \
    && mkdir /reports && chown 10001:10001 /reports
# Nobody that a volume or a host would know.
USER 10001:10001
WORKDIR /reports
ENTRYPOINT ["upscaler-contract"]

FROM source AS mock
RUN pip install --constraint /source/constraints.txt /source && rm -r /source
USER 10001:10001
EXPOSE 8000
# By http.client, since urllib would send it to the proxy of HTTP_PROXY.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s CMD ["python", "-c", "from http.client import HTTPConnection as C; c = C('127.0.0.1', 8000, timeout=2); c.request('HEAD', '/livez'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["upscaler-mock", "--host", "0.0.0.0", "--port", "8000"]
