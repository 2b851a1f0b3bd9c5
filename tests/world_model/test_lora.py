from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("peft", reason='LoRA needs peft: pip install "dreamdojo[lora]"')

from dreamdojo.errors import CheckpointError, ConfigError
from dreamdojo.training.checkpoint import load_model, read_about
from dreamdojo.training.fit import FitConfig
from dreamdojo.training.parts import part_names
from dreamdojo.world_model.lora import LoRAConfig, add_lora, load_lora, merge_lora, train_lora
from dreamdojo.world_model.model import WorldModel
from dreamdojo.world_model.train import WorldModelTraining, train_world_model
from tests.tiny import CPU, LATENT_DIM, PUSHER, latent_source, tiny_world_model

LORA = LoRAConfig(rank=2, alpha=4.0)
FIT = FitConfig(steps=4, batch_size=8, learning_rate=1e-2, warmup_steps=1, weight_decay=0.0)
TRAINING = WorldModelTraining(fit=FIT, latent_frames=3)
SOURCES = [latent_source(), latent_source(name=PUSHER.name, seed=1)]


def velocity(model):
    random = torch.Generator().manual_seed(0)
    noisy = torch.randn(2, 3, 4, 4, 4, generator=random)
    chunk = model.conditioning(PUSHER.name, torch.randn(2, 3, PUSHER.action_dim, generator=random))
    assert chunk.shape[-1] == LATENT_DIM
    with torch.no_grad():
        return model.dit(noisy, torch.full((2, 3), 0.5), chunk, previous=noisy)[0]


def with_lora_awake():
    model = tiny_world_model()
    add_lora(model, LORA)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model


def test_a_lora_starts_as_the_identity_and_only_it_and_the_adapters_can_be_trained():
    model = tiny_world_model()
    before = velocity(model)
    add_lora(model, LORA)
    assert torch.equal(velocity(model), before)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if "lora_" in name or name.startswith("adapters.")}
    assert sum("lora_A" in name for name in trained) == 6 * len(model.dit.blocks)


def test_merged_equals_not_merged_and_is_an_ordinary_model():
    model = with_lora_awake()
    before, plain = velocity(model), tiny_world_model()
    assert not torch.allclose(before, velocity(plain))
    merge_lora(model)
    torch.testing.assert_close(velocity(model), before, rtol=1e-5, atol=1e-5)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_base_in_bfloat16_keeps_the_lora_in_float32_and_merges_in_float32():
    model = tiny_world_model()
    add_lora(model, replace(LORA, base="bfloat16"))
    kept = {name: parameter.dtype for name, parameter in model.named_parameters()}
    assert {dtype for name, dtype in kept.items() if ".base_layer." in name} == {torch.bfloat16}
    assert {dtype for name, dtype in kept.items() if ".base_layer." not in name} == {torch.float32}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert velocity(model).isfinite().all()
    merge_lora(model)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_training_changes_the_lora_and_the_adapters_and_nothing_else(tmp_path):
    model = tiny_world_model()
    add_lora(model, LORA)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train_world_model(model, TRAINING, SOURCES, tmp_path, compute=CPU)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert changed == trained
    kept = part_names([tmp_path / "state" / str(TRAINING.fit.steps) / "0.safetensors"])
    averaged = {name.removeprefix("averaged/") for name in kept if name.startswith("averaged/")}
    assert averaged == trained | {name for name, _ in model.named_buffers()}


def test_a_run_leaves_the_merged_model_and_the_lora_which_comes_back_on_its_base(tmp_path):
    torch.manual_seed(3)
    merged = train_lora(tiny_world_model(), TRAINING, SOURCES, tmp_path, lora=LORA, compute=CPU)
    assert read_about(tmp_path)["lora"]["rank"] == LORA.rank
    torch.testing.assert_close(velocity(load_model(tmp_path, WorldModel)), velocity(merged))
    assert not torch.allclose(velocity(merged), velocity(tiny_world_model()), atol=1e-3)

    assert not any("base_layer" in name for name in load_file(tmp_path / "lora.safetensors"))
    base = tiny_world_model()
    bodiless = WorldModel(replace(base.config, embodiments=()))
    bodiless.load_state_dict(base.state_dict(), strict=False)
    again = load_lora(bodiless, tmp_path)
    torch.testing.assert_close(velocity(again), velocity(merged), rtol=1e-5, atol=1e-5)
    with pytest.raises(CheckpointError, match="the network that the LoRA was trained on"):
        load_lora(tiny_world_model(modulation_rank=4), tmp_path)


def test_targets_that_are_not_there_are_refused():
    with pytest.raises(ConfigError, match="nowhere"):
        add_lora(tiny_world_model(), replace(LORA, targets=("nowhere",)))
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        replace(LORA, rank=0)
