# One image for the head, the workers and jobs: `docker build -t schn-ray:0.1.0 .`
# Run with --shm-size of a third of the machine's memory, where Ray keeps its objects.
FROM python:3.11-slim

RUN useradd --create-home --uid 1000 ray \
    && apt-get update \
    && apt-get install --yes --no-install-recommends openssh-client rsync wget \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/schn-ray
COPY requirements.lock .
RUN pip install --no-cache-dir --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY schn_ray schn_ray
# the wheel that tests/test_wheel.py builds; the sources go, so that only the wheel is imported
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir dist . \
    && pip install --no-cache-dir --no-deps dist/schn_ray-*.whl \
    && rm -rf build dist schn_ray schn_ray.egg-info

USER ray
WORKDIR /home/ray
ENV RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
