FROM python:3.12-slim

ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 PRECEDENT_HOME=/data
WORKDIR /opt/precedent
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY retrieval retrieval
COPY indexer indexer
COPY api api
COPY migrations migrations
RUN pip install -c constraints.txt '.[faiss-cpu,postgres,milvus]' \
    && useradd --create-home --uid 10001 precedent \
    && mkdir /data && chown precedent /data

USER precedent
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=4)"]
# All interfaces: refused until a key exists (precedent keys create NAME --scope read).
CMD ["precedent", "serve", "--host", "0.0.0.0", "--port", "8000"]
