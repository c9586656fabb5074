# The server with a folder of champions. Export these first, for each model that is to be served:
#   .venv/bin/dvc artifacts get . iris_mlp --stage champion --out champions/iris_mlp/v0.0.3
# where v0.0.3 is its version by `.venv/bin/python -m flows.registry list`. Then:
#   docker build --tag heaviside .
#   docker run --publish 8500:8500 --env HEAVISIDE_SERVE_TOKEN=... heaviside
FROM python:3.11-slim

WORKDIR /app
COPY requirements.lock /app/
RUN pip install --no-cache-dir --require-hashes --requirement requirements.lock

COPY pyproject.toml /app/
COPY runtime /app/runtime
COPY config /app/config
COPY datasets /app/datasets
COPY models /app/models
COPY tasks /app/tasks
COPY orchestration /app/orchestration
COPY serving /app/serving
COPY flows /app/flows
COPY champions /champions

# Prefect and Keras, which the command line imports, get a folder that this user may write.
RUN useradd --create-home --uid 1000 heaviside && chown heaviside /app
USER heaviside
ENV PYTHONUNBUFFERED=1
EXPOSE 8500
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
  CMD python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8500/v2/health/ready', timeout=4)"
CMD ["python", "-m", "flows.serve", "--models", "/champions", "--host", "0.0.0.0"]
