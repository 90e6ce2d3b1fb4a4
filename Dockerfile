# One image for the API, the worker and the migrations; the command says which.

FROM python:3.11.14-slim-bookworm AS build
COPY requirements-service.txt .
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir -r requirements-service.txt

FROM python:3.11.14-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home moderation
WORKDIR /app
COPY --from=build /venv /venv
COPY main.py settings.py model.pkl model.json ./
COPY api/ api/
COPY broker/ broker/
COPY db/ db/
COPY migrations/ migrations/
COPY scoring/ scoring/
COPY submissions/ submissions/
COPY tasks/ tasks/
# The user of the image cannot write bytecode; without it each start compiles 250 files.
RUN python -m compileall -q .
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER moderation
CMD ["python", "main.py"]
