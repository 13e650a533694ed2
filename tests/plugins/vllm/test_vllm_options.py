"""Options become vLLM's arguments and a server's command line; what cannot work is said before anything is loaded."""

import importlib.util
import sys
from importlib.metadata import version

import pytest
from pydantic import ValidationError

from influence_cli.api import InfluenceError, model_folder
from influence_cli.plugins.options import validate_options
from influence_cli.plugins.registry import make_registry
from influence_vllm.arguments import engine_arguments, model_source, serve_command, serve_environment, serves_processor
from influence_vllm.catalog import VllmCatalog
from influence_vllm.making import make_backend
from influence_vllm.options import VllmOptions

WITHOUT_VLLM = pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")


def flags(command, name):
    """Return the values of an option of a command line."""
    return [command[at + 1] for at, word in enumerate(command[:-1]) if word == name]


@WITHOUT_VLLM
def test_without_vllm_the_message_names_all_three_ways():
    with pytest.raises(
        InfluenceError, match=r"vLLM is not installed here.*pip install vllm.*server=start.*server=http"
    ):
        make_backend("smollm2", VllmOptions())


def test_the_component_needs_no_vllm_to_be_shown():
    component = make_registry().component("backend", "vllm")
    options = validate_options(component, {"server": "http://127.0.0.1:8000"})
    assert options.address == "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"server": "stop"}, "say in-process, start, or an address"),
        ({"server": "http://me:secret@host/v1"}, "say in-process, start, or an address"),
        ({"max_lora_rank": 12}, "has room for the ranks"),
        ({"gpu_memory": 1.5}, "less than or equal to 1"),
        ({"tensor_parallel": 0}, "greater than or equal to 1"),
        ({"server": "http://host:8000", "dtype": "float32"}, "dtype changes nothing there"),
        ({"gpus": 2}, "Extra inputs"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        VllmOptions.model_validate(options)


def test_every_way_to_share_gpus_is_told_to_the_server():
    options = VllmOptions(
        server="start",
        tensor_parallel=4,
        pipeline_parallel=2,
        data_parallel=2,
        quantization="fp8",
        dtype="bfloat16",
        context_length=8192,
        gpu_memory=0.85,
        cache_mib=2048,
        cache_dtype="fp8",
        max_running=512,
        max_rows=16384,
        eager=True,
        max_loras=8,
        max_lora_rank=32,
        between="sleep",
        python="/envs/vllm/bin/python",
    )
    command = serve_command("llama", engine_arguments("org/llama", options), options, 8123)
    assert command[:5] == ["/envs/vllm/bin/python", "-m", "vllm.entrypoints.cli.main", "serve", "org/llama"]
    expected = {
        "--served-model-name": "llama",
        "--host": "127.0.0.1",
        "--port": "8123",
        "--tensor-parallel-size": "4",
        "--pipeline-parallel-size": "2",
        "--data-parallel-size": "2",
        "--quantization": "fp8",
        "--dtype": "bfloat16",
        "--max-model-len": "8192",
        "--gpu-memory-utilization": "0.85",
        "--kv-cache-memory-bytes": str(2048 * 2**20),
        "--kv-cache-dtype": "fp8",
        "--max-num-seqs": "512",
        "--max-num-batched-tokens": "16384",
        "--max-loras": "8",
        "--max-lora-rank": "32",
        "--generation-config": "vllm",
    }
    assert {name: flags(command, name) for name in expected} == {name: [value] for name, value in expected.items()}
    for switch in ("--enforce-eager", "--enable-prefix-caching", "--enable-lora", "--enable-sleep-mode"):
        assert switch in command


def test_what_is_not_asked_for_is_left_to_vllm():
    options = VllmOptions(server="start", adapters=False)
    command = serve_command("m", engine_arguments("org/m", options), options, 1)
    assert not [word for word in command if word.startswith(("--enable-lora", "--max-lora", "--quant", "--block"))]
    assert "--no-trust-remote-code" in command
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in serve_environment(options, "key")


def test_arguments_by_vllms_own_names_win():
    more = {"max_num_seqs": 7, "speculative_config": {"method": "ngram"}, "served_model_name": ["a", "b"]}
    options = VllmOptions(server="start", max_running=3, engine_arguments=more)
    command = serve_command("m", engine_arguments("org/m", options), options, 1)
    assert flags(command, "--max-num-seqs") == ["7"]
    assert flags(command, "--speculative-config") == ['{"method":"ngram"}']
    assert command[command.index("a") - 1 : command.index("b") + 1] == ["--served-model-name", "a", "b"]


def test_the_key_of_a_server_is_not_on_its_command_line():
    options = VllmOptions(server="start", threads=2)
    environment = serve_environment(options, "secret-key")
    assert "secret-key" not in " ".join(serve_command("m", engine_arguments("org/m", options), options, 1))
    assert environment["VLLM_API_KEY"] == "secret-key"
    assert environment["OMP_NUM_THREADS"] == "2"


def test_on_a_processor_the_cache_is_that_of_transformers():
    arguments = engine_arguments("m", VllmOptions(), on_processor=True)
    assert (arguments["kv_cache_memory_bytes"], arguments["block_size"]) == (1280 * 2**20, 32)
    assert "block_size" not in engine_arguments("m", VllmOptions())


def test_on_a_processor_prompts_are_read_whole():
    """A part of a prompt whose request has a seed ends vLLM there."""
    assert engine_arguments("m", VllmOptions(), on_processor=True)["enable_chunked_prefill"] is False
    assert "enable_chunked_prefill" not in engine_arguments("m", VllmOptions())
    options = VllmOptions(server="start")
    command = serve_command("m", engine_arguments("m", options, on_processor=True), options, 1)
    assert "--no-enable-chunked-prefill" in command


def test_whether_an_environment_knows_no_gpu_is_read_from_its_torch(tmp_path):
    pytest.importorskip("torch")
    assert serves_processor(sys.executable) == (version("torch").endswith("+cpu") or sys.platform == "darwin")
    assert not serves_processor(str(tmp_path / "nobody"))


def test_a_folder_that_is_none_is_said_before_anything_is_loaded(tmp_path):
    with pytest.raises(InfluenceError, match=r"no config\.json"):
        model_source(str(tmp_path))
    with pytest.raises(InfluenceError, match="There is no folder"):
        model_source("/no/such/folder")
    assert model_source("org/model") == "org/model"


def test_training_finds_the_weights_where_transformers_has_them(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert model_folder(f"vllm:{tmp_path}") == tmp_path
    assert list(VllmCatalog(VllmOptions()).models()) == []
    with pytest.raises(InfluenceError, match="nothing to fetch"):
        VllmCatalog(VllmOptions(server="http://host:1")).pull("m", lambda *_: None)
