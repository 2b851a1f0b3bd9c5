"""Files of the published layout become our models, and come back as they were."""

import os
import pickle
import re
import socket
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.metadata import Metadata

from dreamdojo import cli
from dreamdojo.convert import names
from dreamdojo.convert.convert import (
    ConvertSettings,
    convert,
    convert_latent_action,
    convert_tokenizer,
    convert_world_model,
)
from dreamdojo.convert.publish import SHARDED, to_published
from dreamdojo.convert.read import read_network, read_weights
from dreamdojo.convert.unpickle import Placeholder, load_pickle, load_torch
from dreamdojo.dataset.published import PUBLISHED_BODIES
from dreamdojo.errors import CheckpointError, ConfigError
from dreamdojo.latent_action.model import LatentActionConfig, LatentActionModel
from dreamdojo.nn.patches import actions_to_chunks
from dreamdojo.tokenizer.model import Tokenizer
from dreamdojo.tokenizer.wan import WAN_LATENT_MEAN, WanConfig, WanTokenizer
from dreamdojo.training.checkpoint import load_model, read_about
from dreamdojo.world_model.dit import DiT, DiTConfig
from dreamdojo.world_model.model import LATENT_ACTION, WorldModel
from tests.convert import published
from tests.oracle import load_oracle, weights
from tests.tiny import tiny_tokenizer, tiny_world_model

CLOSE = {"atol": 1e-5, "rtol": 1e-4}
TEXT = "cr1_empty_string_text_embeddings.pt"


@pytest.fixture
def files(tmp_path):
    """A folder with one published file of each kind."""
    folder = tmp_path / "files"
    folder.mkdir()
    torch.save(published.network(), folder / "model_ema_bf16.pt")
    torch.save(published.text_embedding(), folder / TEXT)
    torch.save({"state_dict": published.latent_action_model(), "epoch": 3}, folder / "LAM_400k.ckpt")
    torch.save(published.tokenizer(), folder / "Wan2.1_VAE.pth")
    return folder


def everything(files: Path) -> ConvertSettings:
    return ConvertSettings(
        world_model=files / "model_ema_bf16.pt",
        text=files / TEXT,
        latent_action=files / "LAM_400k.ckpt",
        tokenizer=files / "Wan2.1_VAE.pth",
    )


def equal(found: dict, expected: dict) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == value.dtype and torch.equal(found[name], value) for name, value in expected.items()
    )


def is_mapped(tensor: torch.Tensor, file: Path) -> bool:
    """Whether the tensor's memory is the file's."""
    lines = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines()]
    ranges = [[int(end, 16) for end in line[0].split("-")] for line in lines if line[5:] == [str(file)]]
    return any(first <= tensor.data_ptr() < last for first, last in ranges)


@pytest.mark.parametrize(
    ("make", "prefix", "table", "dropped"),
    [
        (published.network, "net.", names.WORLD_MODEL_NAMES, names.WORLD_MODEL_DROPPED),
        (published.latent_action_model, "lam.", names.LATENT_ACTION_NAMES, names.LATENT_ACTION_DROPPED),
        (published.tokenizer, "", names.WAN_NAMES, ()),
    ],
)
def test_names_come_home(make, prefix, table, dropped):
    entries = {n: v for n, v in make().items() if not names.is_dropped(n.removeprefix(prefix), dropped)}
    ours = names.from_published(entries, prefix=prefix, names=table)
    assert len(ours) == len(entries)
    assert equal(names.to_published(ours, prefix=prefix, names=table), entries)


def test_a_weight_without_a_published_place_is_refused():
    with pytest.raises(CheckpointError, match=r"'blocks\.0\.novelty\.weight' \(2,\) has no place"):
        names.to_published({"blocks.0.novelty.weight": torch.ones(2)}, prefix="net.", names=names.WORLD_MODEL_NAMES)


def test_published_files_come_back_bit_for_bit(files, tmp_path):
    convert(everything(files), tmp_path / "models")
    to_published(tmp_path / "models", tmp_path / "back")
    for name in ("model_ema_bf16.pt", "Wan2.1_VAE.pth"):
        assert equal(torch.load(tmp_path / "back" / name), torch.load(files / name))
    found = torch.load(tmp_path / "back" / "LAM_400k.ckpt")["state_dict"]
    assert equal(found, torch.load(files / "LAM_400k.ckpt")["state_dict"])
    assert torch.equal(torch.load(tmp_path / "back" / TEXT), published.text_embedding()[0])
    for averaged in (True, False):
        sharded = read_network(tmp_path / "back" / SHARDED, averaged=averaged)
        assert equal({name: value.read() for name, value in sharded.items()}, torch.load(files / "model_ema_bf16.pt"))


def test_a_student_in_pieces_comes_back_bit_for_bit(tmp_path):
    last = published.network(student=True)
    averaged = {
        name.replace("net.", "net_ema.", 1): value.float() + 1
        if value.is_floating_point() and value.ndim > 1
        else value
        for name, value in last.items()
    }
    published.save_in_pieces(tmp_path / "iter_000003000" / "model", last | averaged)
    source = tmp_path / "iter_000003000"
    for take_averaged, expected in ((True, averaged), (False, last)):
        out = tmp_path / str(take_averaged)
        convert_world_model(source, out / "world_model", text=None, student=True, averaged=take_averaged)
        network = WorldModel.from_pretrained(out / "world_model").config.dit
        assert (network.causal, network.window) == (True, 4)
        assert read_about(out / "world_model")["sampler"] == {"steps": 4, "shift": 5.0, "solver": "renoise"}
        assert read_about(out / "world_model")["converted_from"] == [f"{tmp_path.name}/iter_000003000"]
        to_published(out, out / "back")
        found = {name: value.read() for name, value in read_network(out / "back" / SHARDED).items()}
        assert equal(found, {name.replace("net_ema.", "net."): value for name, value in expected.items()})
        assert found["net.pos_embedder.seq"].shape == (256,)


def test_the_fixtures_come_back_bit_for_bit(tmp_path):
    for oracle, student in (("dit_action_tiny", False), ("dit_causal_stream_tiny", True)):
        entries = weights(load_oracle(oracle))
        torch.save(entries, tmp_path / f"{oracle}.pt")
        out = tmp_path / oracle
        convert_world_model(tmp_path / f"{oracle}.pt", out / "world_model", text=None, student=student)
        to_published(out, out / "back")
        assert equal(torch.load(out / "back" / "model_ema_fp32.pt"), entries)
    latent_action, tokenizer = weights(load_oracle("lam_tiny")), weights(load_oracle("wan_vae_tiny"))
    torch.save({"state_dict": latent_action}, tmp_path / "lam.ckpt")
    save_file(tokenizer, tmp_path / "vae.safetensors")
    convert_latent_action(tmp_path / "lam.ckpt", tmp_path / "rest" / "latent_action")
    convert_tokenizer(tmp_path / "vae.safetensors", tmp_path / "rest" / "tokenizer")
    to_published(tmp_path / "rest", tmp_path / "rest" / "back")
    assert equal(torch.load(tmp_path / "rest" / "back" / "LAM_400k.ckpt")["state_dict"], latent_action)
    assert equal(torch.load(tmp_path / "rest" / "back" / "Wan2.1_VAE.pth"), tokenizer)


def test_a_converted_world_model_gives_the_published_output_with_its_text_projected_once(tmp_path):
    oracle = load_oracle("dit_action_tiny")
    torch.save(weights(oracle), tmp_path / "model.pt")
    for sample in range(2):
        torch.save({"embedding": oracle["in.crossattn_emb"][sample]}, tmp_path / "text.pt")
        convert_world_model(tmp_path / "model.pt", tmp_path / str(sample), text=tmp_path / "text.pt", student=False)
        model = WorldModel.from_pretrained(tmp_path / str(sample))
        assert model.config.dit.text_features is None
        one = {name: oracle[f"in.{name}"][sample : sample + 1] for name in ("x_B_C_T_H_W", "timesteps_B_T", "action")}
        noisy = rearrange(one["x_B_C_T_H_W"], "b c t h w -> b t c h w")
        chunks = actions_to_chunks(one["action"], per_latent=4)
        found, _ = model.dit(
            noisy,
            (one["timesteps_B_T"] * 0.001).expand(-1, noisy.shape[1]),
            torch.cat([torch.zeros_like(chunks[:, :1]), chunks], dim=1),
            condition_mask=oracle["in.condition_video_input_mask_B_C_T_H_W"][sample : sample + 1, 0, :, 0, 0],
            text=model.context(1),
        )
        expected = rearrange(oracle["out"][sample : sample + 1], "b c t h w -> b t c h w")
        torch.testing.assert_close(found, expected, **CLOSE)


def test_sizes_bodies_and_sampling_follow_from_the_files(files, tmp_path):
    convert(everything(files), tmp_path / "models")
    model = WorldModel.from_pretrained(tmp_path / "models" / "world_model")
    network = model.config.dit
    assert (network.dim, network.num_heads, network.num_blocks, network.modulation_rank) == (48, 4, 2, 6)
    assert (network.action_dim, network.text_dim, network.patch_size, network.causal) == (384, 10, 2, False)
    assert {body.name for body in model.config.embodiments} == {"gr1", "g1", "yam", "agibot"}
    assert model.config.embodiments[0] == PUBLISHED_BODIES["gr1"]
    assert model.conditioning(LATENT_ACTION, torch.ones(1, 1, 4 * 32)).shape == (1, 1, 4 * 384)
    assert model.text is not None and model.text.shape == (512, 10) and model.text.dtype == torch.bfloat16
    assert model.about["sampler"] == {"steps": 35, "shift": 5.0, "solver": "unipc"}
    assert model.about["converted_from"] == ["model_ema_bf16.pt", TEXT]
    tokenizer = WanTokenizer.from_pretrained(tmp_path / "models" / "tokenizer")
    assert tokenizer.config == WanConfig(width=8)
    torch.testing.assert_close(tokenizer.latent_mean, torch.tensor(WAN_LATENT_MEAN))
    config = LatentActionModel.from_pretrained(tmp_path / "models" / "latent_action").config
    assert config == LatentActionConfig(dim=32, latent_dim=8, num_heads=2, encoder_blocks=2, decoder_blocks=1)


def test_without_a_text_zeros_are_projected(files, tmp_path):
    convert_world_model(files / "model_ema_bf16.pt", tmp_path / "a", text=None, student=False)
    model = WorldModel.from_pretrained(tmp_path / "a")
    bias = published.network()["net.crossattn_proj.0.bias"]
    expected = torch.nn.functional.gelu(bias.float()).bfloat16()
    assert model.text is not None and model.no_text is not None
    assert torch.equal(model.text, expected.expand(512, -1)) and torch.equal(model.no_text, expected)


def test_published_sizes_have_the_published_numbers_of_parameters():
    def count(model: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in model.parameters())

    with torch.device("meta"):
        for dim, heads, blocks, expected in ((2048, 16, 28, 2_151_474_176), (5120, 40, 36, 14_850_453_504)):
            config = DiTConfig(
                latent_channels=16, dim=dim, num_heads=heads, num_blocks=blocks, action_dim=384, text_features=100_352
            )
            assert count(DiT(config)) == expected
        config = LatentActionConfig(dim=1024, latent_dim=32, num_heads=16, encoder_blocks=24, decoder_blocks=24)
        rotary = 24 * 32  # published as frozen parameters, computed in ours
        assert count(LatentActionModel(config)) + rotary == 709_778_240
        assert count(WanTokenizer(WanConfig())) == 126_892_531


def altered(change) -> dict[str, torch.Tensor]:
    entries = published.network()
    change(entries)
    return entries


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda e: e.update({"net.blocks.0.gadget.weight": torch.ones(3)}),
            r"foreign .*blocks\.0\.gadget\.weight \(3,\)",
        ),
        (
            lambda e: e.update({"net.pos_embedder.gadget": torch.ones(3)}),
            r"pos_embedder\.gadget.*no such entry.*\(3,\)",
        ),
        (lambda e: e.pop("net.blocks.1.mlp.layer2.weight"), r"missing .*blocks\.1\.mlp\.layer2\.weight"),
        (lambda e: e.pop("net.x_embedder.proj.1.weight"), r"expected an entry 'x_embedder\.proj\.1\.weight' of 2 axes"),
        (
            lambda e: e.update({"net.blocks.1.mlp.layer2.weight": torch.ones(48, 190)}),
            r"blocks\.1\.mlp\.layer2\.weight: expected \(48, 192\), found \(48, 190\)",
        ),
        (
            lambda e: e["net.pos_embedder.dim_spatial_range"].mul_(1.1),
            r"dim_spatial_range.*expected the positions that a published model uses",
        ),
        (
            lambda e: e.update({"optimizer": torch.ones(3)}),
            r"expected entries that begin with 'net\.', found 'optimizer'",
        ),
        (lambda e: e.update({"net.gadget": "words"}), r"expected a tensor under 'net\.gadget', found a str"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_and_leaves_nothing(tmp_path, change, words):
    torch.save(altered(change), tmp_path / "odd.pt")
    settings = ConvertSettings(world_model=tmp_path / "odd.pt", no_text=True)
    with pytest.raises(CheckpointError, match=words) as error:
        convert(settings, tmp_path / "out")
    assert "odd.pt" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["odd.pt"]


def test_engine_state_is_left_out(tmp_path):
    entries = published.network() | {"net.blocks.0.self_attn.q_norm._extra_state": None}
    torch.save(entries, tmp_path / "model.pt")
    convert_world_model(tmp_path / "model.pt", tmp_path / "out", text=None, student=False)
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_files_of_other_kinds_and_files_cut_short_are_refused(files, tmp_path):
    with pytest.raises(CheckpointError, match=r"expected entries that begin with 'lam\.', found \['encoder\.conv1"):
        convert_latent_action(files / "Wan2.1_VAE.pth", tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"expected an entry 'encoder\.conv1\.weight'"):
        convert_tokenizer(files / "LAM_400k.ckpt", tmp_path / "b")
    with pytest.raises(CheckpointError, match="expected one text embedding"):
        convert_world_model(files / "model_ema_bf16.pt", tmp_path / "c", text=files / "Wan2.1_VAE.pth", student=False)
    with pytest.raises(CheckpointError, match="found nothing"):
        convert_tokenizer(tmp_path / "nowhere.pth", tmp_path / "d")
    with pytest.raises(CheckpointError, match=r"found no.*\.metadata|expected a sharded checkpoint"):
        convert_world_model(tmp_path, tmp_path / "e", text=None, student=False)
    whole = (files / "Wan2.1_VAE.pth").read_bytes()
    for length in (0, 10, 1000, len(whole) // 2, len(whole) - 5):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"cut\.pth.*cut short"):
            convert_tokenizer(tmp_path / "cut.pth", tmp_path / "f")


def test_a_sharded_checkpoint_with_a_piece_cut_short_or_missing_is_refused(tmp_path):
    published.save_in_pieces(tmp_path / "model", published.network())
    piece = tmp_path / "model" / "__0_0.distcp"
    piece.write_bytes(piece.read_bytes()[: piece.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=r"expected entry net\..* in its pieces"):
        convert_world_model(tmp_path / "model", tmp_path / "out", text=None, student=False)
    piece.unlink()
    with pytest.raises(CheckpointError, match=r"expected the file __0_0\.distcp, found none"):
        convert_world_model(tmp_path / "model", tmp_path / "out", text=None, student=False)


class Attack:
    """A pickle that runs a command when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


class Settings(dict):
    """Some class of the program that wrote the file."""


def test_nothing_of_a_strangers_pickle_runs_and_unknown_classes_do_not_hinder_reading(tmp_path):
    entries, mark = published.latent_action_model(), tmp_path / "mark"
    beside = {"callbacks": Attack(mark), "hyper_parameters": Settings(a=1), "path": tmp_path, "sizes": {1, 2}}
    torch.save({"state_dict": OrderedDict(entries), **beside}, tmp_path / "LAM_400k.ckpt")
    found = load_torch(tmp_path / "LAM_400k.ckpt")
    assert isinstance(found["callbacks"], Placeholder) and isinstance(found["hyper_parameters"], Placeholder)
    assert found["sizes"] == {1, 2}
    assert equal(found["state_dict"], entries)
    assert is_mapped(found["state_dict"]["lam.fc.weight"], tmp_path / "LAM_400k.ckpt")
    convert_latent_action(tmp_path / "LAM_400k.ckpt", tmp_path / "latent_action")
    assert not mark.exists()
    torch.load(tmp_path / "LAM_400k.ckpt", weights_only=False)
    assert mark.exists()  # the attack was a real one


def test_a_pickle_cannot_change_what_others_use(tmp_path):
    # BUILD with a pair sets attributes on the object before it: here on the class itself
    pickled = b"\x80\x02ctorch.distributed.checkpoint.metadata\nMetadata\nN}X\x05\x00\x00\x00thingK\x01s\x86b."
    (tmp_path / "index").write_bytes(pickled)
    with pytest.raises(CheckpointError):
        load_pickle(tmp_path / "index")
    assert not hasattr(Metadata, "thing")
    pickle.loads(pickled)
    assert hasattr(Metadata, "thing")  # the attack was a real one
    del Metadata.thing


def test_nothing_in_the_index_of_a_sharded_checkpoint_runs_or_leads_elsewhere(tmp_path):
    published.save_in_pieces(tmp_path / "model", published.network())
    index, mark = tmp_path / "model" / ".metadata", tmp_path / "mark"
    metadata = pickle.loads(index.read_bytes())
    metadata.planner_data = Attack(mark)
    index.write_bytes(pickle.dumps(metadata))
    read_weights(tmp_path / "model")
    assert not mark.exists()
    metadata.planner_data = None
    next(iter(metadata.storage_data.values())).relative_path = "../elsewhere"
    index.write_bytes(pickle.dumps(metadata))
    with pytest.raises(CheckpointError, match="outside its folder"):
        read_weights(tmp_path / "model")


def test_the_command_converts_there_and_back(files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(files)
    arguments = ["--world-model", "model_ema_bf16.pt", "--text", TEXT, "--latent-action", "LAM_400k.ckpt"]
    arguments += ["--tokenizer", "Wan2.1_VAE.pth", "--out", str(tmp_path / "models")]
    cli.main(["convert", *arguments])
    cli.main(["convert", "--back", str(tmp_path / "models"), "--out", str(tmp_path / "back")])
    assert equal(torch.load(tmp_path / "back" / "model_ema_bf16.pt"), torch.load("model_ema_bf16.pt"))
    card = (tmp_path / "models" / "world_model" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: dreamdojo\n") and "under their publisher's licence" in card
    assert re.search(r"\| `model_ema_bf16\.pt` \| `[0-9a-f]{64}` \|", card)
    assert str(tmp_path) not in card
    for wrong, words in (
        (arguments, "expected a new or empty folder"),
        (["--out", "x"], "nothing to convert"),
        (["--world-model", "model_ema_bf16.pt", "--out", "x"], f"{TEXT} of the model repository Cosmos-Predict2.5-2B"),
        (["--tokenizer", "Wan2.1_VAE.pth", "--student", "--out", "x"], "--student only has a meaning with"),
        (["--back", "x", "--student", "--out", "y"], "--back takes a folder of models and --out only"),
        (["--back", str(tmp_path), "--out", "y"], "expected one of the folders world_model"),
    ):
        with pytest.raises(SystemExit):
            cli.main(["convert", *wrong])
        assert words in " ".join(capsys.readouterr().err.split())


def test_models_that_are_not_of_the_published_kind_are_not_published(tmp_path):
    tiny_world_model().save_pretrained(tmp_path / "world_model")
    with pytest.raises(ConfigError, match=r"not of the published kind.*prediction=clean \(published: velocity\)"):
        to_published(tmp_path, tmp_path / "back")


def test_stored_precision_stays_and_the_file_is_mapped(files, tmp_path):
    convert_world_model(files / "model_ema_bf16.pt", tmp_path / "a", text=files / TEXT, student=False)
    mapped, copied = (load_model(tmp_path / "a", WorldModel, dtype=dtype) for dtype in (None, torch.float32))
    assert {p.dtype for p in mapped.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in copied.parameters()} == {torch.float32}
    assert is_mapped(mapped.dit.patch_in.weight, tmp_path / "a" / "model.safetensors")
    assert not is_mapped(copied.dit.patch_in.weight, tmp_path / "a" / "model.safetensors")
    assert mapped.latent_action_std.dtype == torch.float32


def no_network(*_, **__):
    raise AssertionError("something asked for a network")


@pytest.mark.parametrize("make", [tiny_tokenizer, tiny_world_model, lambda: WanTokenizer(WanConfig(width=8))])
def test_models_are_loaded_and_saved_without_a_network(make, tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "socket", no_network)
    model = make()
    model.about = {"sampler": {"steps": 2}}
    model.save_pretrained(tmp_path / "model")
    again = type(model).from_pretrained(str(tmp_path / "model"))
    assert equal(again.state_dict(), model.state_dict())
    assert again.about == model.about and again.config == model.config
    half = type(model).from_pretrained(tmp_path / "model", dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    card = (tmp_path / "model" / "README.md").read_text()
    assert "library_name: dreamdojo" in card and f"import {type(model).__name__}" in card
    with pytest.raises(CheckpointError, match="no such file"):
        type(model).from_pretrained(tmp_path / "nothing")


def test_a_repository_is_loaded_from_the_cache_of_the_hub_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "socket", no_network)
    model, repository = tiny_tokenizer(), tmp_path / "models--someone--tiny"
    model.save_pretrained(repository / "snapshots" / "1234")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("1234")
    again = Tokenizer.from_pretrained("someone/tiny", cache_dir=tmp_path, local_files_only=True)
    assert equal(again.state_dict(), model.state_dict())
    for name in ("someone/other", "not/a/repository"):
        with pytest.raises(CheckpointError, match="expected a folder or a repository OWNER/NAME"):
            Tokenizer.from_pretrained(name, cache_dir=tmp_path, local_files_only=True)


def test_a_pushed_model_is_the_one_that_comes_back(tmp_path, monkeypatch):
    class Hub:
        def __init__(self, token=None) -> None:
            self.token = token

        def create_repo(self, repo_id, *, private, exist_ok) -> None:
            (tmp_path / repo_id).mkdir(parents=True, exist_ok=exist_ok)

        def upload_folder(self, *, repo_id, folder_path, revision, commit_message, create_pr) -> str:
            for path in Path(folder_path).iterdir():
                path.rename(tmp_path / repo_id / path.name)
            return f"https://hub/{repo_id}/commit/1"

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    model = tiny_tokenizer()
    assert model.push_to_hub("someone/tiny") == "https://hub/someone/tiny/commit/1"
    assert {path.name for path in (tmp_path / "someone" / "tiny").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    assert equal(Tokenizer.from_pretrained(tmp_path / "someone" / "tiny").state_dict(), model.state_dict())


def test_projections_and_raw_text_are_kept_for_the_way_back(files, tmp_path):
    convert_world_model(files / "model_ema_bf16.pt", tmp_path / "world_model", text=files / TEXT, student=False)
    side = load_file(tmp_path / "world_model" / "text_projection.safetensors")
    assert torch.equal(side["embedding"], published.text_embedding()[0])
    (tmp_path / "world_model" / "text_projection.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"expected text_projection\.safetensors"):
        to_published(tmp_path, tmp_path / "back")
