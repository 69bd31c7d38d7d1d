# The `deploy` command in an image: docker run -v "$PWD:/work" onnx-deploy build model.onnx …
# BASE is any image with Python 3.11 or newer, venv and pip; for reproducible builds give it by
# digest. With NVIDIA's libraries, which the image brings along:
#   docker build --build-arg BASE=nvcr.io/nvidia/tensorrt:26.05-py3 --build-arg SYSTEM_PACKAGES=yes .
# EXTRAS adds optional parts: --build-arg EXTRAS='[serve]' for `deploy serve`.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
ARG EXTRAS=
ARG SYSTEM_PACKAGES=
COPY . /source
# pip stays outside of what the last stage gets
RUN python3 -m venv --without-pip ${SYSTEM_PACKAGES:+--system-site-packages} /opt/deploy \
 && python3 -m pip --python /opt/deploy/bin/python install --no-cache-dir \
      -c /source/constraints.txt "/source${EXTRAS}"

FROM ${BASE}
COPY --from=build /opt/deploy /opt/deploy
# numeric, so that orchestrators can check it is not root
USER 10001:10001
WORKDIR /work
ENV PATH=/opt/deploy/bin:$PATH PYTHONUNBUFFERED=1
# a command isn't a service: healthy is where it starts
HEALTHCHECK --interval=30s --timeout=10s --start-period=10s --retries=3 CMD ["deploy", "--version"]
ENTRYPOINT ["deploy"]
CMD ["--help"]
