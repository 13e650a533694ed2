"""How many processes train, and how accelerate is told."""

import argparse
import importlib.util
from pathlib import Path

import pytest
import yaml

from influence_cli.errors import InfluenceError
from influence_trl.launching import training_command
from influence_trl.options import ExpertIterationOptions, TrainingOptions
from influence_trl.presets import PRESETS, check_launch, process_count, render_preset
from influence_trl.stage import Stage

from .conftest import make_rows

LAUNCHED = [name for name in PRESETS if name != "single"]


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("name", LAUNCHED)
def test_accelerate_takes_every_preset(tmp_path, name, bf16):
    from accelerate.commands.config.config_args import load_config_from_file

    text = render_preset(name, 8, bf16=bf16, accumulation=2, max_grad_norm=1.0)
    file = tmp_path / "accelerate.yaml"
    file.write_text(text)
    config = load_config_from_file(str(file))  # refuses keys that it does not know
    assert config.num_processes == 8
    assert config.mixed_precision == ("bf16" if bf16 else "no")
    assert (
        config.distributed_type.value
        == {
            "ddp": "MULTI_GPU",
            "fsdp": "FSDP",
            "deepspeed-2": "DEEPSPEED",
            "deepspeed-3": "DEEPSPEED",
        }[name]
    )


@pytest.mark.parametrize("name", LAUNCHED)
def test_the_keys_of_plugins_are_options_of_the_launcher(name):
    """A misspelt one would be passed over in silence."""
    from accelerate.commands.launch import launch_command_parser

    known = {action.dest for action in launch_command_parser()._actions if not isinstance(action, argparse._HelpAction)}
    config = yaml.safe_load(render_preset(name, 2, bf16=True, accumulation=2, max_grad_norm=1.0))
    assert set(config.get("fsdp_config", {})) <= known
    assert set(config.get("deepspeed_config", {})) <= known


def test_deepspeed_presets_differ_in_their_stage():
    for stage in (2, 3):
        config = yaml.safe_load(render_preset(f"deepspeed-{stage}", 2, bf16=True, accumulation=4, max_grad_norm=0.5))
        assert config["deepspeed_config"]["zero_stage"] == stage
        assert config["deepspeed_config"]["gradient_accumulation_steps"] == 4
        assert config["deepspeed_config"]["gradient_clipping"] == 0.5


@pytest.fixture
def stage(make_job) -> Stage:
    return Stage(
        algorithm="expert-iteration", options={}, job=make_job(make_rows(4)), model="m", micro_batch=2, fingerprint="f"
    )


def test_one_process_needs_no_launcher(stage):
    command = training_command(stage, ExpertIterationOptions(device="cpu"))
    assert command[1:3] == ["-m", "influence_trl.child"]


def test_several_processes_are_launched_by_accelerate(stage):
    command = training_command(stage, ExpertIterationOptions(device="cpu", launch="ddp", processes=4, batch=16))
    assert command[1:3] == ["-m", "accelerate.commands.launch"]
    assert command[-3:-1] == ["-m", "influence_trl.child"]
    written = yaml.safe_load(Path(command[command.index("--config_file") + 1]).read_text())
    assert written["num_processes"] == 4
    assert written["distributed_type"] == "MULTI_GPU"


def test_a_config_file_of_ones_own_is_passed_on(stage, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("distributed_type: MULTI_CPU\nnum_processes: 3\n")
    options = ExpertIterationOptions(device="cpu", launch=str(file))
    check_launch(options)
    assert process_count(options, 0) == 3
    assert str(file) in training_command(stage, options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"launch": "rocket"}, "no launch preset or accelerate config file 'rocket'.*Presets: single"),
        ({"processes": 2}, "preset single has one process"),
        ({"launch": "fsdp", "quantize": "4bit"}, "cannot be spread"),
        ({"launch": "fsdp", "device": "cpu"}, "spreads a model over GPUs, and none is used here"),
    ],
)
def test_what_cannot_be_launched_is_told(options, told):
    with pytest.raises(InfluenceError, match=told):
        check_launch(TrainingOptions(**options))


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is not None, reason="it is installed")
def test_deepspeed_must_be_installed():
    with pytest.raises(InfluenceError, match="needs deepspeed"):
        check_launch(TrainingOptions(launch="deepspeed-3"))


@pytest.mark.parametrize("text", ["a: [", "- 1", "num_processes: 2"])
def test_a_file_that_is_no_config_is_told_in_one_line(tmp_path, text):
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with pytest.raises(InfluenceError, match="config file") as caught:
        check_launch(TrainingOptions(launch=str(file)))
    assert "\n" not in str(caught.value)


def test_processes_are_one_a_gpu_else_two():
    assert process_count(TrainingOptions(), 8) == 1
    assert process_count(TrainingOptions(launch="ddp"), 8) == 8
    assert process_count(TrainingOptions(launch="ddp"), 0) == 2
    assert process_count(TrainingOptions(launch="ddp", processes=3), 8) == 3
