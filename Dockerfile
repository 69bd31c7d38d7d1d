# The `deploy` command in an image: docker run -v "$PWD:/work" onnx-deploy build model.onnx …
# BASE is any image with Python 3.11 or newer and pip; for reproducible builds give it by digest.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
COPY . /source
RUN python -m venv /opt/deploy \
 && /opt/deploy/bin/pip install --no-cache-dir -c /source/constraints.txt /source

FROM ${BASE}
COPY --from=build /opt/deploy /opt/deploy
# numeric, so that orchestrators can check it is not root
USER 10001:10001
WORKDIR /work
ENV PATH=/opt/deploy/bin:$PATH PYTHONUNBUFFERED=1
ENTRYPOINT ["deploy"]
CMD ["--help"]
