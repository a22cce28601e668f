# The image that runs the server, in two variants:
#
#   docker build -t gptoss .                                                      NVIDIA GPUs; also runs on a CPU
#   docker build -t gptoss:cpu --build-arg VARIANT=cpu --build-arg TORCH_INDEX=URL .   CPU only, 1.3 GB
#
# URL is the index of torch's CPU wheels, which pytorch.org/get-started shows for Linux, pip and CPU.
#
#   base          Debian with Python ─┬─ dependencies ── application   have compilers; not part of the image
#                                     └─ cpu ── cuda ── the image      copies what they have built

# Another base image needs apt-get, and Python 3.11, for which deploy/requirements/ is locked.
ARG BASE_IMAGE=docker.io/library/debian:bookworm-slim
ARG VARIANT=cuda

# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS base
SHELL ["/bin/sh", "-euc"]
# Debian's packages have no versions here: the newest ones have all security fixes, and old ones are not available.
# hadolint ignore=DL3008
RUN apt-get update; \
    apt-get install --yes --no-install-recommends ca-certificates libstdc++6 python3 tini; \
    rm -rf /var/lib/apt/lists/*


FROM base AS dependencies
# hadolint ignore=DL3008
RUN apt-get update; \
    apt-get install --yes --no-install-recommends g++ python3-dev python3-pip python3-venv; \
    rm -rf /var/lib/apt/lists/*
ARG VARIANT
ARG TORCH_INDEX=
COPY deploy/requirements/${VARIANT}.txt deploy/requirements/build.txt /build/
# pip is not installed in the environment into which it installs.
RUN if [ "${VARIANT}" = cpu ] && [ -z "${TORCH_INDEX}" ]; then \
        echo "VARIANT=cpu needs --build-arg TORCH_INDEX=URL: the index of torch's CPU wheels" >&2; exit 1; \
    fi; \
    python3 -m venv --without-pip /opt/gptoss; \
    pip --python /opt/gptoss/bin/python install --no-cache-dir --require-hashes --only-binary :all: \
        ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} --requirement "/build/${VARIANT}.txt"


# Separate from the dependencies, so that their layer stays the same when only the project changes.
FROM dependencies AS application
WORKDIR /build
RUN python3 -m venv tools; \
    tools/bin/pip install --no-cache-dir --require-hashes --requirement build.txt
COPY pyproject.toml setup.py README.md ./
COPY gptoss gptoss
COPY server server
COPY language language
COPY engine engine
COPY model model
COPY demo demo
RUN tools/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir wheels .; \
    pip --python /opt/gptoss/bin/python install --no-cache-dir --no-deps --prefix /application wheels/*.whl


# Compile now what Triton would compile with a C compiler at its first use: see deploy/image/triton_driver.py.
FROM dependencies AS triton
ENV TRITON_CACHE_DIR=/var/cache/triton TRITON_LIBCUDA_PATH=/usr/lib/x86_64-linux-gnu
COPY deploy/image/triton_driver.py /build/
RUN /opt/gptoss/bin/python /build/triton_driver.py /opt/stand-in


FROM base AS cpu
RUN groupadd --gid 10001 gptoss; \
    useradd --uid 10001 --gid gptoss --create-home --shell /usr/sbin/nologin gptoss; \
    install --directory --owner gptoss --group gptoss /models
COPY --from=dependencies /opt/gptoss /opt/gptoss
COPY --from=application /application /opt/gptoss
COPY deploy/image/health.py /opt/gptoss/
ENV PATH=/opt/gptoss/bin:$PATH \
    HF_HOME=/models/huggingface \
    GPTOSS_HOST=0.0.0.0 \
    GPTOSS_PORT=8000
USER 10001:10001
WORKDIR /home/gptoss
# Fails if the kernels were not compiled, because this stage has no compiler.
RUN python -c "from model.backends.cpu import library; library.load()"; gptoss --version


FROM cpu AS cuda
ENV TRITON_CACHE_DIR=/var/cache/triton TRITON_LIBCUDA_PATH=/usr/lib/x86_64-linux-gnu \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=triton --chown=10001:10001 /var/cache/triton /var/cache/triton
RUN --mount=type=bind,from=triton,source=/opt/stand-in,target=/stand-in \
    LD_LIBRARY_PATH=/stand-in python -c "from triton.backends.nvidia.driver import CudaUtils; CudaUtils()"


# hadolint ignore=DL3006
FROM ${VARIANT}
LABEL org.opencontainers.image.title="gptoss" \
      org.opencontainers.image.description="An OpenAI-compatible server for OpenAI's open-weight gpt-oss models"
VOLUME /models
EXPOSE 8000
# Refuses new requests, lets running answers end for GPTOSS_GRACE seconds, and exits 0.
STOPSIGNAL SIGTERM
# Loading a large model takes minutes, during which the port is closed.
HEALTHCHECK --interval=15s --timeout=5s --start-period=15m --retries=3 CMD ["python", "-IS", "/opt/gptoss/health.py"]
# tini is process 1.  Process 1 ignores signals without a handler, and the server has none while it loads.
ENTRYPOINT ["tini", "--", "gptoss"]
CMD ["serve"]
