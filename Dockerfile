# docker build --build-arg DEVICE=cpu --tag mer .     DEVICE=cuda, which is the default, is for NVIDIA's GPUs
# docker run --rm --init --gpus all --user "$(id -u)" --volume mer-cache:/work/cache \
#     --volume "$PWD/results:/work/results" --volume /path/to/casme3:/work/data/casme3:ro mer sweep --dataset casme3

FROM python:3.11-slim-bookworm AS build
ARG DEVICE=cuda
WORKDIR /build
COPY requirements.lock pyproject.toml ./
# The wheels of torch for a CPU are not on PyPI, so the lock has their versions and not their hashes.
RUN sed -n '/^uv==/,/[^\\]$/p' requirements.lock > uv.txt \
    && pip install --no-cache-dir --require-hashes --requirement uv.txt \
    && uv venv /opt/mer \
    && if [ "$DEVICE" = cpu ]; then \
        sed -i -E '/^(torch|torchvision)==/,/[^\\]$/{s/ \\$//;/--hash/d}' requirements.lock \
        && export UV_TORCH_BACKEND=cpu; \
    fi \
    && uv pip install --no-cache --python /opt/mer/bin/python --constraint requirements.lock \
        --requirement pyproject.toml setuptools
COPY . .
RUN uv pip install --no-cache --python /opt/mer/bin/python --no-deps --no-build-isolation .

FROM python:3.11-slim-bookworm
ARG DEVICE=cuda
# OpenCV's wheel leaves libGL and GLib to the system; Triton compiles what starts its kernels with gcc.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && if [ "$DEVICE" = cuda ]; then apt-get install --yes --no-install-recommends gcc libc6-dev; fi \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 mer \
    && install --directory --mode 1777 /home/mer /work /work/cache /work/data /work/models /work/results
COPY --from=build /opt/mer /opt/mer
ENV PATH=/opt/mer/bin:$PATH HOME=/home/mer USER=mer
USER 1000
WORKDIR /work
VOLUME ["/work/cache", "/work/models", "/work/results"]
ENTRYPOINT ["mer"]
CMD ["--help"]
