# The mock alone: no torch, no weights, no root.
#
#     docker build -t upscaler-mock .
#     docker run --rm -p 8001:8000 upscaler-mock --token secret
#
# Options go behind; the port within is always 8000.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY pyproject.toml constraints.txt README.md LICENSE /source/
COPY docs/photo.png /source/docs/
COPY upscaler /source/upscaler
COPY mock_server /source/mock_server
COPY contract_tests /source/contract_tests
RUN pip install --constraint /source/constraints.txt /source && rm -r /source

# Nobody that a volume or a host would know.
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
ENTRYPOINT ["upscaler-mock", "--host", "0.0.0.0", "--port", "8000"]
