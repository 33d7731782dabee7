# maskselect for the CPU: docker build -t maskselect .
#   docker run --rm -v "$PWD:/data" maskselect predict --image photo.png --prompt "the red leaves"
# tests/test_container.py runs the steps of this file without a builder.
FROM python:3.11-slim

COPY . /src
WORKDIR /src

# The CPU build of torch is on PyTorch's own index; the other packages have the versions of constraints.txt.
RUN pip install --no-cache-dir --constraint constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu . \
    && rm -rf /src

RUN useradd --create-home user && mkdir /data && chown user /data
USER user
WORKDIR /data
ENTRYPOINT ["maskselect"]
CMD ["--help"]
