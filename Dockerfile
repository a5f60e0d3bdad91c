# The page and the API in a container:
# docker build -t brainseg . && docker run --rm -p 127.0.0.1:5000:5000 --read-only --tmpfs /tmp brainseg
# The last stage has neither TensorFlow nor DVC; the released model, from weights/, is inside.
# tests/tools/test_container.py replays these steps.

FROM node:24-bookworm-slim AS page
WORKDIR /build/web
COPY web/package.json web/package-lock.json ./
RUN npm ci --ignore-scripts
COPY web ./
RUN npm run build

FROM python:3.12-slim-bookworm AS install
WORKDIR /build
COPY requirements-serve.txt ./
RUN python -m venv /opt/brainseg \
 && /opt/brainseg/bin/python -m pip install --no-cache-dir --require-hashes -r requirements-serve.txt
COPY pyproject.toml README.md LICENSE dvc.lock ./
COPY src ./src
COPY tools ./tools
COPY weights ./weights
COPY examples/patients.zip.dvc ./examples/
COPY --from=page /build/src/brainseg/server/page ./src/brainseg/server/page
RUN /opt/brainseg/bin/python -m pip install --no-cache-dir --no-deps . \
 && /opt/brainseg/bin/python tools/copy_released.py /opt/brainseg/models \
 && /opt/brainseg/bin/python tools/copy_released.py /opt/brainseg/examples examples/patients.zip

FROM python:3.12-slim-bookworm
LABEL org.opencontainers.image.title="brainseg" \
      org.opencontainers.image.description="Outlines lower-grade gliomas on brain MRI. Research use only." \
      org.opencontainers.image.licenses="Apache-2.0 AND CC-BY-NC-SA-4.0"
RUN useradd --system --uid 10001 --no-create-home brainseg
COPY --from=install /opt/brainseg /opt/brainseg
WORKDIR /opt/brainseg
ENV PATH=/opt/brainseg/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:5000/health', timeout=2)"]
CMD ["brainseg", "serve", "--host", "0.0.0.0", "--port", "5000", "--model", "models/unet.onnx"]
